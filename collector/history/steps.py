"""Rows from samples: a container's points of one step as one row, ten-second rows as minutes.

Counters are kept as last values and gauges as average and maximum, so that any step's growth is exact; where
totals began anew within a step, a carry row before says what the difference of the totals leaves out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import itemgetter

from collector.history.ring import Point
from collector.history.rows import AT, BEGAN, BEGAN_AT, CARRY, TOTALS, Packed, Row, pack, unpack

__all__ = ["Follower", "coarser", "make_rows"]

_Totals = tuple[int, int, int, int, int, int]

_ZERO: _Totals = (0, 0, 0, 0, 0, 0)
_NUMBER, _FLAGS, _SAMPLES, _TIME = AT["number"], AT["flags"], AT["samples"], AT["time_us"]
_AVERAGES = (
    (AT["memory_avg"], 1024),
    (AT["working_avg"], 1024),
    (AT["pids_avg"], 1),
)  # and in what they are whole
_HIGHEST = AT["memory_max"], AT["working_max"], AT["pids_max"]
_MAX_SAMPLES = 0xFFFF
_MAX_PIDS = 0x7FFF_FFFF // 1000
_UNKNOWN, _OTHER = -1, -2  # runs of a container, beside those a ring numbers


def _totals(point: Point) -> _Totals:
    """The point's counters, in the order of ``COUNTERS``."""
    return (
        round(point.cpu_seconds * 1e6),
        point.rx_bytes,
        point.tx_bytes,
        point.read_bytes,
        point.write_bytes,
        point.throttled_ns // 1000,
    )


class Follower:
    """Makes one container's rows, step after step; remembers only its last totals."""

    __slots__ = ("known", "last_us", "number", "starts", "totals")

    def __init__(self, number: int) -> None:
        self.number = number
        self.known = False  #: whether ``totals`` are somebody's
        self.totals = _ZERO
        self.last_us = 0
        self.starts = _UNKNOWN  #: run of the container they are from

    def resume(self, totals: Sequence[int], last_us: int, started_us: int) -> None:
        """Go on behind a row that an agent before wrote, maybe for a run of the container before this one."""
        self.known, self.totals, self.last_us = True, _as_totals(totals), last_us
        self.starts = _OTHER if started_us > last_us else _UNKNOWN

    def first_rows(self, points: Sequence[Point], limit: int, started_us: int = 0) -> list[Row]:
        """The rows of the first step, which grew since the container's start if that is known, or the first sample."""
        before = _ZERO if started_us else _totals(points[0])
        self.known, self.totals, self.starts = True, before, points[0].starts
        rows = self.rows(points, limit)
        carried = rows[0][TOTALS] if len(rows) > 1 else _ZERO
        since_us = started_us or points[0].time_ns // 1000
        # Rows know no totals before them: the growth is the new ones and what the carry adds.
        growth = [extra - base for extra, base in zip(carried, before, strict=True)]
        return [self._carry(BEGAN, rows[-1][3], growth, since_us), rows[-1]]

    def rows(self, points: Sequence[Point], limit: int) -> list[Row]:
        """The row of a step's points, behind a carry row where totals began anew."""
        last = points[-1]
        new = _totals(last)
        before = self.totals
        carried = None
        if self.known and (
            self.starts not in (_UNKNOWN, last.starts)
            or any(now < then for now, then in zip(new, before, strict=True))
        ):
            new, grown = self._slowly(points)
            carry = [grew - (now - then) for grew, now, then in zip(grown, new, before, strict=True)]
            carried = carry if any(carry) else None
        self.known = True
        self.totals = new
        self.starts = last.starts
        self.last_us = last.time_ns // 1000
        row = self._row(points, new, limit)
        return [row] if carried is None else [self._carry(CARRY, self.last_us, carried, 0), row]

    def _slowly(self, points: Sequence[Point]) -> tuple[_Totals, list[int]]:
        """Last totals and growth, point by point.

        CPU time that fell, like a start, is a new run: all begins at 0. Where another counter alone is less than
        before, a part of what it sums up went away (an interface), and what it grew by is not known: nothing. A
        counter that reads 0 was not read.
        """
        then = list(self.totals)
        grown = [0] * len(then)
        starts = self.starts
        for point in points:
            new = _totals(point)
            if starts not in (_UNKNOWN, point.starts) or 0 < new[0] < then[0]:
                then = [0] * len(then)
            starts = point.starts
            for index, value in enumerate(new):
                if value:
                    grown[index] += max(0, value - then[index])
                    then[index] = value
        return _as_totals(then), grown

    def _row(self, points: Sequence[Point], totals: _Totals, limit: int) -> Row:
        count = len(points)
        memory = [point.memory_bytes for point in points]
        working = [point.working_set_bytes for point in points]
        pids = [point.pids for point in points]
        return (
            self.number,
            0,
            min(count, _MAX_SAMPLES),
            self.last_us,
            *totals,
            round(sum(memory) / count / 1024) * 1024,
            max(memory),
            round(sum(working) / count / 1024) * 1024,
            max(working),
            limit,
            min(round(sum(pids) * 1000 / count), _MAX_PIDS * 1000),
            min(max(pids), _MAX_PIDS),
        )

    def _carry(self, flag: int, time_us: int, counters: Sequence[int], began_us: int) -> Row:
        return (self.number, flag, 0, time_us, *counters, began_us, 0, 0, 0, 0, 0, 0)


def _as_totals(values: Sequence[int]) -> _Totals:
    cpu, rx, tx, read, written, throttled = values
    return cpu, rx, tx, read, written, throttled


def make_rows(rows: Iterable[Row]) -> Packed:
    """Rows packed, ordered by number; a container's own order stays."""
    return pack(sorted(rows, key=itemgetter(_NUMBER)))


def coarser(packed: Packed) -> Packed:
    """One row a container, and its carry row, from its packed rows of several steps in the order written."""
    found: dict[int, list[Row]] = {}
    for row in unpack(packed):
        found.setdefault(row[_NUMBER], []).append(row)
    made: list[Row] = []
    for rows in found.values():
        values = [row for row in rows if not row[_FLAGS]]
        if values:
            row = _together(values)
            made += [*_carried(rows, row[_TIME]), row]
    return make_rows(made)


def _together(values: Sequence[Row]) -> Row:
    """One container's rows as one."""
    made = list(values[-1])
    counts = [row[_SAMPLES] for row in values]
    samples = sum(counts)
    for at, grain in _AVERAGES:
        weighed = sum([row[at] * count for row, count in zip(values, counts, strict=True)])
        made[at] = round(weighed / max(samples, 1) / grain) * grain
    for at in _HIGHEST:
        made[at] = max([row[at] for row in values])
    made[_SAMPLES] = min(samples, _MAX_SAMPLES)
    return tuple(made)


def _carried(rows: Sequence[Row], time_us: int) -> list[Row]:
    """The carry row of one container's rows of several steps put together, none if none of them is one."""
    carry: list[int] = []
    for index, row in enumerate(rows):
        if not row[_FLAGS]:
            continue
        new = list(row)
        if row[_FLAGS] == BEGAN and index:
            # It had rows before, so this is a carry over what they had reached.
            new[_FLAGS], new[AT[BEGAN_AT]] = CARRY, 0
            new[TOTALS] = _sums(row[TOTALS], rows[index - 1][TOTALS])
        if carry:
            carry[TOTALS] = _sums(carry[TOTALS], new[TOTALS])
        else:
            new[_TIME] = time_us
            carry = new
    return [tuple(carry)] if carry else []


def _sums(some: Sequence[int], others: Sequence[int]) -> list[int]:
    return [one + other for one, other in zip(some, others, strict=True)]
