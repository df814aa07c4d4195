"""Groups ``process`` and ``sched``: descriptors, sockets, the time threads ran and waited.

From procfs, a process or a thread at a time; names and label values are cAdvisor's. Formats: proc(5).
What the processes are is told by ``collector/processes/``.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from contextlib import suppress

from collector.cgroup.files import read_whole
from collector.lanes.board import Reading
from collector.lanes.members import processes, threads
from collector.roots import Roots
from collector.target import Target

__all__ = ["ProcessGroup", "SchedGroup", "parse_limit", "parse_schedstat"]

_ENDED = frozenset({errno.ENOENT, errno.ESRCH})


def parse_limit(data: bytes, name: bytes) -> int | None:
    """The soft limit of a line of ``/proc/PID/limits``, -1 where there is none; None without the line."""
    for line in data.split(b"\n"):
        if line.startswith(name):
            words = line[len(name) :].split()
            if not words:
                break
            return -1 if words[0] == b"unlimited" else int(words[0])
    return None


def parse_schedstat(data: bytes) -> tuple[int, int, int]:
    """``/proc/TID/schedstat``: nanoseconds run, nanoseconds waited in a run queue, times run."""
    words = data.split()
    if len(words) != 3:
        raise ValueError(f"schedstat {data[:60]!r}: expected three numbers")
    return int(words[0]), int(words[1]), int(words[2])


class ProcessGroup:
    """Processes, open descriptors and sockets among them, and the limit of descriptors."""

    name = "process"

    def __init__(self, roots: Roots, seconds: float = 30.0) -> None:
        self.seconds = seconds
        self._proc = str(roots.proc)

    def read(self, target: Target) -> Sequence[Reading]:
        """Raise OSError, ValueError."""
        pids = processes(target)
        descriptors = sockets = 0
        for pid in pids:
            try:
                found = os.listdir(f"{self._proc}/{pid}/fd")  # noqa: PTH208  # a path object each is costly
                descriptors += len(found)
                sockets += self._sockets(f"{self._proc}/{pid}/fd/", found)
            except OSError as error:
                if error.errno not in _ENDED:
                    raise
        readings = [
            Reading("container_processes", (), len(pids)),
            Reading("container_file_descriptors", (), descriptors),
            Reading("container_sockets", (), sockets),
        ]
        if (limit := self._limit(target.pid)) is not None:
            readings.append(Reading("container_ulimits_soft", (("ulimit", "max_open_files"),), limit))
        return readings

    def _sockets(self, directory: str, descriptors: list[str]) -> int:
        count = 0
        readlink = os.readlink
        for descriptor in descriptors:
            with suppress(FileNotFoundError):  # closed since
                count += readlink(directory + descriptor).startswith("socket:")
        return count

    def _limit(self, pid: int) -> int | None:
        if pid <= 0:
            return None
        try:
            return parse_limit(read_whole(f"{self._proc}/{pid}", "limits"), b"Max open files")
        except OSError as error:
            if error.errno in _ENDED:
                return None
            raise


class SchedGroup:
    """Time the threads ran and waited for a CPU, summed: what ended threads had stays in the sum."""

    name = "sched"

    def __init__(self, roots: Roots, seconds: float = 30.0) -> None:
        self.seconds = seconds
        self._proc = roots.proc
        self._threads: dict[str, dict[int, tuple[int, int, int]]] = {}
        self._ended: dict[str, tuple[int, int, int]] = {}

    def read(self, target: Target) -> Sequence[Reading]:
        """Raise OSError, ValueError; nothing where the kernel keeps no such statistics."""
        if not (self._proc / "self/schedstat").exists():
            return ()
        key = target.container.id
        now = {}
        for tid in threads(target):
            try:
                now[tid] = parse_schedstat(read_whole(self._proc / str(tid), "schedstat"))
            except OSError as error:
                if error.errno not in _ENDED:
                    raise
        # A number whose thread ended may be another's by the time it is read: these sums are kept for ever.
        still = set(threads(target))
        now = {tid: times for tid, times in now.items() if tid in still}
        ended = self._ended.get(key, (0, 0, 0))
        for tid, last in self._threads.get(key, {}).items():
            if tid not in now or now[tid] < last:  # ended, or another one has its number
                ended = _sum(ended, last)
        self._threads[key], self._ended[key] = now, ended
        run, wait, periods = ended
        for each in now.values():
            run, wait, periods = _sum((run, wait, periods), each)
        return [
            Reading("container_cpu_schedstat_run_seconds_total", (), run / 1e9),
            Reading("container_cpu_schedstat_runqueue_seconds_total", (), wait / 1e9),
            Reading("container_cpu_schedstat_run_periods_total", (), periods),
        ]

    def forget(self, container_id: str) -> None:
        """The container has ended."""
        self._threads.pop(container_id, None)
        self._ended.pop(container_id, None)


def _sum(left: tuple[int, int, int], right: tuple[int, int, int]) -> tuple[int, int, int]:
    return left[0] + right[0], left[1] + right[1], left[2] + right[2]
