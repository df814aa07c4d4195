"""The formats of ``/proc/PID`` and ``/proc/PID/task/TID``: bytes in, numbers out.

Source of the formats: proc_pid_stat(5) and its neighbours. Nothing is opened here, see ``reading.py``.
"""

from __future__ import annotations

import os
from typing import NamedTuple

__all__ = [
    "PAGE",
    "TICK",
    "Io",
    "Stat",
    "Statm",
    "parse_cmdline",
    "parse_io",
    "parse_stat",
    "parse_statm",
    "parse_uid",
]

PAGE = os.sysconf("SC_PAGE_SIZE")
TICK = 1.0 / os.sysconf("SC_CLK_TCK")  #: seconds

#: ``PF_KTHREAD`` of the kernel's include/linux/sched.h.
_KERNEL_THREAD = 0x00200000


class Stat(NamedTuple):
    """What ``stat`` says of a process or a thread."""

    name: str  #: at most 15 bytes, as the process chose it: it may hold anything
    state: str  #: one letter: R running, S sleeping, D uninterruptible, T stopped, t traced, Z zombie, I idle
    parent: int
    flags: int
    cpu_seconds: float  #: user and system, in steps of a tick
    threads: int
    start_ticks: int  #: after boot; with the pid it names a process for ever
    resident: int = 0  #: bytes; what ``statm`` says is more exact

    @property
    def kernel_thread(self) -> bool:
        """Whether it has no program of its own."""
        return bool(self.flags & _KERNEL_THREAD)


class Statm(NamedTuple):
    """Memory in bytes."""

    virtual: int
    resident: int
    shared: int


class Io(NamedTuple):
    """Bytes since the start that went to or came from storage, and all that read and write moved."""

    read_bytes: int
    write_bytes: int
    read_calls_bytes: int
    write_calls_bytes: int


def parse_stat(data: bytes) -> Stat:
    """``stat``, whose second field may contain spaces, brackets and newlines. Raises ValueError."""
    head, bracket, tail = data.rpartition(b")")
    fields = tail.split()
    if not bracket or len(fields) < 20 or b"(" not in head:
        raise ValueError(f"stat {data[:60]!r}: expected 'pid (name) state' and at least 19 numbers")
    return Stat(
        head.partition(b"(")[2].decode(errors="replace"),
        fields[0].decode(),
        int(fields[1]),
        int(fields[6]),
        (int(fields[11]) + int(fields[12])) * TICK,
        int(fields[17]),
        int(fields[19]),
        int(fields[21]) * PAGE if len(fields) > 21 else 0,
    )


def parse_statm(data: bytes) -> Statm:
    """``statm``, in pages there, in bytes here. Raises ValueError."""
    fields = data.split()
    if len(fields) < 3:
        raise ValueError(f"statm {data[:60]!r}: expected seven numbers")
    return Statm(int(fields[0]) * PAGE, int(fields[1]) * PAGE, int(fields[2]) * PAGE)


def parse_io(data: bytes) -> Io:
    """``io``. Raises ValueError."""
    values = dict(line.split(b": ", 1) for line in data.splitlines() if b": " in line)
    try:
        return Io(*(int(values[key]) for key in (b"read_bytes", b"write_bytes", b"rchar", b"wchar")))
    except KeyError as error:
        raise ValueError(f"io {data[:60]!r}: expected a line {error.args[0]!r}") from None


def parse_cmdline(data: bytes) -> tuple[str, ...]:
    """``cmdline``: the arguments; a process that wrote over them (nginx, sshd) has one long one."""
    return tuple(part.decode(errors="replace") for part in data.rstrip(b"\0 ").split(b"\0")) if data else ()


def parse_uid(data: bytes) -> int:
    """The effective user of ``status``, in the host's numbering. Raises ValueError."""
    _, found, rest = data.partition(b"\nUid:")
    fields = rest.partition(b"\n")[0].split()
    if not found or len(fields) != 4:
        raise ValueError("status: expected a line 'Uid:' with four numbers")
    return int(fields[1])
