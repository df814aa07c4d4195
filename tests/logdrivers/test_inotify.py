"""A watch tells what changed, to poll and to asyncio, and never waits."""

import asyncio
import ctypes
import errno
import select
from pathlib import Path

import pytest

from logdrivers import inotify
from logdrivers.inotify import Watch


def test_a_written_and_a_renamed_file_are_told(tmp_path: Path) -> None:
    with Watch() as watch:
        number = watch.add(tmp_path)
        assert watch.read() == []
        (tmp_path / "a").write_text("x")
        (tmp_path / "a").rename(tmp_path / "b")
        assert select.select([watch], [], [], 10)[0] == [watch]
        events = watch.read()
        assert {(event.watch, event.mask, event.name) for event in events} == {
            (number, inotify.CREATE, "a"),
            (number, inotify.MODIFY, "a"),
            (number, inotify.MOVED_TO, "b"),
        }
        watch.remove(number)
        (tmp_path / "b").write_text("y")
        assert watch.read() == []


def test_a_single_file_has_no_name(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("")
    with Watch() as watch:
        watch.add(path, inotify.MODIFY)
        path.write_text("x")
        assert {event.name for event in watch.read()} == {""}


def test_asyncio_waits_on_it(tmp_path: Path) -> None:
    async def wait() -> list[str]:
        loop = asyncio.get_running_loop()
        changed = asyncio.Event()
        with Watch() as watch:
            watch.add(tmp_path)
            loop.add_reader(watch, changed.set)
            (tmp_path / "a").touch()
            await asyncio.wait_for(changed.wait(), 10)
            loop.remove_reader(watch)
            return [event.name for event in watch.read()]

    assert asyncio.run(wait()) == ["a"]


def test_only_a_directory_and_the_end_of_its_watch(tmp_path: Path) -> None:
    directory, file = tmp_path / "directory", tmp_path / "file"
    directory.mkdir()
    file.touch()
    with Watch(ends=True) as watch:
        with pytest.raises(NotADirectoryError, match=r"could not watch .*/file"):
            watch.add(file, directory=True)
        number = watch.add(directory, inotify.CREATE, directory=True)
        (directory / "below").mkdir()
        (directory / "below").rmdir()
        directory.rmdir()
        assert watch.read() == [
            (number, inotify.CREATE | inotify.IS_DIRECTORY, "below"),
            (number, inotify.ENDED, ""),
        ]


@pytest.mark.parametrize(
    ("number", "limit"), [(errno.ENOSPC, "max_user_watches"), (errno.EMFILE, "instances")]
)
def test_a_limit_of_the_host_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, limit: str
) -> None:
    class Refusing:
        def inotify_add_watch(self, *_: object) -> int:
            ctypes.set_errno(number)
            return -1

    with Watch() as watch:
        monkeypatch.setattr(inotify, "_libc", Refusing())
        with pytest.raises(OSError, match=f"fs.inotify.*{limit}") as caught:
            watch.add(tmp_path)
    assert caught.value.errno == number


def test_what_cannot_be_watched_is_named(tmp_path: Path) -> None:
    with Watch() as watch, pytest.raises(OSError, match=r"could not watch .*/missing"):
        watch.add(tmp_path / "missing")
