"""Keeps on disk who was busiest: a step every ten seconds for six hours, every minute for seven days.

Each step is one look of ``scan.py``; a container is written only where something of it changed, and everything
where a file begins. Questions are answered by ``past.py``.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from collector.cgroup.layout import Layout, parse_cgroup
from collector.clock_trust import ClockTrust
from collector.container import Container
from collector.discovery.registry import RUNNING, Containers
from collector.history.step_log import StepLog
from collector.processes.busiest import (
    BY_MEMORY,
    BusyProcess,
    Group,
    Key,
    Step,
    added,
    choose,
    decode_step,
    encode_step,
    idle,
)
from collector.processes.scan import Scan
from collector.processes.spaces import HOST_NODE
from collector.roots import Roots
from collector.target import cgroup_paths

__all__ = ["MINUTE", "ProcessArchive", "ProcessRecorder"]

log = logging.getLogger(__name__)

MINUTE = 60  #: seconds of a coarse step

#: What a container has to use in a step to be worth writing: share of a CPU, bytes read and written.
_WORTH_CPU, _WORTH_BYTES = 0.002, 65536
#: And how much of its memory one of its largest processes has to take or give.
_WORTH_MEMORY = 1 / 8
#: Share of a CPU that looking may take, and CPU seconds of a look that it is given at least.
_SHARE, _LEAST_SECONDS = 0.003, 0.01
#: CPU seconds that the first look may take: it reads every process.
_FIRST_SECONDS = 0.25


class ProcessArchive:
    """Both resolutions on disk; minutes are made of the finer steps."""

    def __init__(
        self, directory: Path, max_bytes: int, step: float = 10.0, clock: ClockTrust | None = None
    ) -> None:
        """``step``: seconds between fine steps; ``clock`` says whether age may take any. Raises OSError."""
        self.step = step
        half = max_bytes // 2
        self.fine = StepLog(directory, "steps", keep=6 * 3600, window=1800, max_bytes=half, clock=clock)
        self.coarse = StepLog(
            directory, "minutes", keep=7 * 86400, window=4 * 3600, max_bytes=half, clock=clock
        )
        self._lock = threading.Lock()
        self._minute = -1
        self._span_us = 0
        self._merged: dict[str, list[Group]] = {}  # of the minute under way
        self._newest: dict[str, Group] = {}
        self._ended: set[str] = set()  # containers whose last minute names processes that are gone
        self._replay()

    def append(self, time_us: int, step: Step, now_ns: int) -> None:
        """Write a step, and the minute before when this is the next one's first."""
        with self._lock:
            self.fine.append(time_us, encode_step(step), now_ns)
            self._gather(time_us, step, now_ns)

    def _gather(self, time_us: int, step: Step, now_ns: int) -> None:
        minute = (time_us - step.span_us // 2) // (MINUTE * 1_000_000)  # most of it was in that one
        if minute != self._minute:
            self._end_minute(now_ns)
            self._minute = minute
        if step.whole:
            self._newest = {}
        self._span_us += step.span_us
        for group in step.groups:
            self._merged.setdefault(group.id, []).append(group)
            self._newest[group.id] = group

    def _end_minute(self, now_ns: int) -> None:
        if self._minute < 0:
            return
        time_us = (self._minute + 1) * MINUTE * 1_000_000
        whole = self.coarse.begins(time_us)
        groups = [added(groups) for groups in self._merged.values()]
        busy = {group.id for group in groups}
        others = self._newest if whole else self._ended - busy
        groups += [idle(self._newest.get(one, Group(one, "", ()))) for one in others if one not in busy]
        self._ended = {
            group.id
            for group in groups
            if {one.key for one in group.processes} - {one.key for one in _processes(self._newest, group.id)}
        }
        self._newest = {key: group for key, group in self._newest.items() if group.processes}
        self.coarse.append(time_us, encode_step(Step(self._span_us, whole, tuple(groups))), now_ns)
        self._merged, self._span_us = {}, 0

    def _replay(self) -> None:
        """Gather the minute that was under way when the process before ended."""
        last_us, now_ns = self.coarse.last_us, time.time_ns()
        for time_us, data in self.fine.between(max(last_us, self.fine.last_us - 3_600_000_000), 1 << 62):
            try:
                step = decode_step(data)
            except ValueError as error:
                log.warning("a minute is made without a step of it: %s", error)
                continue
            if time_us - step.span_us // 2 >= last_us:
                self._gather(time_us, step, now_ns)

    @property
    def disk_bytes(self) -> int:
        """Bytes on disk."""
        return self.fine.disk_bytes + self.coarse.disk_bytes

    def close(self) -> None:
        """Give the descriptors back. The minute under way is made of its steps at the next opening."""
        self.fine.close()
        self.coarse.close()


def _processes(groups: dict[str, Group], key: str) -> tuple[BusyProcess, ...]:
    group = groups.get(key)
    return group.processes if group else ()


class ProcessRecorder:
    """Looks once a step and writes what was found."""

    def __init__(
        self,
        containers: Containers,
        roots: Roots,
        archive: ProcessArchive,
        *,
        share: float | None = None,
        scan: Scan | None = None,
    ) -> None:
        """``share``: of one CPU that looking may take (0.003, more where steps are short); it looks less often
        where it would take more.

        Raises OSError or ValueError where procfs or the cgroups cannot be read at all.
        """
        self.cpu_seconds = 0.0
        self.failures = 0
        self.looks = 0
        self.skipped = 0  #: steps left out because those before had cost too much
        self.scan = scan or Scan(roots.proc)
        self._containers = containers
        self._layout = Layout.read(roots)
        self._archive = archive
        self._share = share or max(_SHARE, _LEAST_SECONDS / archive.step)
        self._credit = self._share * archive.step
        self._credited = time.monotonic()
        self._paths: tuple[tuple[Container, ...], dict[str, str]] = ((), {})
        self._owners: dict[bytes, str] = {}
        self._written: dict[str, Group] = {}  # each container as it was last written
        self._pids: dict[str, int] = {}  # a checksum of each one's processes
        self._recording = threading.Lock()

    async def run(self) -> None:
        """Record now, for the first step to have something to compare with, and every step until cancelled."""
        step = self._archive.step
        while True:
            try:
                await asyncio.to_thread(self.record)
            except Exception:  # history that has a gap is no reason to end the agent
                self.failures += 1
                log.exception("cannot record who is busiest")
            await asyncio.sleep(step - time.time() % step)

    def record(self, now_ns: int | None = None) -> None:
        """Make one look and write the step; left out while earlier ones have used up what is allowed."""
        with self._recording:
            monotonic = time.monotonic()
            most = 3 * self._share * self._archive.step
            self._credit = min(self._credit + (monotonic - self._credited) * self._share, most)
            self._credited = monotonic
            if self._credit <= 0:
                self.skipped += 1
                return
            started = time.thread_time()
            first = self.looks == 0
            try:
                self._record(
                    _FIRST_SECONDS if first else self._credit, time.time_ns() if now_ns is None else now_ns
                )
            finally:
                used = time.thread_time() - started
                self._credit -= 0 if first else used
                self.cpu_seconds += used
                self.looks += 1

    def _record(self, budget: float, now_ns: int) -> None:
        seconds = self.scan.look(budget)
        names = {container.id: container.name for container in self._running()}
        names[HOST_NODE] = ""
        whole = self._archive.fine.begins(now_ns // 1000)
        groups: list[Group] = []
        present = self.scan.by_cgroup(self._owner)
        for key, pids in present.items():
            group = self._group(key, names.get(key, ""), pids, seconds, whole)
            if group is not None:
                groups.append(group)
        groups += [Group(key, names.get(key, ""), ()) for key in self._written if key not in present]
        self._written = {key: group for key, group in self._written.items() if key in present}
        self._pids = {key: pids for key, pids in self._pids.items() if key in present}
        for group in groups:
            if group.processes:
                self._written[group.id] = group
        self._archive.append(now_ns // 1000, Step(round(seconds * 1e6), whole, tuple(groups)), now_ns)

    def _group(self, key: str, name: str, pids: Sequence[int], seconds: float, whole: bool) -> Group | None:
        """A container's busiest, where there is something new to be written of it."""
        moved = self.scan.moved(pids)
        checksum = hash(tuple(pids))
        same = self._pids.get(key) == checksum
        self._pids[key] = checksum
        if not whole and not moved and same:
            return None
        candidates = dict.fromkeys((*moved, *self.scan.largest(pids, BY_MEMORY)))
        chosen, left, left_us = choose([self.scan.process(pid) for pid in candidates])
        group = Group(key, name, chosen, left + len(pids) - len(candidates), left_us)
        if whole or not self._is_known(group, seconds):
            return group
        return None

    def _is_known(self, group: Group, seconds: float) -> bool:
        """Whether what was written of the container last still tells how it is."""
        before = self._written.get(group.id)
        if before is None:
            return False
        used_us = sum(one.cpu_us for one in group.processes) + group.others_cpu_us
        moved = sum(one.io_bytes for one in group.processes)
        if used_us > _WORTH_CPU * seconds * 1e6 or moved > _WORTH_BYTES:
            return False
        sizes: dict[Key, int] = {one.key: one.resident_bytes for one in group.processes}
        return sizes.keys() == {one.key for one in before.processes} and all(
            abs(sizes[one.key] - one.resident_bytes) <= max(one.resident_bytes * _WORTH_MEMORY, 1 << 20)
            for one in before.processes
        )

    # --- whose a process is --------------------------------------------------------------------------

    def _running(self) -> list[Container]:
        return [container for container in self._containers.all() if container.state in RUNNING]

    def _owner(self, cgroup: bytes) -> str:
        """The id of the container whose cgroup a process is in, ``/`` for the host's own."""
        known = self._containers.all()
        if self._paths[0] is not known:
            self._paths = known, self._cgroups()
            self._owners.clear()
        owner = self._owners.get(cgroup)
        if owner is None:
            owner = self._owners[cgroup] = self._find(cgroup)
        return owner

    def _cgroups(self) -> dict[str, str]:
        paths: dict[str, str] = {}
        for container in self._running():
            try:
                found = cgroup_paths(self._layout, container)
            except OSError:  # it has ended
                continue
            paths.update((path, container.id) for path in found.values() if path != "/")
        return paths

    def _find(self, cgroup: bytes) -> str:
        for path in dict.fromkeys(parse_cgroup(cgroup).values()):
            while path and path != "/":
                owner = self._paths[1].get(path)
                if owner is not None:
                    return owner
                path = path.rpartition("/")[0]
        return HOST_NODE
