"""Memory from the v2 ``memory`` controller.

Source of the formats: the kernel's Documentation/admin-guide/cgroup-v2.rst, "Memory". The root cgroup
has no memory.current: its usage is what memory.stat calls anonymous plus file memory.
"""

from __future__ import annotations

import os
from pathlib import Path

from collector.cgroup.files import FlatKeys, number, number_or_max, open_file, read_all, read_once
from collector.sample import Memory

__all__ = ["STAT_KEYS", "MemoryReader", "parse_events", "parse_stat"]

#: Further keys of memory.stat that ``Memory.stat`` carries, where the kernel has them.
STAT_KEYS = (
    "file_dirty",
    "file_writeback",
    "pgscan",
    "pgsteal",
    "workingset_refault_file",
    "workingset_refault_anon",
)
_STAT = FlatKeys(
    b"anon",
    b"file",
    b"file_mapped",
    b"active_file",
    b"inactive_file",
    b"pgfault",
    b"pgmajfault",
    b"kernel",
    *(key.encode() for key in STAT_KEYS),
)
_EVENTS = FlatKeys(b"high", b"max", b"oom_kill", b"low", b"oom", b"oom_group_kill")


def parse_stat(data: bytes) -> list[int | None]:
    """``memory.stat``: anon, file, file_mapped, active_file, inactive_file, faults, major faults, kernel,
    then ``STAT_KEYS``.
    """
    return _STAT.values(data)


def parse_events(data: bytes) -> list[int | None]:
    """``memory.events``: high, max, oom_kill, low, oom, oom_group_kill."""
    return _EVENTS.values(data)


class MemoryReader:
    """One container's memory counters."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._current = open_file(directory, "memory.current")
        self._stat = open_file(directory, "memory.stat")
        self._swap = open_file(directory, "memory.swap.current")
        self._peak = open_file(directory, "memory.peak")
        self._events = open_file(directory, "memory.events")
        self._limit: int | None = None
        self._swap_limit: int | None = None
        self._reservation: int | None = None
        self._high: int | None = None
        self._bytes: tuple[bytes, ...] = ()  # of the last reading, and what they say
        self._last: Memory | None = None

    def read_limits(self) -> None:
        """Read the limits again. ``swap_limit_bytes`` is swap alone, as v2 counts it."""
        before = self._limit, self._swap_limit, self._reservation, self._high
        self._limit = self._one_limit("memory.max")
        self._swap_limit = self._one_limit("memory.swap.max")
        self._reservation = self._one_limit("memory.min")
        self._high = self._one_limit("memory.high")
        if before != (self._limit, self._swap_limit, self._reservation, self._high):
            self._bytes = ()

    def read(self, still: bool = False) -> Memory | None:
        """All counters, or None without the memory controller; the same object as last time where all are the same.

        ``still``: no process of the container ran since the last reading. What only they make grow is not read
        again then, as long as usage and statistics are the same. Raises OSError, ValueError.
        """
        if self._stat < 0:
            return None
        pread = os.pread
        stat, current = read_all(self._stat), pread(self._current, 64, 0) if self._current >= 0 else b""
        if still and (stat, current) == self._bytes[:2]:
            return self._last
        found = (
            stat,
            current,
            pread(self._events, 512, 0) if self._events >= 0 else b"",
            pread(self._swap, 64, 0) if self._swap >= 0 else b"",
            pread(self._peak, 64, 0) if self._peak >= 0 else b"",
        )
        if found != self._bytes:
            self._last = self._parse(*found)
            self._bytes = found
        return self._last

    def _parse(self, stat: bytes, current: bytes, events: bytes, swap: bytes, peak: bytes) -> Memory:
        values = parse_stat(stat)
        anon, file, mapped, active, inactive, faults, major, kernel = values[:8]
        root = self._current < 0
        usage = (anon or 0) + (file or 0) if root else number(current)
        high = maximum = oom_kills = low = oom = group_kills = None
        if self._events >= 0:
            high, maximum, oom_kills, low, oom, group_kills = parse_events(events)
        return Memory(
            usage,
            max(usage - (inactive or 0), 0),
            anon,
            file,
            mapped,
            number(swap) if self._swap >= 0 else None,
            number(peak) if self._peak >= 0 else None,
            kernel,
            active,
            inactive,
            self._limit,
            self._swap_limit,
            self._reservation,
            maximum,
            faults,
            major,
            oom_kills,
            faults,
            major,
            high,
            maximum,
            {key: value for key, value in zip(STAT_KEYS, values[8:], strict=True) if value is not None},
            low,
            oom,
            group_kills,
            self._high,
        )

    def descriptors(self) -> tuple[int, ...]:
        """What is kept open."""
        return (self._current, self._stat, self._swap, self._peak, self._events)

    def _one_limit(self, name: str) -> int | None:
        data = read_once(self._directory, name)
        if data is None:
            return None
        value = number_or_max(data)
        # memory.min is 0 where nothing is reserved
        return value if value or name != "memory.min" else None
