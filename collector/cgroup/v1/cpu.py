"""CPU time and throttling from the v1 ``cpuacct`` and ``cpu`` controllers.

Source of the formats: the kernel's Documentation/admin-guide/cgroup-v1/cpuacct.rst and
Documentation/scheduler/sched-bwc.rst.
"""

from __future__ import annotations

import os
from pathlib import Path

from collector.cgroup.files import CHUNK, FlatKeys, number, open_file, read_once
from collector.sample import Cpu

__all__ = ["CpuReader", "parse_percpu", "parse_throttling", "parse_user_system"]

_HERTZ = os.sysconf("SC_CLK_TCK")

_THROTTLING = FlatKeys(b"nr_periods", b"nr_throttled", b"throttled_time", b"nr_bursts", b"burst_time")
_USER_SYSTEM = FlatKeys(b"user", b"system")


def parse_user_system(data: bytes) -> tuple[float | None, float | None]:
    """``cpuacct.stat`` (ticks) as seconds of user and system time."""
    user, system = _USER_SYSTEM.values(data)
    return None if user is None else user / _HERTZ, None if system is None else system / _HERTZ


def parse_percpu(data: bytes) -> tuple[float, ...]:
    """``cpuacct.usage_percpu`` (nanoseconds a CPU) as seconds."""
    return tuple(int(value) / 1e9 for value in data.split())


def parse_throttling(
    data: bytes,
) -> tuple[int | None, int | None, float | None, int | None, float | None]:
    """``cpu.stat``: periods, throttled periods, throttled seconds, burst periods, burst seconds."""
    periods, throttled, throttled_ns, bursts, burst_ns = _THROTTLING.values(data)
    return (
        periods,
        throttled,
        None if throttled_ns is None else throttled_ns / 1e9,
        bursts,
        None if burst_ns is None else burst_ns / 1e9,
    )


class CpuReader:
    """One container's CPU counters; ``cpu.stat`` is read only where a quota is set."""

    def __init__(self, cpuacct: Path | None, cpu: Path | None, per_cpu: bool = False) -> None:
        self._cpu = cpu
        self._usage = open_file(cpuacct, "cpuacct.usage")
        self._stat = open_file(cpuacct, "cpuacct.stat")
        self._per_cpu = open_file(cpuacct, "cpuacct.usage_percpu") if per_cpu else -1
        self._throttling = open_file(cpu, "cpu.stat")
        self._quota_us: int | None = None
        self._period_us: int | None = None
        self._shares: int | None = None
        self._bytes = b"", b""  # of usage and throttling at the last reading, and what they say
        self._last: Cpu | None = None
        self._settled = False  # the files that follow usage were read after it had come to rest

    def read_limits(self) -> None:
        """Read quota, period and shares again."""
        before = self._quota_us, self._period_us, self._shares
        quota = read_once(self._cpu, "cpu.cfs_quota_us")
        period = read_once(self._cpu, "cpu.cfs_period_us")
        shares = read_once(self._cpu, "cpu.shares")
        quota_us = -1 if quota is None else number(quota)
        self._quota_us = quota_us if quota_us > 0 else None
        self._period_us = None if period is None else number(period)
        self._shares = None if shares is None else number(shares)
        if before != (self._quota_us, self._period_us, self._shares):
            self._settled = False

    def read(self) -> Cpu | None:
        """All counters, or None without the cpuacct controller; the same object as last time where all are the same.

        What shows how the usage is made up is not read again while nothing was used in the last two steps.
        Raises OSError, ValueError.
        """
        if self._usage < 0:
            return None
        throttling = self._quota_us is not None and self._throttling >= 0
        found = (
            os.pread(self._usage, 64, 0),
            os.pread(self._throttling, CHUNK, 0) if throttling else b"",
        )
        if found == self._bytes and self._settled:
            return self._last
        self._last = self._parse(*found)
        self._settled = found == self._bytes
        self._bytes = found
        return self._last

    def _parse(self, used: bytes, throttling: bytes) -> Cpu:
        usage = number(used) / 1e9
        user, system = parse_user_system(os.pread(self._stat, 256, 0)) if self._stat >= 0 else (None, None)
        periods = throttled = bursts = throttled_seconds = burst_seconds = None
        if throttling:
            periods, throttled, throttled_seconds, bursts, burst_seconds = parse_throttling(throttling)
        return Cpu(
            usage,
            user,
            system,
            periods,
            throttled,
            throttled_seconds,
            parse_percpu(os.pread(self._per_cpu, 1 << 16, 0)) if self._per_cpu >= 0 else (),
            bursts,
            burst_seconds,
            self._quota_us,
            self._period_us,
            self._shares,
        )

    def descriptors(self) -> tuple[int, ...]:
        """What is kept open."""
        return (self._usage, self._stat, self._per_cpu, self._throttling)
