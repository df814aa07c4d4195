"""Finds out at each step which processes used CPU time, at the price of a system call for each that did not.

A process's CPU clock (clock_getcpuclockid(3)) can be read without opening anything; files are read only of those
whose clock moved, the busiest first, until the step's CPU time is used up. Which of them are kept is ``busiest.py``'s.
"""

from __future__ import annotations

import heapq
import logging
import os
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from collector.processes.busiest import BusyProcess, BusyThread, Key, busiest_threads
from collector.processes.procfs import TICK, Io, Stat, parse_io, parse_stat
from collector.processes.reading import Identity, read_identity

__all__ = ["MOST", "Scan"]

log = logging.getLogger(__name__)

#: Processes remembered at most; the rest is counted.
MOST = 10_000
#: Threads looked at of one process, and remembered of all; which of more is the busiest is not known.
_MOST_THREADS, _ALL_THREADS = 4096, 20_000
#: A process that used less than this since it was last read is not read again.
_WORTH_NS = 1_000_000
#: Share of a CPU from which a process's threads are looked at; and looks after which they are forgotten again.
_HOT, _COLD_LOOKS = 0.02, 6
#: The longest command line kept.
_COMMAND = 160

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@dataclass(slots=True)
class _Known:
    """What is remembered of a process between two steps."""

    clock_ns: int
    stat: Stat
    io: Io | None
    cgroup: bytes
    born: int  #: the look that found it
    seen: int = 0  #: the last look at which it was there
    grew: int = 0  #: the last look at which it was read
    cpu_ns: int = 0  #: used in that look's step
    read: int = 0
    written: int = 0
    identity: Identity | None = None  #: once it was worth it
    threads: dict[Key, float] | None = None  #: CPU seconds of each, while it is hot
    hot: int = 0  #: the last look at which it was
    busiest: tuple[BusyThread, ...] = field(default=())


class Scan:
    """The processes of one host. Not safe for several threads."""

    def __init__(self, proc: Path, spent: Callable[[], float] = time.thread_time) -> None:
        """``spent``: CPU seconds that count against the budget."""
        self.unread = 0  #: processes that moved and were not read for want of CPU time, since the start
        self.unreadable = 0  #: readings of processes that were refused or made no sense, since the start
        self.unread_threads = 0  #: busy processes with too many threads to look at them, since the start
        self.left_out = 0  #: processes beyond ``MOST``, at the last look
        self._proc = proc
        self._clocks = proc == Path("/proc")
        self._spent = spent
        self._known: dict[int, _Known] = {}
        self._cgroups: dict[bytes, bytes] = {}  # hundreds of processes are in the same one
        self._threads = 0  # remembered
        self._looks = 0
        self._looked_boot = 0.0  # when the last look was, since boot
        self._boot_ns = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def __len__(self) -> int:
        return len(self._known)

    def look(self, budget: float) -> float:
        """Read what moved; ``budget`` is CPU seconds. The answer is the step's length in seconds, 0 at the first."""
        spent = self._spent()
        boot = time.clock_gettime(time.CLOCK_BOOTTIME)
        self._boot_ns = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        seconds = boot - self._looked_boot if self._looks else 0.0
        before, self._looked_boot = self._looked_boot, boot
        self._looks += 1
        self._threads = sum(len(known.threads) for known in self._known.values() if known.threads)
        moved = self._moved(seconds)
        for place, (_, pid) in enumerate(moved):
            if self._spent() - spent > budget:
                self.unread += len(moved) - place
                break
            self._try(pid, seconds, before)
        self._known = {pid: known for pid, known in self._known.items() if known.seen == self._looks}
        if len(self._cgroups) > 2 * len(self._known):
            self._cgroups = {known.cgroup: known.cgroup for known in self._known.values()}
        return seconds

    def _try(self, pid: int, seconds: float, before: float) -> None:
        """Read a process and its threads; one that cannot be read is left out, and costs the others nothing."""
        try:
            known = self._read(pid, before if seconds else None)
            if known.stat.threads > 1 and seconds and known.cpu_ns > _HOT * seconds * 1e9:
                self._look_at_threads(pid, known, before)
            elif known.threads is not None and self._looks - known.hot > _COLD_LOOKS:
                known.threads = None
        except (FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            return
        except (OSError, ValueError) as error:  # hidepid, a cgroup whose path is too long to be told
            level = logging.DEBUG if self.unreadable else logging.WARNING
            self.unreadable += 1
            log.log(level, "cannot read process %d: %s", pid, error)

    def by_cgroup(self, owner: Callable[[bytes], str]) -> Mapping[str, Sequence[int]]:
        """Every process's number by whose it is, as ``/proc/PID/cgroup`` tells."""
        found: defaultdict[str, list[int]] = defaultdict(list)
        owners = {cgroup: owner(cgroup) for cgroup in self._cgroups}
        for pid, known in self._known.items():
            found[owners[known.cgroup]].append(pid)
        return found

    def moved(self, pids: Sequence[int]) -> list[int]:
        """Those of these that were read in this step."""
        return [pid for pid in pids if self._known[pid].grew == self._looks]

    def largest(self, pids: Sequence[int], most: int) -> list[int]:
        """Those of these with the most memory."""
        return heapq.nlargest(most, pids, key=lambda pid: self._known[pid].stat.resident)

    def process(self, pid: int) -> BusyProcess:
        """A process as it was in the step, with user and command."""
        known = self._known[pid]
        if known.identity is None:
            known.identity = self._identity(pid, known.stat)
        uid, arguments = known.identity or Identity(0, ())
        stat, moved = known.stat, known.grew == self._looks
        return BusyProcess(
            pid,
            stat.start_ticks,
            self._boot_ns + int(stat.start_ticks * TICK * 1e9),
            stat.parent,
            stat.name,
            " ".join(arguments)[:_COMMAND] or f"[{stat.name}]",
            uid,
            stat.state,
            stat.threads,
            known.cpu_ns // 1000 if moved else 0,
            known.clock_ns // 1000,
            stat.resident,
            known.read if moved else 0,
            known.written if moved else 0,
            known.busiest if moved else (),
        )

    # --- who moved -----------------------------------------------------------------------------------

    def _moved(self, seconds: float) -> list[tuple[int, int]]:
        """How far the clocks went of those worth reading, and their numbers; the furthest first."""
        moved = []
        looks, known_ones = self._looks, self._known
        clock_of = time.clock_gettime_ns if self._clocks else self._clock_in_ticks
        room = MOST
        with os.scandir(self._proc) as entries:
            pids = [int(entry.name) for entry in entries if entry.name.isdigit()]
        self.left_out = max(0, len(pids) - room)
        for pid in pids[:room]:
            try:
                clock_ns = clock_of((~pid << 3) | 2)
            except OSError:  # it has ended
                continue
            known = known_ones.get(pid)
            if known is None:
                # It may have had all its time long ago: those that are known to be busy go first.
                moved.append((min(clock_ns, int(seconds * 1e8)), pid))
                continue
            known.seen = looks
            # One that went back is of another process.
            if known.clock_ns + _WORTH_NS <= clock_ns or clock_ns < known.clock_ns:
                moved.append((abs(clock_ns - known.clock_ns), pid))
        moved.sort(reverse=True)
        return moved

    def _clock_in_ticks(self, clock: int) -> int:
        """For a procfs that is not ours, where numbers are another namespace's."""
        pid = ~(clock >> 3)
        return int(parse_stat((self._proc / str(pid) / "stat").read_bytes()).cpu_seconds * 1e9)

    # --- reading -------------------------------------------------------------------------------------

    def _read(self, pid: int, before: float | None) -> _Known:
        """Read a process that moved. ``before``: when the last look was, since boot; None at the first.

        Raises OSError when it is gone.
        """
        directory = os.open(f"{self._proc}/{pid}", _DIRECTORY)
        try:
            stat = parse_stat(_bytes(directory, "stat"))
            cgroup = _bytes(directory, "cgroup", 65536)  # a path of any length for each hierarchy
            io = _io(directory)
        finally:
            os.close(directory)
        cgroup = self._cgroups.setdefault(cgroup, cgroup)
        clock_ns = self._clock(pid, stat)
        known = self._known.get(pid)
        if known is None or known.stat.start_ticks != stat.start_ticks:
            new = before is not None and stat.start_ticks * TICK >= before - TICK
            known = self._known[pid] = _Known(0 if new else clock_ns, stat, io, cgroup, self._looks)
            if new:
                known.io = Io(0, 0, 0, 0)
        if known.stat.name != stat.name:  # it runs another program
            known.identity = None
        known.cpu_ns = max(0, clock_ns - known.clock_ns)
        known.read = known.written = 0
        if io is not None and known.io is not None:
            known.read = max(0, io.read_bytes - known.io.read_bytes)
            known.written = max(0, io.write_bytes - known.io.write_bytes)
        known.clock_ns, known.stat, known.io, known.cgroup = clock_ns, stat, io, cgroup
        known.seen = known.grew = self._looks
        known.busiest = ()
        return known

    def _clock(self, pid: int, stat: Stat) -> int:
        """To the nanosecond where that clock is the same process's as the file that was read."""
        if self._clocks:
            with suppress(OSError):
                clock_ns = time.clock_gettime_ns((~pid << 3) | 2)
                if abs(clock_ns - stat.cpu_seconds * 1e9) < 1e9:
                    return clock_ns
        return int(stat.cpu_seconds * 1e9)

    def _look_at_threads(self, pid: int, known: _Known, before: float) -> None:
        """Find out which threads of a busy process it was. Raises OSError when it is gone."""
        self._threads -= len(known.threads or ())
        if known.stat.threads > min(_MOST_THREADS, _ALL_THREADS - self._threads):
            self.unread_threads += 1
            known.threads = None
            return
        tasks = os.open(f"{self._proc}/{pid}/task", _DIRECTORY)
        now: dict[Key, float] = {}
        grown: list[BusyThread] = []
        earlier = known.threads
        try:
            with os.scandir(tasks) as entries:
                names = [entry.name for entry in entries]
            for name in names:
                with suppress(FileNotFoundError, ProcessLookupError):
                    stat = parse_stat(_bytes(tasks, f"{name}/stat"))
                    key = int(name), stat.start_ticks
                    now[key] = stat.cpu_seconds
                    new = stat.start_ticks * TICK >= before - TICK
                    since = (earlier or {}).get(key, 0.0 if new else None)
                    if since is not None and stat.cpu_seconds > since:
                        grown.append(BusyThread(*key, stat.name, round((stat.cpu_seconds - since) * 1e6)))
        finally:
            os.close(tasks)
        known.threads, known.hot = now, self._looks
        self._threads += len(now)
        known.busiest = busiest_threads(grown)

    def _identity(self, pid: int, stat: Stat) -> Identity | None:
        with suppress(OSError, ValueError):  # it has ended: it keeps its short name
            directory = os.open(f"{self._proc}/{pid}", _DIRECTORY)
            try:
                if parse_stat(_bytes(directory, "stat")).start_ticks == stat.start_ticks:
                    return read_identity(directory)
            finally:
                os.close(directory)
        return None


def _io(directory: int) -> Io | None:
    try:
        return parse_io(_bytes(directory, "io"))
    except (PermissionError, FileNotFoundError, ValueError):  # ValueError: it is being reaped
        return None


def _bytes(directory: int, name: str, most: int = 4096) -> bytes:
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        return os.read(fd, most)
    finally:
        os.close(fd)
