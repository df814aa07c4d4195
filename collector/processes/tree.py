"""Container to process to thread, with CPU and I/O over the time since somebody last looked.

Nothing is read between requests: a request keeps its totals, the next one shows what was used since. For
open files see ``files.py``, for connections ``connections.py``.
"""

from __future__ import annotations

import logging
import pwd
import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, NamedTuple, TypeVar

from collector.cgroup.layout import Layout
from collector.container import Container
from collector.discovery.registry import Containers
from collector.processes.members import Members
from collector.processes.procfs import TICK, Io
from collector.processes.reading import Identity, RawProcess, RawThread, read_process, read_threads
from collector.roots import Roots

__all__ = ["MAX_ROWS", "Listing", "Process", "Processes", "Thread", "user_name"]

log = logging.getLogger(__name__)

Row = TypeVar("Row")
Raw = TypeVar("Raw", RawProcess, RawThread)

#: Processes or threads read at one look; the rest is counted. A container may have as many as it likes.
MAX_ROWS = 20_000

#: Two looks closer than this are one to the differences: percent of a few milliseconds say nothing.
_CLOSEST_NS = 400_000_000
#: Totals older than this are of another time: the next look starts afresh.
_OLDEST_NS = 60_000_000_000
#: Users and arguments are read again this often: ``exec`` and ``setuid`` change them.
_IDENTITY_NS = 10_000_000_000


@dataclass(frozen=True, slots=True)
class Usage:
    """What was used since the last look; None at the first."""

    cpu_percent: float | None  #: 100 is one whole CPU
    read_bytes_per_second: float | None  #: from storage
    write_bytes_per_second: float | None  #: to storage


@dataclass(frozen=True, slots=True)
class Process:
    """One process."""

    pid: int
    parent: int
    name: str
    command: str  #: arguments joined with spaces; ``[name]`` for kernel threads and zombies
    state: str
    uid: int
    user: str  #: the host's name for it, as in ``docker top``
    threads: int
    started_ns: int  #: since the epoch
    start_ticks: int  #: since boot: with the pid it names the process
    cpu_seconds: float
    cpu_percent: float | None
    resident_bytes: int
    virtual_bytes: int
    shared_bytes: int
    read_bytes: int | None
    write_bytes: int | None
    read_bytes_per_second: float | None
    write_bytes_per_second: float | None
    container: str  #: its name; "" for the host's own
    container_id: str


@dataclass(frozen=True, slots=True)
class Thread:
    """One thread of a process."""

    tid: int
    name: str
    state: str
    started_ns: int
    cpu_seconds: float
    cpu_percent: float | None
    read_bytes: int | None
    write_bytes: int | None
    read_bytes_per_second: float | None
    write_bytes_per_second: float | None


@dataclass(frozen=True, slots=True)
class Listing(Generic[Row]):
    """Rows and the time their differences are over."""

    rows: tuple[Row, ...]
    interval_seconds: float | None  #: None: the first look, nothing to compare with
    vanished: int  #: processes that ended while they were read
    left_out: int  #: beyond ``MAX_ROWS``
    read_cpu_seconds: float  #: what reading them cost us


class _Totals(NamedTuple):
    """What is kept of a process or thread between two looks."""

    time_ns: int
    cpu_ns: int
    io: Io | None


#: By number and start time: a reused number is another key, so its totals never mix.
_Snapshot = dict[tuple[int, int], _Totals]


class _Looks:
    """The last looks at one thing, newest last: at most two are kept."""

    def __init__(self) -> None:
        self._kept: list[tuple[int, _Snapshot]] = []

    def take(self, now: int, snapshot: _Snapshot) -> tuple[int, _Snapshot] | None:
        """Remember this look; the answer is the one to compare it with."""
        self._kept = [(then, kept) for then, kept in self._kept if now - then < _OLDEST_NS]
        far = [look for look in self._kept if now - look[0] >= _CLOSEST_NS]
        compare = far[-1] if far else self._kept[0] if self._kept else None
        if not self._kept or now - self._kept[-1][0] >= _CLOSEST_NS:
            self._kept = [*self._kept[-1:], (now, snapshot)]
        return compare

    @property
    def newest(self) -> int:
        """When the newest was, 0 for never."""
        return self._kept[-1][0] if self._kept else 0


class Processes:
    """Reads on demand. Safe to use from any thread; callers keep it off the event loop."""

    def __init__(self, containers: Containers, roots: Roots | None = None) -> None:
        """Raises OSError or ValueError where procfs or the cgroups cannot be read at all."""
        roots = roots or Roots()
        self.members = Members(containers, Layout.read(roots), roots.proc)
        self._proc = roots.proc
        self._lock = threading.Lock()
        self._looks: dict[Hashable, _Looks] = {}
        self._identities: dict[tuple[int, int], Identity] = {}
        self._identities_ns = 0
        self._boot_ns = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def of_container(self, container: Container) -> Listing[Process]:
        """The container's processes. Raises NotRunning for one that has none."""
        pids = self.members.pids(container)
        return self._processes(
            container.id,
            pids,
            dict.fromkeys(pids, container),
            lambda raw: self.members.still(container, raw),
        )

    def of_host(self) -> Listing[Process]:
        """Every process of the host, with its container's name."""
        return self._processes("/", self.members.host_pids(), self.members.owners(), set)

    def threads(self, pid: int, start_ticks: int | None = None) -> Listing[Thread]:
        """The threads of a process; ``start_ticks`` refuses another one with its number.

        Raises ProcessLookupError or FileNotFoundError when it is gone.
        """
        with self._lock:
            spent = time.thread_time()
            self._forget()
            threads, left_out = read_threads(self._proc, pid, start_ticks, MAX_ROWS)
            rows, interval = self._differences(
                ("threads", pid), threads, lambda raw: (raw.tid, raw.stat.start_ticks), self._thread
            )
            return Listing(rows, interval, 0, left_out, time.thread_time() - spent)

    def _processes(
        self,
        key: str,
        pids: Sequence[int],
        owners: Mapping[int, Container],
        still: Callable[[list[int]], set[int]],
    ) -> Listing[Process]:
        with self._lock:
            spent = time.thread_time()
            self._forget()
            raws: list[RawProcess] = []
            vanished = 0
            for pid in pids[:MAX_ROWS]:
                try:
                    raws.append(read_process(self._proc, pid, self._identities))
                except (FileNotFoundError, ProcessLookupError):
                    vanished += 1
                except (OSError, ValueError) as error:
                    vanished += 1
                    log.warning("cannot read process %d: %s", pid, error)
            members = still([raw.pid for raw in raws])
            vanished += len(raws) - len(members)
            raws = [raw for raw in raws if raw.pid in members]
            rows, interval = self._differences(
                key,
                raws,
                lambda raw: (raw.pid, raw.stat.start_ticks),
                lambda raw, usage: self._process(raw, usage, owners.get(raw.pid)),
            )
            return Listing(rows, interval, vanished, len(pids[MAX_ROWS:]), time.thread_time() - spent)

    def _differences(
        self,
        key: Hashable,
        raws: list[Raw],
        identify: Callable[[Raw], tuple[int, int]],
        make: Callable[[Raw, Usage], Row],
    ) -> tuple[tuple[Row, ...], float | None]:
        """Rows with what each used since the look to compare with, and how long ago that was."""
        now = time.monotonic_ns()
        snapshot = {identify(raw): _Totals(raw.time_ns, raw.cpu_ns, raw.io) for raw in raws}
        before = self._looks.setdefault(key, _Looks()).take(now, snapshot)
        kept = before[1] if before else {}
        rows = tuple(
            make(raw, _usage(kept.get(identify(raw)), snapshot[identify(raw)], before is not None, raw))
            for raw in raws
        )
        return rows, (now - before[0]) / 1e9 if before else None

    def _process(self, raw: RawProcess, usage: Usage, owner: Container | None) -> Process:
        stat, identity = raw.stat, raw.identity
        return Process(
            raw.pid,
            stat.parent,
            stat.name,
            " ".join(identity.arguments) or f"[{stat.name}]",
            stat.state,
            identity.uid,
            user_name(identity.uid),
            stat.threads,
            self._started_ns(stat.start_ticks),
            stat.start_ticks,
            raw.cpu_ns / 1e9,
            usage.cpu_percent,
            raw.memory.resident,
            raw.memory.virtual,
            raw.memory.shared,
            raw.io.read_bytes if raw.io else None,
            raw.io.write_bytes if raw.io else None,
            usage.read_bytes_per_second,
            usage.write_bytes_per_second,
            owner.name if owner else "",
            owner.id if owner else "",
        )

    def _thread(self, raw: RawThread, usage: Usage) -> Thread:
        return Thread(
            raw.tid,
            raw.stat.name,
            raw.stat.state,
            self._started_ns(raw.stat.start_ticks),
            raw.cpu_ns / 1e9,
            usage.cpu_percent,
            raw.io.read_bytes if raw.io else None,
            raw.io.write_bytes if raw.io else None,
            usage.read_bytes_per_second,
            usage.write_bytes_per_second,
        )

    def _started_ns(self, ticks: int) -> int:
        return self._boot_ns + int(ticks * TICK * 1e9)

    def _forget(self) -> None:
        """Drop what nobody looked at for a minute, and identities from time to time."""
        now = time.monotonic_ns()
        for key in [key for key, looks in self._looks.items() if now - looks.newest > _OLDEST_NS]:
            del self._looks[key]
        if now - self._identities_ns > _IDENTITY_NS:
            self._identities.clear()
            self._identities_ns = now


def _usage(before: _Totals | None, now: _Totals, compared: bool, raw: RawProcess | RawThread) -> Usage:
    """Rates since ``before``; one that was not there then has used all it has used since it started."""
    if before is None:
        if not compared:
            return Usage(None, None, None)
        age = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - int(raw.stat.start_ticks * TICK * 1e9)
        before = _Totals(now.time_ns - max(age, 10_000_000), 0, Io(0, 0, 0, 0))
    seconds = (now.time_ns - before.time_ns) / 1e9
    if seconds <= 0:
        return Usage(None, None, None)
    read = written = None
    if now.io is not None and before.io is not None:
        read = max(0, now.io.read_bytes - before.io.read_bytes) / seconds
        written = max(0, now.io.write_bytes - before.io.write_bytes) / seconds
    return Usage(max(0, now.cpu_ns - before.cpu_ns) / 1e7 / seconds, read, written)


@lru_cache(maxsize=1024)
def user_name(uid: int) -> str:
    """The host's name for a user, else the number."""
    with suppress(KeyError):
        return pwd.getpwuid(uid).pw_name
    return str(uid)
