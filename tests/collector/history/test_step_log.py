"""Steps on disk: what is kept, what goes, what a crash or a damaged file costs."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from collector.history.step_log import StepLog

SECOND = 1_000_000
BASE = 1_760_004_000 // 3600 * 3600 * SECOND


def opened(directory: Path, max_bytes: int = 1 << 20, keep: int = 3600) -> StepLog:
    return StepLog(directory, "things", keep=keep, window=600, max_bytes=max_bytes)


def write(log: StepLog, first: int, last: int, step: int = 10) -> None:
    """Steps of these seconds, each holding its second."""
    for second in range(first, last, step):
        time_us = BASE + second * SECOND
        log.append(time_us, b"%d" % second, time_us * 1000)


def seconds(log: StepLog, since: float = 0, until: float = 1e9) -> list[int]:
    found = log.between(BASE + int(since * SECOND), BASE + int(until * SECOND))
    return [int(data) for _, data in found]


def growing(directory: Path) -> Path:
    return max(directory.glob("*.steps"))


def test_steps_are_found_again_in_growing_and_sealed_windows_and_after_reopening(tmp_path: Path) -> None:
    log = opened(tmp_path)
    write(log, 0, 1500)
    assert [path.suffix for path in sorted(tmp_path.iterdir())] == [".sealed", ".sealed", ".steps"]
    for _ in range(2):
        assert seconds(log) == list(range(0, 1500, 10))
        assert seconds(log, 595, 625) == [600, 610, 620]
        assert [int(data) for _, data in log.up_to(BASE + 629 * SECOND)] == [600, 610, 620]
        assert [int(data) for _, data in log.up_to(BASE + 599 * SECOND)][-1] == 590
        assert log.up_to(BASE - SECOND) == []
        assert (log.steps, log.first_us, log.last_us) == (150, BASE, BASE + 1490 * SECOND)
        assert log.disk_bytes == sum(path.stat().st_size for path in tmp_path.iterdir())
        log.close()
        log = opened(tmp_path)
    write(log, 1500, 1600)
    assert seconds(log, 1400) == list(range(1400, 1600, 10))


def test_a_window_begins_with_a_step_that_is_whole(tmp_path: Path) -> None:
    log = opened(tmp_path)
    assert log.begins(BASE)
    write(log, 0, 100)
    assert not log.begins(BASE + 100 * SECOND)
    assert log.begins(BASE + 600 * SECOND), "another window"
    assert log.begins(BASE + 50 * SECOND), "the clock was set back"
    log.close()
    assert opened(tmp_path).begins(BASE + 100 * SECOND), "whoever wrote the last step is gone"


def test_what_is_too_old_and_what_is_too_much_goes_and_is_counted(tmp_path: Path) -> None:
    log = opened(tmp_path)
    write(log, 0, 5400)
    assert min(seconds(log)) >= 5400 - 3600 - 600
    assert log.losses.removed_steps["age"] == 540 - log.steps > 0
    small = opened(tmp_path / "small", max_bytes=4096)
    for second in range(0, 3000, 10):
        time_us = BASE + second * SECOND
        small.append(time_us, os.urandom(100), time_us * 1000)
        assert small.disk_bytes <= 4096 + 200
    assert small.losses.removed_steps["size"] == 300 - small.steps > 0
    assert small.last_us == BASE + 2990 * SECOND


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_a_torn_tail_is_cut_and_counted(tmp_path: Path, cut: int) -> None:
    log = opened(tmp_path)
    write(log, 0, 100)
    log.close()
    path = growing(tmp_path)
    size = path.stat().st_size
    os.truncate(path, size - cut)
    log = opened(tmp_path)
    whole = 9 if cut < 50 else 8
    assert seconds(log) == list(range(0, whole * 10, 10))
    assert 0 < log.losses.torn_bytes < 60
    write(log, 100, 120)
    assert seconds(log) == [*range(0, whole * 10, 10), 100, 110]


@pytest.mark.parametrize("sealed", [False, True])
def test_damage_costs_a_frame_and_is_counted(tmp_path: Path, sealed: bool) -> None:
    log = opened(tmp_path)
    write(log, 0, 610 if sealed else 600)
    log.close()
    path = next(tmp_path.glob("*.sealed")) if sealed else growing(tmp_path)
    data = bytearray(path.read_bytes())
    for place in (3, len(data) // 2):  # within a magic and within a frame
        damaged = data.copy()
        damaged[place] ^= 0x55
        path.write_bytes(damaged)
        log = opened(tmp_path)
        found = seconds(log)
        assert log.losses.damaged >= 1
        lost = set(range(0, 600, 10)) - set(found)
        assert 1 <= len(lost) <= 32 if sealed else len(lost) == 1
        log.close()


def test_leftovers_of_a_crash_while_sealing(tmp_path: Path) -> None:
    log = opened(tmp_path)
    write(log, 0, 600)
    log.close()
    kept = growing(tmp_path).read_bytes()
    log = opened(tmp_path)
    write(log, 600, 620)
    log.close()
    growing_name = tmp_path / "things-00000001.steps"
    growing_name.write_bytes(kept)  # sealed, but not yet removed
    (tmp_path / "things-00000001.sealed.tmp").write_bytes(b"half")
    assert seconds(opened(tmp_path)) == list(range(0, 620, 10))
    assert not growing_name.exists()
    (tmp_path / "things-00000001.sealed").unlink()
    growing_name.write_bytes(kept)  # never sealed
    assert seconds(opened(tmp_path)) == list(range(0, 620, 10))


def test_a_full_disk_is_counted_and_the_next_step_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = opened(tmp_path)
    write(log, 0, 50)
    real = os.pwrite

    def full(fd: int, data: Any, at: int) -> int:
        real(fd, bytes(data)[:7], at)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    write(log, 50, 70)
    monkeypatch.undo()
    assert log.losses.steps == {"No space left on device": 2}
    assert log.begins(BASE + 70 * SECOND)
    write(log, 70, 90)
    log.close()
    log = opened(tmp_path)
    assert seconds(log) == [0, 10, 20, 30, 40, 70, 80]
    assert log.losses.torn_bytes == 0


def test_after_the_clock_was_set_back_the_newest_account_of_a_time_counts(tmp_path: Path) -> None:
    log = opened(tmp_path)
    write(log, 0, 300)
    for second in (100, 110, 120):
        time_us = BASE + second * SECOND
        log.append(time_us, b"%d" % (second + 1_000_000), time_us * 1000)
    assert [int(data) for _, data in log.up_to(BASE + 115 * SECOND)] == [1_000_100, 1_000_110]
    assert [int(data) for _, data in log.up_to(BASE + 290 * SECOND)][-1] == 290
    assert log.steps == 33


def test_a_clock_that_leaps_ahead_removes_nothing(tmp_path: Path) -> None:
    log = opened(tmp_path)
    write(log, 0, 1500)
    week = 7 * 86400
    log.append(BASE + week * SECOND, b"0", (BASE + week * SECOND) * 1000)
    assert log.steps == 151
    assert not log.losses.removed_steps


def test_a_window_that_cannot_be_read_when_it_is_to_be_sealed_is_not_taken_for_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For want of descriptors, say."""
    log = opened(tmp_path)
    write(log, 0, 600)
    read = Path.read_bytes

    def refused(path: Path) -> bytes:
        raise OSError(errno.EMFILE, "Too many open files", str(path))

    monkeypatch.setattr(Path, "read_bytes", refused)
    write(log, 600, 610)
    monkeypatch.setattr(Path, "read_bytes", read)
    assert seconds(log) == list(range(0, 610, 10))
    write(log, 610, 630)
    assert seconds(log) == list(range(0, 630, 10))
    assert log.losses.damaged == 0
    assert [path.suffix for path in sorted(tmp_path.iterdir())] == [".sealed", ".steps"]


def test_a_window_that_cannot_be_removed_costs_no_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = opened(tmp_path, max_bytes=1)
    write(log, 0, 10)
    unlink = Path.unlink

    def refused(path: Path, missing_ok: bool = False) -> None:
        if path.suffix == ".sealed":
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refused)
    write(log, 10, 40)
    assert log.steps_written == 4
    assert log.losses.removed_steps["size"] == 3
