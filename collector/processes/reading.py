"""Reads processes and threads with few system calls and without mistaking one for another.

Each is read through a descriptor of its directory: once the process is gone every read through it fails,
whoever has the number by then. What changed between two readings is worked out in ``tree.py``.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from collector.processes.procfs import (
    Io,
    Stat,
    Statm,
    parse_cmdline,
    parse_io,
    parse_stat,
    parse_statm,
    parse_uid,
)

__all__ = ["Identity", "RawProcess", "RawThread", "read_identity", "read_process", "read_threads"]

_CHUNK = 65536
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Identity(NamedTuple):
    """What seldom changes while a process lives."""

    uid: int  #: effective, in the host's numbering
    arguments: tuple[str, ...]  #: empty for kernel threads and zombies


class RawProcess(NamedTuple):
    """One process at one moment."""

    pid: int
    stat: Stat
    memory: Statm
    io: Io | None  #: None where we may not read it
    cpu_ns: int
    time_ns: int  #: of the monotonic clock
    identity: Identity


class RawThread(NamedTuple):
    """One thread at one moment."""

    tid: int
    stat: Stat
    io: Io | None
    cpu_ns: int
    time_ns: int  #: of the monotonic clock


def read_process(proc: Path, pid: int, known: dict[tuple[int, int], Identity] | None = None) -> RawProcess:
    """Read one process; ``known`` saves two files for one whose pid and start are in it.

    Raises OSError when it is gone (or goes meanwhile), ValueError on what no kernel writes.
    """
    directory = os.open(f"{proc}/{pid}", _DIRECTORY)
    try:
        now = time.monotonic_ns()
        stat = parse_stat(_read(directory, "stat"))
        memory = parse_statm(_read(directory, "statm"))
        identity = known.get((pid, stat.start_ticks)) if known is not None else None
        if identity is None:
            identity = read_identity(directory)
            if known is not None:
                known[pid, stat.start_ticks] = identity
        return RawProcess(pid, stat, memory, _io(directory), _cpu_ns(proc, pid, stat), now, identity)
    finally:
        os.close(directory)


def read_identity(directory: int) -> Identity:
    """User and arguments of the process behind a descriptor of its directory. Raises OSError, ValueError."""
    return Identity(parse_uid(_read(directory, "status")), parse_cmdline(_read(directory, "cmdline")))


def read_threads(
    proc: Path, pid: int, start_ticks: int | None = None, limit: int = 1 << 30
) -> tuple[list[RawThread], int]:
    """At most ``limit`` threads of a process, those that end meanwhile left out, and how many there are more.

    With ``start_ticks`` it must be the process that started then. Raises ProcessLookupError when it is
    another or gone, OSError on other failures.
    """
    directory = os.open(f"{proc}/{pid}", _DIRECTORY)
    try:
        if start_ticks is not None and parse_stat(_read(directory, "stat")).start_ticks != start_ticks:
            raise ProcessLookupError(f"process {pid} is another one by now")
        tasks = os.open("task", _DIRECTORY, dir_fd=directory)
        try:
            with os.scandir(tasks) as entries:
                numbers = [int(entry.name) for entry in entries]
            found = [_thread(tasks, number) for number in numbers[:limit]]
        finally:
            os.close(tasks)
    finally:
        os.close(directory)
    return [thread for thread in found if thread is not None], len(numbers[limit:])


def _thread(tasks: int, tid: int) -> RawThread | None:
    with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
        directory = os.open(str(tid), _DIRECTORY, dir_fd=tasks)
        try:
            now = time.monotonic_ns()
            stat = parse_stat(_read(directory, "stat"))
            return RawThread(tid, stat, _io(directory), _thread_cpu_ns(directory, stat), now)
        finally:
            os.close(directory)
    return None


def _cpu_ns(proc: Path, pid: int, stat: Stat) -> int:
    """CPU time to the nanosecond from the process's clock (clock_getcpuclockid(3)), else from the ticks."""
    if proc == Path("/proc"):
        with suppress(OSError):  # hidden in another pid namespace, or a zombie
            clock = time.clock_gettime_ns((~pid << 3) | 2)
            # A clock of another process by now, or one that does not count those that ended, is far off.
            if abs(clock - stat.cpu_seconds * 1e9) < 1e9:
                return clock
    return int(stat.cpu_seconds * 1e9)


def _thread_cpu_ns(directory: int, stat: Stat) -> int:
    with suppress(FileNotFoundError, ValueError, IndexError):  # a kernel without CONFIG_SCHED_INFO
        return int(_read(directory, "schedstat").split()[0])
    return int(stat.cpu_seconds * 1e9)


def _io(directory: int) -> Io | None:
    try:
        return parse_io(_read(directory, "io"))
    except (PermissionError, FileNotFoundError):
        return None


def _read(directory: int, name: str) -> bytes:
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        return os.read(fd, _CHUNK)  # a longer command line is cut there
    finally:
        os.close(fd)
