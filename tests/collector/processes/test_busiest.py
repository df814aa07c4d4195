"""Sums of who was busiest: over the steps of a minute, and over a range longer than may be held in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from collector.processes import past as past_module
from collector.processes.busiest import BusyProcess, Group, Step, added, decode_step, encode_step
from collector.processes.past import Past
from collector.processes.recorder import ProcessArchive

SECOND = 1_000_000
BASE = 1_760_004_000 // 3600 * 3600 * SECOND
WEB = "w" * 64


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[ProcessArchive]:
    archive = ProcessArchive(tmp_path, 1 << 24)
    yield archive
    archive.close()


def process(pid: int, cpu_us: int) -> BusyProcess:
    return BusyProcess(pid, 7, 5, 1, "p", "p -x", 0, "S", 1, cpu_us, cpu_us, 1 << 20, 0, 0, ())


def test_a_container_that_ended_within_a_minute_keeps_its_name() -> None:
    """The step that says so does not know it any more."""
    whole = added([Group(WEB, "web", (process(1, 5),)), Group(WEB, "", ())])
    assert (whole.name, [one.pid for one in whole.processes]) == ("web", [1])
    assert added([Group(WEB, "old", ()), Group(WEB, "new", ())]).name == "new"


def write(archive: ProcessArchive, minute: int, *processes: BusyProcess) -> None:
    time_us = BASE + minute * 60 * SECOND
    step = Step(60 * SECOND, True, (Group(WEB, "web", processes),))
    archive.coarse.append(time_us, encode_step(step), time_us * 1000)


def test_a_long_range_is_summed_up_a_step_at_a_time(
    archive: ProcessArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A week's steps together are gigabytes."""
    for minute in range(20):
        write(archive, minute, process(minute, 5))
    decoded: list[int] = []
    held: list[int] = []
    add = past_module._added

    def counted(data: bytes) -> Step:
        decoded.append(1)
        return decode_step(data)

    def noted(*args: Any) -> Any:
        held.append(len(decoded))
        return add(*args)

    monkeypatch.setattr(past_module, "decode_step", counted)
    monkeypatch.setattr(past_module, "_added", noted)
    assert len(Past(archive).over(BASE, BASE + 3600 * SECOND)) == 20
    assert held == list(range(1, 21))


def test_of_more_processes_than_are_held_those_that_used_least_go_and_are_counted(
    archive: ProcessArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(past_module, "_MOST", 5)
    for minute in range(10):
        few = (process(1000 * minute + 100 + number, number * SECOND) for number in range(1, 5))
        write(archive, minute, process(1, 10 * SECOND), *few)
    used, left_out = Past(archive).busiest(BASE, BASE + 3600 * SECOND)
    assert used[0].process.cpu_us == 100 * SECOND
    assert len(used) == 5
    assert {one.process.cpu_us for one in used[1:]} == {4 * SECOND}
    assert left_out == 36
