"""CPU time and throttling from the v2 ``cpu`` controller; ``cpu.stat``'s first lines exist without it.

Source of the formats: the kernel's Documentation/admin-guide/cgroup-v2.rst, "CPU".
"""

from __future__ import annotations

import math
import os
from functools import lru_cache
from pathlib import Path

from collector.cgroup.files import CHUNK, FlatKeys, number, open_file, read_once
from collector.sample import Cpu

__all__ = ["CpuReader", "parse_max", "parse_stat", "shares_as_asked", "shares_of_weight"]

_STAT = FlatKeys(
    b"usage_usec",
    b"user_usec",
    b"system_usec",
    b"nr_periods",
    b"nr_throttled",
    b"throttled_usec",
    b"nr_bursts",
    b"burst_usec",
)


def parse_stat(data: bytes) -> list[int | None]:
    """``cpu.stat``: usage, user, system (µs); periods, throttled, throttled µs; bursts, burst µs."""
    return _STAT.values(data)


def parse_max(data: bytes) -> tuple[int | None, int]:
    """``cpu.max``: quota (None = ``max``) and period in microseconds."""
    words = data.split()
    if len(words) != 2:
        raise ValueError(f"{data[:40]!r}: expected a quota and a period")
    return None if words[0] == b"max" else int(words[0]), int(words[1])


def shares_of_weight(weight: int) -> int:
    """v1 shares for a v2 weight, by the linear conversion cAdvisor reports."""
    return 2 + (weight - 1) * 262142 // 9999


@lru_cache(maxsize=1024)
def shares_as_asked(shown: int, asked: int) -> int:
    """``asked`` where a container's weight is what runtimes make of it, so that it is told as it was asked for.

    ``shown`` is ``shares_of_weight``'s. Runtimes convert linearly, or since runc 1.3.2 and crun 1.23 on a curve
    that makes the default of 1024 the default weight of 100; the way back is not one number.
    """
    linear = 1 + (asked - 2) * 9999 // 262142
    bits = math.log2(max(asked, 2))
    curve = 10 ** ((bits * bits + 125 * bits) / 612 - 7 / 34)
    weights = (linear, math.ceil(curve), round(curve))
    return asked if shown in map(shares_of_weight, weights) else shown


def _seconds(microseconds: int | None) -> float | None:
    return None if microseconds is None else microseconds / 1e6


class CpuReader:
    """One container's CPU counters."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._stat = open_file(directory, "cpu.stat")
        self._quota_us: int | None = None
        self._period_us: int | None = None
        self._shares: int | None = None
        self._bytes = b""  # of the last reading, and what they say
        self._last: Cpu | None = None

    def read_limits(self) -> None:
        """Read quota, period and weight again."""
        before = self._quota_us, self._period_us, self._shares
        limit = read_once(self._directory, "cpu.max")
        weight = read_once(self._directory, "cpu.weight")
        self._quota_us, self._period_us = (None, None) if limit is None else parse_max(limit)
        self._shares = None if weight is None else shares_of_weight(number(weight))
        if before != (self._quota_us, self._period_us, self._shares):
            self._bytes = b""

    def read(self) -> Cpu | None:
        """All counters, or None where the file is absent; the same object as last time where all are the same.

        Raises OSError, ValueError.
        """
        if self._stat < 0:
            return None
        found = os.pread(self._stat, CHUNK, 0)
        if found != self._bytes or not found:
            self._last = self._parse(found)
            self._bytes = found
        return self._last

    def _parse(self, data: bytes) -> Cpu:
        usage, user, system, periods, throttled, throttled_us, bursts, burst_us = parse_stat(data)
        if usage is None:
            raise ValueError("cpu.stat: expected a line usage_usec")
        if self._quota_us is None:
            periods = throttled = throttled_us = bursts = burst_us = None
        return Cpu(
            usage / 1e6,
            _seconds(user),
            _seconds(system),
            periods,
            throttled,
            _seconds(throttled_us),
            (),
            bursts,
            _seconds(burst_us),
            self._quota_us,
            self._period_us,
            self._shares,
        )

    def descriptors(self) -> tuple[int, ...]:
        """What is kept open."""
        return (self._stat,)
