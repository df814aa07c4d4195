"""Which directories changed, what is told when the kernel has lost count, and when it tells nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from collector.inputs.directory_watch import DirectoryWatch
from logdrivers.inotify import OVERFLOW, Event, Watch


@pytest.fixture
def two(tmp_path: Path) -> list[Path]:
    directories = [tmp_path / "one", tmp_path / "two"]
    for directory in directories:
        directory.mkdir()
    return directories


def test_changes_and_the_end_of_a_directory(two: list[Path]) -> None:
    watch = DirectoryWatch()
    for directory in two:
        watch.add(directory)
    assert watch.changed() == set()
    (two[0] / "log").write_text("x")
    assert watch.changed() == {two[0]}
    two[1].rmdir()
    assert watch.changed() == {two[1]}
    assert [watch.watched(directory) for directory in two] == [True, False]
    watch.remove(two[1])
    watch.close()


def test_when_the_kernel_drops_events_every_directory_counts_as_changed(
    two: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = DirectoryWatch()
    for directory in two:
        watch.add(directory)
    events = iter([[Event(-1, OVERFLOW, "")]])
    monkeypatch.setattr(Watch, "read", lambda _: next(events, []))
    assert watch.changed() == set(two)
    watch.close()


def test_two_paths_to_one_directory_are_both_told(tmp_path: Path) -> None:
    one, other = tmp_path / "a", tmp_path / "b"
    one.mkdir()
    other.symlink_to("a")
    watch = DirectoryWatch()
    watch.add(one)
    watch.add(other)
    (one / "x").touch()
    assert watch.changed() == {one, other}
    watch.remove(other)
    (one / "y").touch()
    assert watch.changed() == {one}
    watch.add(other)
    (one / "x").unlink()
    (one / "y").unlink()
    one.rmdir()
    assert watch.changed() == {one, other}
    assert not watch.watched(one)
    assert not watch.watched(other)
    watch.close()
