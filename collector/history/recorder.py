"""Takes what the sampler's rings have and writes a row a step for every container and the host.

It wakes once a step, in a thread of its own, and never makes the sampler wait: the rings hold ten minutes.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Sequence

from collector.container import Container
from collector.history.archive import Archive
from collector.history.ring import History, Point
from collector.history.rows import Definition, Row
from collector.history.steps import Follower, make_rows
from collector.sampler import HOST, Sampler

__all__ = ["Recorder"]

log = logging.getLogger(__name__)

#: Seconds after a step's end before it is written: a pass that began within it may still go on.
_GRACE = 0.25
#: Steps after which a container that the agent before recorded is not waited for any more.
_WAITED_FOR = 60


class Recorder:
    """Feeds one archive from one sampler."""

    def __init__(self, sampler: Sampler, archive: Archive, host: str) -> None:
        self.cpu_seconds = 0.0  #: CPU time spent on recording
        self.failures = 0  #: times that recording failed as a whole
        self._sampler = sampler
        self._archive = archive
        self._host = Container(id=HOST, name=host, state="running")
        self._step_ns = archive.fine.resolution.step * 1_000_000_000
        self._followed: dict[str, tuple[Follower, Definition]] = {}
        self._positions: dict[str, int] = {}
        self._left = archive.last()
        self._records = 0
        self._recording = threading.Lock()

    async def run(self) -> None:
        """Record every step until cancelled."""
        while True:
            await asyncio.sleep((self._step_ns - time.time_ns() % self._step_ns) / 1e9 + _GRACE)
            try:
                await asyncio.to_thread(self.record)
            except Exception:  # the rings keep what was not recorded for ten minutes
                self.failures += 1
                log.exception("cannot record a step of history")

    def record(self, now_ns: int | None = None, *, unfinished: bool = False) -> None:
        """Write the steps that are over since the last call; with ``unfinished`` the one going on, too."""
        with self._recording:  # the agent's end may come while a step is being written
            self._record(time.time_ns() if now_ns is None else now_ns, unfinished)

    def _record(self, now_ns: int, unfinished: bool) -> None:
        started = time.thread_time()
        current = None if unfinished else now_ns // self._step_ns
        steps: defaultdict[int, list[Row]] = defaultdict(list)
        rings = self._sampler.rings()
        for container_id, container, ring, limit in rings:
            for step, points in self._steps(container_id, ring, current):
                follower = self._follower(container_id, container or self._host)
                steps[step] += self._rows(follower, container, points, limit)
        for step in steps:  # in the order of the samples, whatever the clock did
            self._archive.append(step * self._step_ns // 1000, make_rows(steps[step]), now_ns)
        self._drop({ring[0] for ring in rings})
        self._records += 1
        if self._records == _WAITED_FOR:
            self._left.clear()
        self.cpu_seconds += time.thread_time() - started

    def _steps(self, container_id: str, ring: History, current: int | None) -> list[tuple[int, list[Point]]]:
        """A ring's new points by step, without the step ``current``."""
        position = self._positions.get(container_id, 0)
        if ring.appended < position:  # a new ring: the container was forgotten and came again
            position = 0
        position, points = ring.numbered_after(position)
        found: list[tuple[int, list[Point]]] = []
        for point in points:
            step = point.time_ns // self._step_ns
            if step == current:
                break
            if not found or found[-1][0] != step:
                found.append((step, []))
            found[-1][1].append(point)
            position += 1
        self._positions[container_id] = position
        return found

    def _rows(
        self, follower: Follower, container: Container | None, points: Sequence[Point], limit: int
    ) -> list[Row]:
        if follower.known:
            return follower.rows(points, limit)
        started_us = container.started_ns // 1000 if container else 0
        if not 0 < points[0].time_ns // 1000 - started_us <= self._step_ns // 1000:
            started_us = 0  # it ran before we saw it
        return follower.first_rows(points, limit, started_us)

    def _follower(self, container_id: str, container: Container) -> Follower:
        followed = self._followed.get(container_id)
        if followed is None:
            last = self._left.pop(container_id, None)
            follower = Follower(last.number if last else self._archive.number())
            if last is not None:
                follower.resume(last.totals, last.time_us, container.started_ns // 1000)
        else:
            follower = followed[0]
            if followed[1].name == container.name:
                return follower
        definition = Definition(
            follower.number, container_id, container.name, container.image, container.engine
        )
        self._archive.define(definition)
        self._followed[container_id] = follower, definition
        return follower

    def _drop(self, present: set[str]) -> None:
        """Forget containers the sampler has forgotten."""
        for container_id in [one for one in self._positions if one not in present]:
            del self._positions[container_id]
            followed = self._followed.pop(container_id, None)
            if followed is not None:
                self._archive.forget(followed[0].number)
