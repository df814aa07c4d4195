"""Memory from the v1 ``memory`` controller.

Source of the formats: the kernel's Documentation/admin-guide/cgroup-v1/memory.rst. ``total_`` keys of
memory.stat include child cgroups; an unlimited limit is a number just below 2^63.
What v2 calls otherwise carries v2's name here.
"""

from __future__ import annotations

import os
from pathlib import Path

from collector.cgroup.files import FlatKeys, number, open_file, read_all, read_once
from collector.sample import Memory

__all__ = ["MemoryReader", "parse_limit", "parse_oom_kills", "parse_stat"]

_UNLIMITED = 1 << 62

#: ``Memory.stat``'s keys, which are v2's, by what v1 calls them, where the kernel has them.
_FURTHER = {
    b"total_dirty": "file_dirty",
    b"total_writeback": "file_writeback",
    b"total_workingset_refault_file": "workingset_refault_file",
    b"total_workingset_refault_anon": "workingset_refault_anon",
}
_FURTHER_NAMES = tuple(_FURTHER.values())
_STAT = FlatKeys(
    b"total_rss",
    b"total_cache",
    b"total_mapped_file",
    b"total_swap",
    b"total_active_file",
    b"total_inactive_file",
    b"total_pgfault",
    b"total_pgmajfault",
    b"pgfault",
    b"pgmajfault",
    *_FURTHER,
)
_OOM = FlatKeys(b"oom_kill")


def parse_stat(data: bytes) -> list[int | None]:
    """``memory.stat``: rss, cache, mapped_file, swap, active_file, inactive_file, faults, major faults
    (these with child cgroups), then this cgroup's own faults and major faults, then with child cgroups again
    dirty and writeback in bytes, and files' and anonymous pages that were read back soon after reclaim.
    """
    return _STAT.values(data)


def parse_oom_kills(data: bytes) -> int | None:
    """``memory.oom_control``'s count of killed processes; None before Linux 4.13."""
    return _OOM.values(data)[0]


def parse_limit(data: bytes) -> int | None:
    """A limit in bytes; None when unlimited."""
    value = number(data)
    return None if value < 0 or value >= _UNLIMITED else value


class MemoryReader:
    """One container's memory counters."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._usage = open_file(directory, "memory.usage_in_bytes")
        self._stat = open_file(directory, "memory.stat")
        self._max = open_file(directory, "memory.max_usage_in_bytes")
        self._failcnt = open_file(directory, "memory.failcnt")
        self._kernel = open_file(directory, "memory.kmem.usage_in_bytes")
        self._oom = open_file(directory, "memory.oom_control")
        self._limit: int | None = None
        self._swap_limit: int | None = None
        self._reservation: int | None = None
        self._bytes: tuple[bytes, ...] = ()  # of the last reading, and what they say
        self._last: Memory | None = None

    def read_limits(self) -> None:
        """Read the limits again. ``swap_limit_bytes`` is memory plus swap, as v1 counts it."""
        before = self._limit, self._swap_limit, self._reservation
        self._limit = self._one_limit("memory.limit_in_bytes")
        self._swap_limit = self._one_limit("memory.memsw.limit_in_bytes")
        self._reservation = self._one_limit("memory.soft_limit_in_bytes")
        if before != (self._limit, self._swap_limit, self._reservation):
            self._bytes = ()

    def read(self, still: bool = False) -> Memory | None:
        """All counters, or None without the memory controller; the same object as last time where all are the same.

        ``still``: no process of the container ran since the last reading. What only they make grow is not read
        again then, as long as usage and statistics are the same. Raises OSError, ValueError.
        """
        if self._usage < 0 or self._stat < 0:
            return None
        pread = os.pread
        usage, stat = pread(self._usage, 64, 0), read_all(self._stat)
        if still and (usage, stat) == self._bytes[:2]:
            return self._last
        found = (
            usage,
            stat,
            pread(self._max, 64, 0) if self._max >= 0 else b"",
            pread(self._kernel, 64, 0) if self._kernel >= 0 else b"",
            pread(self._failcnt, 64, 0) if self._failcnt >= 0 else b"",
            pread(self._oom, 256, 0) if self._oom >= 0 else b"",
        )
        if found != self._bytes:
            self._last = self._parse(*found)
            self._bytes = found
        return self._last

    def _parse(
        self, used: bytes, stat: bytes, highest: bytes, kernel: bytes, failures: bytes, oom: bytes
    ) -> Memory:
        usage = number(used)
        values = parse_stat(stat)
        rss, cache, mapped, swap, active, inactive, faults, major, own, own_major = values[:10]
        further = zip(_FURTHER_NAMES, values[10:], strict=True)
        return Memory(
            usage,
            max(usage - (inactive or 0), 0),
            rss,
            cache,
            mapped,
            swap,
            number(highest) if self._max >= 0 else None,
            number(kernel) if self._kernel >= 0 else None,
            active,
            inactive,
            self._limit,
            self._swap_limit,
            self._reservation,
            number(failures) if self._failcnt >= 0 else None,
            faults,
            major,
            parse_oom_kills(oom) if self._oom >= 0 else None,
            own,
            own_major,
            stat={key: value for key, value in further if value is not None},
        )

    def descriptors(self) -> tuple[int, ...]:
        """What is kept open."""
        return (self._usage, self._stat, self._max, self._failcnt, self._kernel, self._oom)

    def _one_limit(self, name: str) -> int | None:
        data = read_once(self._directory, name)
        return None if data is None else parse_limit(data)
