"""The disk walker: what it counts, what it leaves out, how it holds back."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from collector.disk import walker as module
from collector.disk.walker import Stopped, Walker


def du(path: Path) -> int:
    done = subprocess.run(["du", "-sx", "-B1", path], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[0])


def grow(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.write(os.urandom(size))
        os.fsync(file.fileno())


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for number in range(40):
        directory = tmp_path / f"d{number % 4}" / f"e{number}"
        directory.mkdir(parents=True)
        grow(directory / "file", 1000 * number + 1)
    return tmp_path


def test_the_sum_is_that_of_du(tree: Path) -> None:
    usage = Walker(1.0).usage(str(tree))
    assert usage == (du(tree), 1 + 4 + 40 + 40, 0)


def test_a_file_with_several_names_is_counted_once(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = Walker(1.0).usage(str(tree))
    for number in range(5):
        (tree / f"again{number}").hardlink_to(tree / "d0/e36/file")
    assert Walker(1.0).usage(str(tree)) == before
    monkeypatch.setattr(module, "_MOST_LINKED", 0)  # more of them than are remembered
    assert abs(Walker(1.0).usage(str(tree)).size_bytes - before.size_bytes) <= 6 * 512


def test_links_are_not_followed_and_holes_take_nothing(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to("/")
    (tmp_path / "up").symlink_to("..")
    with (tmp_path / "hole").open("wb") as file:
        file.truncate(1 << 30)
    usage = Walker(1.0).usage(str(tmp_path))
    assert usage.size_bytes < 100_000
    assert usage.inodes == 4


def test_another_file_system_is_not_entered(tree: Path) -> None:
    before = Walker(1.0).usage(str(tree))
    point = tree / "d1/mounted"
    point.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "disk-test", point], check=True)
    try:
        (point / "big").write_bytes(bytes(1 << 20))
        usage = Walker(1.0).usage(str(tree))
    finally:
        subprocess.run(["umount", point], check=True)
    assert usage == before


def test_what_vanishes_or_turns_into_a_link_meanwhile_costs_nothing_else(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[object] = []
    real = os.open

    def racing(path: str, flags: int, *args: int, **named: int) -> int:
        opened.append(path)
        if len(opened) == 2:  # the first directory below the root, just found
            subprocess.run(["rm", "-r", *tree.glob("d*")], check=True)
            for number in range(4):
                (tree / f"d{number}").symlink_to("/usr")
        return real(path, flags, *args, **named)

    monkeypatch.setattr(module.os, "open", racing)
    usage = Walker(1.0).usage(str(tree))
    assert len(opened) == 5
    assert usage.inodes == 5
    assert usage.skipped == 0


def test_too_deep_a_tree_is_counted_as_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_DEEPEST", 3)
    (tmp_path / "a/b/c/d").mkdir(parents=True)
    usage = Walker(1.0).usage(str(tmp_path))
    assert usage.inodes == 4  # the root, a, b, and c, which is not entered
    assert usage.skipped == 1


def test_a_directory_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Walker(1.0).usage(str(tmp_path / "none"))


def counting(step: float) -> Callable[[], float]:
    """A clock that has gone on by ``step`` whenever it is asked."""
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += step
        return now

    return clock


class Rests(threading.Event):
    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout or 0.0)
        return self.is_set()


def many(tmp_path: Path) -> str:
    for number in range(600):
        (tmp_path / str(number)).touch()
    return str(tmp_path)


def test_it_sleeps_as_long_as_its_share_asks_for(tmp_path: Path) -> None:
    rests = Rests()
    Walker(0.05, rests, clock=lambda: 0.0, cpu_clock=counting(0.001)).usage(many(tmp_path))
    assert rests.waits == [pytest.approx(0.02)] * 2  # a millisecond of CPU each, a twentieth of the time


def test_it_ends_soon_when_it_is_told_to(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with pytest.raises(Stopped):
        Walker(0.05, stop).usage(many(tmp_path))
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_its_io_comes_after_everybody_elses(tmp_path: Path) -> None:
    shown = []

    def walk() -> None:
        Walker(1.0).usage(str(tmp_path))
        done = subprocess.run(
            ["ionice", "-p", str(threading.get_native_id())], capture_output=True, text=True, check=True
        )
        shown.append(done.stdout.strip())

    thread = threading.Thread(target=walk)
    thread.start()
    thread.join()
    assert shown == ["idle"]
