"""The host's CPU time and CPUs, from ``/proc/stat`` and ``/proc/cpuinfo``."""

from __future__ import annotations

import os
from dataclasses import dataclass

__all__ = ["HostCpu", "Topology", "parse_boot", "parse_cpuinfo", "parse_stat"]

_HERTZ = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class HostCpu:
    """CPU time since boot, summed over all CPUs."""

    total_seconds: float  #: user nice system idle iowait irq softirq: what ``docker stats`` divides by
    user_seconds: float  #: user and nice
    system_seconds: float  #: system, irq and softirq
    online: int  #: CPUs that are online


@dataclass(frozen=True, slots=True)
class Topology:
    """Sockets and cores."""

    cores: int  #: logical CPUs
    physical_cores: int
    sockets: int


def parse_stat(data: bytes) -> HostCpu:
    """``/proc/stat`` (proc_stat(5)). Raises ValueError when it does not begin with the ``cpu`` line."""
    lines = data.split(b"\nintr", 1)[0].splitlines()
    words = lines[0].split() if lines else []
    if len(words) < 8 or words[0] != b"cpu":
        raise ValueError(f"{data[:40]!r}: expected a line of cpu and seven numbers")
    user, nice, system, idle, iowait, irq, softirq = map(int, words[1:8])
    return HostCpu(
        (user + nice + system + idle + iowait + irq + softirq) / _HERTZ,
        (user + nice) / _HERTZ,
        (system + irq + softirq) / _HERTZ,
        sum(line.startswith(b"cpu") for line in lines[1:]),
    )


def parse_boot(data: bytes) -> int:
    """When the host was booted, in seconds since the epoch, from ``/proc/stat``; 0 if it is not there."""
    for line in data.splitlines():
        if line.startswith(b"btime "):
            return int(line[6:])
    return 0


def parse_cpuinfo(data: bytes) -> Topology:
    """``/proc/cpuinfo``; a machine that does not tell its topology has one core a CPU and one socket."""
    cpus = 0
    cores: set[tuple[bytes, bytes]] = set()
    sockets: set[bytes] = set()
    socket = b"0"
    for line in data.splitlines():
        key, _, value = (part.strip() for part in line.partition(b":"))
        if key == b"processor":
            cpus += 1
        elif key == b"physical id":
            socket = value
            sockets.add(value)
        elif key == b"core id":
            cores.add((socket, value))
    return Topology(cpus, len(cores) or cpus, len(sockets) or 1)
