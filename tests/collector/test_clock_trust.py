"""What is removed for its age when the clock is wrong: stepped while the agent runs, or wrong already at its start."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from collector.clock_trust import ClockTrust, kernel_says_synchronized
from collector.history.archive import Archive
from collector.history.rows import Definition, row_type
from collector.history.step_log import StepLog
from collector.history.tier import Resolution
from collector.host.group import Files
from collector.host.groups.clock import timex
from collector.roots import Roots

sys.path.insert(0, str(Path(__file__).parent))
from store_blocks import lines_block, open_store, source

DAY, HOUR = 86400.0, 3600.0
#: A minute's begin, a half hour's and four hours' begin too.
BASE = 1_760_004_000.0 // 14400 * 14400


class Host:
    """A host with a wall clock that anybody sets and a clock since boot that nobody does."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.wall, self.since_boot, self.boots = BASE, 100.0, 1
        self.synchronized = False

    def agent(self) -> ClockTrust:
        return ClockTrust(
            self.file,
            f"boot-{self.boots}",
            synchronized=lambda: self.synchronized,
            since_boot=lambda: self.since_boot,
        )

    def run(
        self, clock: ClockTrust, seconds: float, look: Callable[[], None] | None = None, every: float = 10
    ) -> None:
        """Ask every ten seconds, as those who remove do."""
        for _ in range(int(seconds / every)):
            self.pass_by(every)
            clock.trusts(round(self.wall * 1e9))
            if look is not None:
                look()

    def pass_by(self, seconds: float) -> None:
        self.wall += seconds
        self.since_boot += seconds

    def boot(self, off: float) -> None:
        """The host was off for so long, or its clock says so."""
        self.wall += off
        self.since_boot, self.boots, self.synchronized = 20.0, self.boots + 1, False


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "clock.json")


def test_a_clock_wrong_at_the_start_is_watched_and_believed_in_the_end(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    host.run(host.agent(), 3 * HOUR)
    host.boot(14 * DAY)
    clock = host.agent()
    with caplog.at_level(logging.INFO):
        host.run(clock, 5.9 * HOUR)
        assert not clock.trusted
        host.run(clock, 0.2 * HOUR)
    assert clock.trusted, "a host that was off for two weeks has its old data removed"
    assert [(record.levelname, "14.0 days" in record.message) for record in caplog.records] == [
        ("WARNING", True),
        ("INFO", False),
    ], "said once, and once that it is over"


def test_restarts_and_short_runs_do_not_end_the_doubt_and_do_not_begin_it_anew(host: Host) -> None:
    host.run(host.agent(), HOUR)
    host.boot(14 * DAY)
    host.run(host.agent(), HOUR)
    for _ in range(3):  # the newest that was written is from the future itself by now
        clock = host.agent()
        host.run(clock, HOUR)
        assert not clock.trusted
    for _ in range(2):  # a host that is switched on for an hour every other day
        host.boot(2 * DAY)
        clock = host.agent()
        host.run(clock, 1.2 * HOUR)
    assert clock.trusted


def test_a_synchronized_clock_is_believed_whatever_it_says(host: Host) -> None:
    host.run(host.agent(), HOUR)
    host.boot(14 * DAY)
    clock = host.agent()
    host.run(clock, 600)
    assert not clock.trusted
    host.synchronized = True
    host.run(clock, 10)
    assert clock.trusted
    host.boot(14 * DAY)
    host.synchronized = True
    clock = host.agent()
    host.run(clock, 10)
    assert clock.trusted


def test_who_set_a_clock_that_was_watched_is_not_asked_before_an_hour(host: Host) -> None:
    host.run(host.agent(), HOUR)
    host.boot(14 * DAY)
    clock = host.agent()
    host.run(clock, 600)
    host.wall -= 14 * DAY  # set right
    host.run(clock, 0.9 * HOUR)
    assert not clock.trusted
    host.run(clock, 6 * HOUR)
    assert clock.trusted


@pytest.mark.parametrize("leap", [3600.0, 30 * DAY, -7200.0])
def test_a_step_while_the_agent_runs_or_is_down_is_waited_for_an_hour(host: Host, leap: float) -> None:
    clock = host.agent()
    host.run(clock, HOUR)
    for _ in range(2):
        host.wall += leap
        host.synchronized = True
        host.run(clock, 0.9 * HOUR)
        assert not clock.trusted
        host.run(clock, 0.2 * HOUR)
        assert clock.trusted
        host.pass_by(600)
        clock = host.agent()  # the second step comes between two agents of one boot


@pytest.mark.parametrize("restarted", [True, False])
@pytest.mark.parametrize("explained", [True, False])
def test_a_doubt_that_is_over_explains_no_later_step(host: Host, explained: bool, restarted: bool) -> None:
    host.run(host.agent(), HOUR)
    host.boot(14 * DAY)
    clock = host.agent()
    host.run(clock, 60)
    host.synchronized = explained
    host.run(clock, HOUR if explained else 6 * HOUR)
    assert clock.trusted
    if restarted:
        clock = host.agent()
    host.wall += 7 * DAY
    host.synchronized = True  # says a daemon that has not asked its servers since
    host.run(clock, 0.9 * HOUR)
    assert not clock.trusted
    host.run(clock, 0.2 * HOUR)
    assert clock.trusted


def test_the_rest_of_an_hour_after_a_step_does_not_stand_in_for_watching_after_a_boot(host: Host) -> None:
    clock = host.agent()
    host.run(clock, HOUR)
    host.wall += 2 * HOUR
    host.run(clock, 0.9 * HOUR)
    assert not clock.trusted
    host.boot(14 * DAY)
    clock = host.agent()
    host.run(clock, 5.9 * HOUR)
    assert not clock.trusted
    host.run(clock, 0.2 * HOUR)
    assert clock.trusted


def test_an_agent_that_was_stopped_for_weeks_on_a_host_that_ran_believes_the_clock(host: Host) -> None:
    host.run(host.agent(), HOUR)
    host.pass_by(14 * DAY)
    clock = host.agent()
    host.run(clock, 10)
    assert clock.trusted


def test_a_night_without_power_and_a_first_start_are_no_doubt(host: Host) -> None:
    clock = host.agent()
    host.run(clock, 10)
    assert clock.trusted
    host.boot(0.9 * DAY)
    clock = host.agent()
    host.run(clock, 10)
    assert clock.trusted


@pytest.mark.parametrize("content", [None, b"", b"[]", b'{"wall": "x"}'])
def test_without_its_file_the_newest_one_beside_it_is_asked(host: Host, content: bytes | None) -> None:
    (host.file.parent / "history").mkdir()
    data = host.file.parent / "history" / "10s-00000001.raw"
    data.write_bytes(b"x")
    os.utime(data, (BASE - 1e6, BASE))
    if content is not None:
        host.file.write_bytes(content)
        os.utime(host.file, (BASE - 1e6, BASE))
    host.boot(14 * DAY)
    clock = host.agent()
    os.utime(data, (host.wall, host.wall))  # an agent that runs writes there before anybody asks
    host.run(clock, 10)
    assert not clock.trusted
    assert clock.failures == (content is not None)
    host.run(clock, 6 * HOUR)
    assert clock.trusted


def test_a_file_that_cannot_be_written_is_counted(host: Host) -> None:
    host.file.with_suffix(".new").mkdir()
    clock = host.agent()
    host.run(clock, 180)
    assert clock.trusted
    assert clock.failures == 3


def test_the_kernel_says_whether_the_clock_is_synchronized() -> None:
    said = timex(Files(Roots()))["node_timex_sync_status"]
    assert kernel_says_synchronized() == bool(said[0][1])


def history(directory: Path, clock: ClockTrust, max_bytes: int = 1 << 20) -> Archive:
    archive = Archive(
        directory, max_bytes, (Resolution(10, 6 * 3600, 1800), Resolution(60, 7 * 86400, 14400)), clock
    )
    archive.define(Definition(1, "a" * 64, "web", "", ""))
    return archive


def test_history_keeps_what_is_young_by_its_own_neighbours(host: Host, tmp_path: Path) -> None:
    archive: Archive
    steps: StepLog

    def step() -> None:
        rows = np.zeros(1, row_type())
        rows["number"], rows["samples"], rows["time_us"] = 1, 10, round(host.wall * 1e6)
        now_ns = round(host.wall * 1e9)
        archive.append(round(host.wall) * 1_000_000, rows.tobytes(), now_ns)
        steps.append(round(host.wall * 1e6), b"x", now_ns)

    def run(seconds: float) -> tuple[Archive, StepLog]:
        nonlocal archive, steps
        clock = host.agent()
        archive = history(tmp_path / "h", clock)
        steps = StepLog(tmp_path / "s", "things", keep=6 * 3600, window=1800, max_bytes=1 << 20, clock=clock)
        host.run(clock, seconds, step, every=60)
        archive.close()
        steps.close()
        return archive, steps

    archive, steps = run(2 * HOUR)
    rows = archive.rows_written
    host.boot(14 * DAY)
    for _ in range(2):  # at the second start the newest step is as far ahead as the clock
        archive, steps = run(HOUR)
        assert archive.losses.removed_rows.total() == steps.losses.removed_steps.total() == 0
        assert steps.first_us == archive.fine.first_us == round((BASE + 60) * 1e6)
    archive, steps = run(4.5 * HOUR)
    assert archive.losses.removed_rows["age"] >= rows - 1
    assert min(archive.fine.first_us, archive.coarse.first_us) > (BASE + 14 * DAY) * 1e6
    assert steps.losses.removed_steps["age"] >= 120


def test_limits_of_size_hold_while_the_clock_is_in_doubt(host: Host, tmp_path: Path) -> None:
    host.run(host.agent(), 60)
    host.boot(14 * DAY)
    clock = host.agent()
    log = StepLog(tmp_path / "s", "things", keep=3600, window=600, max_bytes=4096, clock=clock)
    host.run(clock, HOUR, lambda: log.append(round(host.wall * 1e6), os.urandom(100), round(host.wall * 1e9)))
    assert not clock.trusted
    assert log.losses.removed_steps["size"] > 0
    assert log.disk_bytes <= 4096
    log.close()


def test_the_store_keeps_lines_while_the_clock_is_in_doubt(tmp_path: Path) -> None:
    host = Host(tmp_path / "clock.json")
    host.wall = time.time() - 14 * DAY
    host.run(host.agent(), 60)
    host.boots += 1
    store = open_store(tmp_path / "store", max_age_seconds=60.0, clock=host.agent())
    for number in range(20):
        store.append(source(), lines_block([b"%d" % number * 500]))
    store.maintain()
    assert store.counters().removed_lines["age"] == 0
    host.synchronized = True
    store.maintain()
    assert store.counters().removed_lines["age"] > 0
    store.close()
