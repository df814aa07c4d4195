"""Answers questions about the past: one container's curves, or all containers at a moment.

Takes the finest resolution that reaches back far enough, what came before it from the coarser one, and what is
not on disk yet from the sampler's rings. numpy is imported with the first question.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from collector.container import Container
from collector.discovery.registry import Containers
from collector.history.archive import Archive, Held
from collector.history.ring import History
from collector.history.rows import Definition, Row, row_type
from collector.history.steps import Follower
from collector.sampler import HOST, Sampler

if TYPE_CHECKING:
    from collector.history.curves import Curves
    from collector.history.rows import Rows

__all__ = ["Answer", "HistoryError", "HistoryReader", "Moment"]

_SECOND = 1_000_000  # microseconds
_RING_SECONDS = 600
_SLACK = 5  # seconds a question for the last six hours may be on its way
_MOST_STEPS = 11_000
_CHOSEN_STEPS = 720  # at most, where the question names no step
_NICE = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400)


class HistoryError(ValueError):
    """A question that cannot be answered; says which part of it and what was expected."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Curves and what they are of."""

    container: Held
    step: int  #: seconds
    resolution: int  #: of the rows, in seconds
    curves: Curves


@dataclass(frozen=True, slots=True)
class Moment:
    """One container at one moment: averages over the step around it, totals at its end."""

    id: str
    name: str
    image: str
    engine: str
    time_ns: int  #: of the step's last sample
    cpu_percent: float  #: 100 is one whole CPU
    memory_usage_bytes: int  #: without inactive page cache, as ``docker stats`` has it
    memory_limit_bytes: int  #: the host's memory where the container had no limit
    memory_percent: float
    net_rx_bytes: int  #: since the container's start
    net_tx_bytes: int
    block_read_bytes: int
    block_write_bytes: int
    net_rx_bytes_per_second: float
    net_tx_bytes_per_second: float
    block_read_bytes_per_second: float
    block_write_bytes_per_second: float
    throttled_percent: float
    pids: int


class HistoryReader:
    """Questions to the archive (None: nothing is kept on disk) and to the sampler's rings. Any thread may ask."""

    def __init__(
        self,
        containers: Containers,
        sampler: Sampler,
        archive: Archive | None,
        host: str,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._containers = containers
        self._sampler = sampler
        self._archive = archive
        self._host = Held(HOST, host, "", "", 0, 0)
        self._clock = clock

    def find(self, key: str) -> Held:
        """The container with this name or id, else with this beginning of an id; ``/`` is the host.

        Known ones before removed ones, but nobody by a beginning before one that has the name. Raises HistoryError.
        """
        if key == HOST:
            return self._host
        known = self._containers.exact(key) if key else None
        held = self._archive.find(key) if self._archive is not None and key and known is None else None
        if known is None and (held is None or key.removeprefix("/") not in (held.name, held.id)):
            known = self._containers.by_prefix(key)
        if known is not None:
            return Held(known.id, known.name, known.image, known.engine, 0, 0)
        if held is None:
            raise HistoryError(
                f"container={key!r}: expected the name or id of a container with history, or / for the host"
            )
        return held

    def held(self, since_us: int, until_us: int) -> list[Held]:
        """Every container with history in a range (to the precision of a file, an hour or so), by name."""
        found = self._archive.held(since_us, until_us) if self._archive is not None else {}
        for container_id, container, ring, _ in self._sampler.rings():
            if not len(ring):
                continue
            first_us, last_us = ring[0].time_ns // 1000, ring[-1].time_ns // 1000
            if last_us < since_us or first_us > until_us:
                continue
            before = found.get(container_id)
            first_us = min(first_us, before.first_us) if before else first_us
            named = container or Container(HOST, self._host.name)
            found[container_id] = Held(container_id, named.name, named.image, named.engine, first_us, last_us)
        return sorted(found.values(), key=lambda one: (one.name, one.id))

    def curves(self, key: str, since_us: int, until_us: int, step: int = 0) -> Answer:
        """One container's curves over a range; ``step`` in seconds, 0 chooses one. Raises HistoryError, OSError."""
        from collector.history.curves import curves

        held = self.find(key)
        if until_us <= since_us:
            raise HistoryError(f"to={until_us // _SECOND}: expected a time after from={since_us // _SECOND}")
        resolution = self._resolution(since_us, step)
        step = _step(resolution, since_us, until_us, step)
        step_us = step * _SECOND
        start_us = since_us - since_us % step_us
        count = -(-(until_us - start_us) // step_us)
        if count > _MOST_STEPS:
            least = -(-(until_us - since_us) // _SECOND // _MOST_STEPS)
            raise HistoryError(
                f"step={step}: expected at least {least} seconds for this range, {_MOST_STEPS} steps at most"
            )
        rows = self._rows(held.id, resolution, start_us, start_us + count * step_us - 1)
        return Answer(held, step, resolution, curves(rows, start_us, step_us, count))

    def at(self, time_us: int) -> tuple[int, list[Moment]]:
        """The host and every container that ran at a moment, by name; and the seconds between rows it is from."""
        resolution = self._resolution(time_us, 0)
        rows: dict[str, tuple[Definition, Rows]] = {}
        if self._archive is not None:
            fine = self._archive.fine
            coarse = resolution > fine.resolution.step or not fine.first_us or fine.first_us > time_us
            rows = self._around(self._archive, coarse, time_us)
            if coarse:  # what is not a whole minute yet
                rows = self._around(self._archive, False, time_us) | rows
        if resolution < 10 or self._archive is None:
            rows |= self._rings_around(time_us)
        memory = self._sampler.machine.memory.total_bytes
        moments = [_moment(definition, found, memory) for definition, found in rows.values()]
        return resolution, sorted(moments, key=lambda one: (one.id != HOST, one.name, one.id))

    # --- which rows ----------------------------------------------------------------------------------

    def _resolution(self, since_us: int, step: int) -> int:
        """Seconds between the rows to take: the finest that reaches back so far, or suffices for the step."""
        age = self._clock() / 1e9 - since_us / 1e6
        seconds = max(1, round(self._sampler.interval))
        if self._archive is None:
            return seconds
        fine, coarse = self._archive.fine.resolution, self._archive.coarse.resolution
        if age <= _RING_SECONDS + _SLACK and step < fine.step:
            return seconds
        if age <= fine.keep + _SLACK and step < coarse.step:
            return fine.step
        return coarse.step

    def _rows(self, container_id: str, resolution: int, since_us: int, until_us: int) -> Rows:
        """One container's rows in the order of time, with one before the range to grow from."""
        levels: list[tuple[int, Callable[[int, int], Rows]]] = []
        archive = self._archive
        if archive is not None:
            levels.append((archive.coarse.resolution.step, partial(archive.series, True, container_id)))
            levels.append((archive.fine.resolution.step, partial(archive.series, False, container_id)))
        levels.append((max(1, round(self._sampler.interval)), partial(self._ring_rows, container_id)))
        chosen = next(index for index, level in enumerate(levels) if level[0] == resolution)
        step, read = levels[chosen]
        parts = [read(since_us - _before(step), until_us)]
        for step, read in reversed(levels[:chosen]):  # what the chosen ones do not reach back to
            first = next((int(part["time_us"][0]) for part in parts if len(part)), until_us + 1)
            if first - since_us > step * _SECOND:
                parts.insert(0, read(since_us - _before(step), first - 1))
        for _, read in levels[chosen + 1 :]:  # what has not come to them yet
            last = next((int(part["time_us"][-1]) for part in reversed(parts) if len(part)), since_us - 1)
            parts.append(read(last + 1, until_us))
        return _concatenated(parts)

    def _ring(self, container_id: str) -> History | None:
        return next((ring for one, _, ring, _ in self._sampler.rings() if one == container_id), None)

    def _ring_rows(self, container_id: str, since_us: int, until_us: int) -> Rows:
        """The seconds in memory, a row a sample."""
        ring = self._ring(container_id)
        points = list(ring) if ring is not None else []
        made: list[Row] = []
        follower = Follower(0)
        for index, point in enumerate(points):
            following = index + 1 < len(points) and points[index + 1].time_ns // 1000 >= since_us
            if point.time_ns // 1000 > until_us:
                break
            if point.time_ns // 1000 >= since_us:
                made += follower.rows([point], 0)
            elif following:
                follower.rows([point], 0)  # only to see whether the next begins anew
        return _array(made)

    def _around(self, archive: Archive, coarse: bool, time_us: int) -> dict[str, tuple[Definition, Rows]]:
        """Of every container with a row whose step holds the moment: that row and what it grew from."""
        import numpy as np

        step_us = (archive.coarse if coarse else archive.fine).resolution.step * _SECOND
        rows, definitions = archive.between(coarse, time_us - 2 * step_us - _SECOND, time_us + step_us)
        rows = rows[np.argsort(rows["number"], kind="stable")]
        found: dict[str, tuple[Definition, Rows]] = {}
        for own in np.split(rows, np.flatnonzero(np.diff(rows["number"])) + 1):
            behind = np.flatnonzero((own["time_us"] >= time_us - _SECOND) & (own["flags"] == 0))
            definition = definitions.get(int(own["number"][0])) if len(own) else None
            if len(behind) and definition is not None:
                found[definition.id] = definition, own[: behind[0] + 1]
        return found

    def _rings_around(self, time_us: int) -> dict[str, tuple[Definition, Rows]]:
        """The same from the seconds in memory."""
        reach_us = round(2.5 * max(1.0, self._sampler.interval) * _SECOND)
        found: dict[str, tuple[Definition, Rows]] = {}
        for container_id, container, ring, limit in self._sampler.rings():
            times = [point.time_ns // 1000 for point in ring]
            index = bisect_right(times, time_us + _SECOND // 2) - 1
            if index < 0 or times[index] < time_us - reach_us:
                continue
            rows = self._ring_rows(container_id, times[max(0, index - 1)], times[index])
            rows["limit"] = limit
            named = container or Container(HOST, self._host.name)
            found[container_id] = Definition(0, container_id, named.name, named.image, named.engine), rows
        return found


def _concatenated(parts: list[Rows]) -> Rows:
    import numpy as np

    return np.concatenate(parts)


def _array(rows: list[Row]) -> Rows:
    import numpy as np

    return np.array(rows, row_type())


def _before(step: int) -> int:
    """Microseconds before a range in which the row that the first one grew from is looked for."""
    return (2 * step + 1) * _SECOND


def _step(resolution: int, since_us: int, until_us: int, wanted: int) -> int:
    """Seconds between the curves' points: what is wanted, a multiple of the resolution, or a round one."""
    if wanted:
        return -(-wanted // resolution) * resolution
    least = (until_us - since_us) / _SECOND / _CHOSEN_STEPS
    fitting = (step for step in _NICE if step >= least and step % resolution == 0)
    return next(fitting, -(-int(least + 1) // resolution) * resolution)


def _moment(definition: Definition, rows: Rows, host_memory: int) -> Moment:
    from collector.history.growth import growth

    grown = growth(rows)
    last = grown.values[-1]
    span = float(grown.span_us[-1])

    def rate(counter: str, factor: float) -> float:
        return round(float(grown.grown[counter][-1]) * factor / span, 3) if span > 0 else 0.0

    limit = min(int(last["limit"]) or host_memory, host_memory)
    usage = int(last["working_avg"])
    return Moment(
        definition.id,
        definition.name,
        definition.image,
        definition.engine,
        int(last["time_us"]) * 1000,
        rate("cpu_us", 100.0),
        usage,
        limit,
        round(usage / limit * 100, 3) if limit else 0.0,
        int(last["rx_bytes"]),
        int(last["tx_bytes"]),
        int(last["read_bytes"]),
        int(last["write_bytes"]),
        rate("rx_bytes", 1e6),
        rate("tx_bytes", 1e6),
        rate("read_bytes", 1e6),
        rate("write_bytes", 1e6),
        rate("throttled_us", 100.0),
        round(int(last["pids_avg"]) / 1000),
    )
