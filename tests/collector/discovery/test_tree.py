"""A tree of directories, watched in bounds."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from collector.discovery import tree as tree_module
from collector.discovery.tree import CgroupTree, What


def paths(happenings: list[tuple[What, str]], what: What = What.MADE) -> list[str]:
    return sorted(path for happened, path in happenings if happened is what)


def test_what_is_there_what_comes_and_what_goes(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "file").touch()
    tree = CgroupTree(tmp_path)
    assert paths(tree.scan()) == ["/a", "/a/b"]
    assert tree.scan() == []
    (tmp_path / "a/b/c/d").mkdir(parents=True)
    (tmp_path / "a/b/cgroup.procs").write_text("1")
    (tmp_path / "a/b/memory.max").write_text("1")
    happened = tree.read()
    assert paths(happened) == ["/a/b/c", "/a/b/c/d"]
    assert set(paths(happened, What.PROCESSES)) == {"/a/b"}
    (tmp_path / "a/b/c/d").rmdir()
    (tmp_path / "a/b/c").rmdir()
    assert paths(tree.read(), What.GONE) == ["/a/b/c", "/a/b/c/d"]
    assert (len(tree), tree.watches, tree.read()) == (2, 3, [])
    (tmp_path / "a/b").rename(tmp_path / "a/e")
    happened = tree.read()
    assert (paths(happened, What.GONE), paths(happened)) == (["/a/b"], ["/a/e"])
    tree.close()


def test_a_directory_made_and_removed_before_the_look_is_not_told_of(tmp_path: Path) -> None:
    tree = CgroupTree(tmp_path)
    (tmp_path / "brief").mkdir()
    (tmp_path / "brief").rmdir()
    assert (tree.read(), len(tree), tree.watches) == ([], 0, 1)
    tree.close()


def test_more_than_may_be_watched_is_looked_at(tmp_path: Path) -> None:
    for name in "abcd":
        (tmp_path / name / "in").mkdir(parents=True)
    tree = CgroupTree(tmp_path, max_watches=4)
    assert len(paths(tree.scan())) == 8
    assert (tree.watches, tree.unwatched) == (4, 5)
    for name in "abcd":
        (tmp_path / name / "new").mkdir()
    told = paths(tree.read())
    assert 0 < len(told) < 4
    assert sorted(told + paths(tree.scan())) == [f"/{name}/new" for name in "abcd"]
    for name in "abcd":
        (tmp_path / name / "new").rmdir()
        (tmp_path / name / "in").rmdir()
    tree.read()
    gone = tree.scan()  # there is room again
    assert len(tree) == 4
    assert gone
    tree.scan()
    assert (tree.watches, tree.unwatched) == (4, 1)
    tree.close()


def test_how_deep(tmp_path: Path) -> None:
    (tmp_path / "1/2/3/4/5").mkdir(parents=True)
    tree = CgroupTree(tmp_path, max_depth=2)
    assert paths(tree.scan()) == ["/1", "/1/2", "/1/2/3"]
    assert (tree.watches, tree.unwatched) == (3, 1)
    tree.close()


def test_where_the_host_allows_no_watch_a_look_tells_and_tries_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EMFILE, "no (fs.inotify.max_user_instances)")

    (tmp_path / "a").mkdir()
    monkeypatch.setattr(tree_module, "Watch", refuse)
    tree = CgroupTree(tmp_path)
    assert (tree.told, tree.fileno(), paths(tree.scan())) == (False, -1, ["/a"])
    (tmp_path / "a/b").mkdir()
    assert tree.read() == []
    assert paths(tree.scan()) == ["/a/b"]
    assert (tree.watches, tree.unwatched) == (0, 2)
    monkeypatch.undo()
    assert tree.scan() == []
    assert (tree.told, tree.watches, tree.unwatched) == (True, 3, 0)
    (tmp_path / "a/b/c").mkdir()
    assert paths(tree.read()) == ["/a/b/c"]
    tree.close()
    assert caplog.text.count("max_user_instances") == 1
