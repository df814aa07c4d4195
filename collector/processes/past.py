"""Answers who was busiest at a moment of the past, and over a range of time, from what was recorded."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain
from operator import attrgetter

from collector.history.step_log import StepLog
from collector.processes.busiest import (
    BusyProcess,
    BusyThread,
    Group,
    Key,
    Step,
    busiest_threads,
    decode_step,
    folded,
)
from collector.processes.recorder import MINUTE, ProcessArchive

__all__ = ["Moment", "NothingKnown", "Past", "Used"]

log = logging.getLogger(__name__)

_SLACK_US = 1_500_000  #: a look may be late
#: Processes that are summed up over a range are cut down to so many whenever they are twice as many.
_MOST = 5_000

_ORDER = attrgetter("process.cpu_us", "most_resident_bytes")


class NothingKnown(Exception):
    """No step covers the time that was asked for; says which."""


@dataclass(frozen=True, slots=True)
class Moment:
    """The step that covers a moment."""

    from_us: int
    to_us: int
    groups: Mapping[str, Group]

    @property
    def seconds(self) -> float:
        """How long the step is; 0 where nothing was before it to compare with."""
        return (self.to_us - self.from_us) / 1e6


@dataclass(frozen=True, slots=True)
class Used:
    """What one process used over a range of time, as far as it was among the busiest."""

    container_id: str
    process: BusyProcess  #: totals of the range; the rest as it was last
    first_us: int  #: the begin of the first step it is in
    last_us: int
    most_cpu_percent: float  #: in one step
    most_cpu_us: int  #: when that step ended
    most_resident_bytes: int


class Past:
    """Reads an archive. Safe to use from any thread; callers keep it off the event loop."""

    def __init__(self, archive: ProcessArchive, clock: Callable[[], int] = time.time_ns) -> None:
        self._archive = archive
        self._clock = clock

    def at(self, time_us: int) -> Moment:
        """Every container's busiest processes at a moment. Raises NothingKnown."""
        for steps, reach in ((self._archive.fine, self._archive.step), (self._archive.coarse, float(MINUTE))):
            moment = self._at(steps, time_us, int(reach * 1e6))
            if moment is not None:
                return moment
        when = datetime.fromtimestamp(time_us // 1_000_000, UTC).astimezone().isoformat()
        raise NothingKnown(
            f"no processes were recorded at {when}: the agent did not run, or it is too long ago"
        )

    def _at(self, steps: StepLog, time_us: int, reach_us: int) -> Moment | None:
        last_us = steps.last_us  # first: a step that is written meanwhile may be of a later time
        following = next(_decoded(steps.between(time_us, time_us + 6 * reach_us)), None)
        if following is not None:
            until_us, step = following
            if time_us < until_us - max(step.span_us, reach_us) - _SLACK_US:
                return None  # nobody looked then
        elif not 0 <= time_us - last_us <= 2 * reach_us + _SLACK_US:
            return None
        else:  # its step is not over yet
            until_us = last_us
        found = [(at_us, step) for at_us, step in _decoded(steps.up_to(until_us))]
        if not found:
            return None
        to_us, last = found[-1]
        return Moment(to_us - last.span_us, to_us, folded(step for _, step in found))

    def threads_at(self, time_us: int, pid: int, start_ticks: int | None) -> tuple[Moment, BusyProcess]:
        """A process at a moment, with its busiest threads. Raises NothingKnown."""
        moment = self.at(time_us)
        for group in moment.groups.values():
            for process in group.processes:
                if process.pid == pid and start_ticks in (None, process.start_ticks):
                    return moment, process
        raise NothingKnown(f"process {pid} was not among the busiest of its container then")

    def over(self, since_us: int, until_us: int, container_id: str | None = None) -> list[Used]:
        """The processes that ``busiest`` finds."""
        return self.busiest(since_us, until_us, container_id)[0]

    def busiest(
        self, since_us: int, until_us: int, container_id: str | None = None
    ) -> tuple[list[Used], int]:
        """The processes of one container (None: of all) over a range, those that used most CPU time first.

        A process is there as far as it was among the busiest of its container in a step. The second result is
        how often one was left out because there were too many others that had used more by then.
        """
        age_us = self._clock() // 1000 - since_us
        fine, coarse = self._archive.fine, self._archive.coarse
        steps: Iterable[tuple[int, Step]]
        if age_us <= fine.keep * 1_000_000 and fine.first_us <= since_us + MINUTE * 1_000_000:
            steps = _decoded(fine.between(since_us, until_us))
        else:  # the minute under way is in the finer ones alone
            seam_us = min(until_us, coarse.last_us)
            steps = chain(
                _decoded(coarse.between(since_us, seam_us)),
                _decoded(fine.between(seam_us + 1, until_us)),
            )
        used: dict[tuple[str, Key], Used] = {}
        left_out = 0
        for to_us, step in steps:
            for group in step.groups:
                if container_id is not None and group.id != container_id:
                    continue
                for process in group.processes:
                    key = group.id, process.key
                    used[key] = _added(used.get(key), group, process, to_us, step.span_us)
            if len(used) >= 2 * _MOST:
                left_out += len(used) - _MOST
                used = dict(sorted(used.items(), key=lambda item: _ORDER(item[1]), reverse=True)[:_MOST])
        found = sorted(used.values(), key=_ORDER, reverse=True)
        return found[:_MOST], left_out + len(found[_MOST:])

    @property
    def step(self) -> float:
        """Seconds between fine steps."""
        return self._archive.step


def _decoded(steps: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, Step]]:
    for time_us, data in steps:
        try:
            yield time_us, decode_step(data)
        except ValueError as error:
            log.warning("passed over %s", error)


def _added(before: Used | None, group: Group, process: BusyProcess, to_us: int, span_us: int) -> Used:
    percent = process.cpu_us / span_us * 100 if span_us else 0.0
    if before is None:
        return Used(group.id, process, to_us - span_us, to_us, percent, to_us, process.resident_bytes)
    earlier = before.process
    threads: tuple[BusyThread, ...] = busiest_threads((*earlier.busiest, *process.busiest), 16)
    together = replace(
        process,
        cpu_us=earlier.cpu_us + process.cpu_us,
        read_bytes=earlier.read_bytes + process.read_bytes,
        write_bytes=earlier.write_bytes + process.write_bytes,
        busiest=threads,
    )
    higher = percent > before.most_cpu_percent
    return Used(
        group.id,
        together,
        min(before.first_us, to_us - span_us),
        max(before.last_us, to_us),
        percent if higher else before.most_cpu_percent,
        to_us if higher else before.most_cpu_us,
        max(before.most_resident_bytes, process.resident_bytes),
    )
