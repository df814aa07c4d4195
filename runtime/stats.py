"""Container statistics in the shape of ``GET /containers/{id}/stats``, on cgroup v1 and v2.

Reading cgroups and interfaces is the collector's trade, which the runtime never imports: whoever builds
the engine hands it a ``StatsSource``. Here is what such a source returns and how docker, ctop and cAdvisor
expect it to be written; the formulas (CPU %, MEM less page cache) are theirs, from these fields.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

__all__ = [
    "Block",
    "Interface",
    "Reading",
    "StatsSource",
    "Target",
    "render",
    "render_stopped",
    "system_cpu_ns",
]

_ZERO_TIME = "0001-01-01T00:00:00Z"
#: ``/proc/stat`` counts in ticks of 10 ms on every architecture Docker supports.
_NS_PER_TICK = 10_000_000
_NO_LIMIT = 2**64 - 1
_BLKIO_TABLES = (
    "io_service_bytes_recursive",
    "io_serviced_recursive",
    "io_queue_recursive",
    "io_service_time_recursive",
    "io_wait_time_recursive",
    "io_merged_recursive",
    "io_time_recursive",
    "sectors_recursive",
)


@dataclass(frozen=True, slots=True)
class Target:
    """Which container to read."""

    container_id: str
    pid: int  #: of its first process, in the host's namespace
    cgroup: str  #: path below each hierarchy's root
    own_network: bool  #: false for ``none``, ``host`` and ``container:``: no interface series


@dataclass(frozen=True, slots=True)
class Interface:
    """Counters of one network interface as the container sees it."""

    rx_bytes: int = 0
    rx_packets: int = 0
    rx_errors: int = 0
    rx_dropped: int = 0
    tx_bytes: int = 0
    tx_packets: int = 0
    tx_errors: int = 0
    tx_dropped: int = 0


@dataclass(frozen=True, slots=True)
class Block:
    """Block I/O of one device."""

    major: int
    minor: int
    read_bytes: int
    write_bytes: int
    reads: int
    writes: int


@dataclass(frozen=True, slots=True)
class Reading:
    """All counters of one container at one moment; totals since its cgroup was made."""

    time_ns: int
    cgroup_version: int  #: 1 (hybrid too) or 2
    cpu_total_ns: int = 0
    cpu_user_ns: int = 0
    cpu_system_ns: int = 0
    per_cpu_ns: tuple[int, ...] = ()  #: v1 only
    periods: int = 0
    throttled_periods: int = 0
    throttled_ns: int = 0
    memory_usage: int = 0
    memory_max_usage: int | None = None  #: v1 only
    memory_limit: int | None = None  #: None = unlimited
    memory_failures: int = 0
    #: memory.stat by the kernel's names; the page cache to subtract is ``total_inactive_file`` on v1,
    #: ``inactive_file`` on v2.
    memory_stat: Mapping[str, int] = field(default_factory=dict)
    blocks: tuple[Block, ...] = ()
    pids: int = 0
    pids_limit: int | None = None
    interfaces: Mapping[str, Interface] = field(default_factory=dict)


class StatsSource(Protocol):
    """Reads one running container's counters. Synchronous and short: some 50 µs of kernel files."""

    def read(self, target: Target) -> Reading:
        """The counters now. Raises OSError if the container has gone."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A reading with the host's clocks at that time."""

    reading: Reading
    system_cpu_ns: int
    online_cpus: int


def system_cpu_ns(proc_stat: str) -> int:
    """CPU time of the whole host in nanoseconds from the text of ``/proc/stat``.

    The first seven fields, as Docker adds them up (guest time is contained in user time).
    """
    head = proc_stat.split("\n", 1)[0].split()
    if len(head) < 8 or head[0] != "cpu":
        raise ValueError(f"/proc/stat: expected a first line 'cpu' with seven numbers, found {head!r}")
    return sum(int(value) for value in head[1:8]) * _NS_PER_TICK


def render(
    container_id: str, name: str, now: Moment, before: Moment | None, machine_memory: int
) -> dict[str, Any]:
    """One object of the stats stream. ``before`` is None for the first and for ``one-shot``."""
    reading = now.reading
    body: dict[str, Any] = {
        "name": name,
        "id": container_id,
        "read": _rfc3339(reading.time_ns),
        "preread": _rfc3339(before.reading.time_ns) if before else _ZERO_TIME,
        "pids_stats": _pids(reading),
        "blkio_stats": _blkio(reading),
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": _cpu(now),
        "precpu_stats": _cpu(before) if before else _no_cpu(),
        "memory_stats": _memory(reading, machine_memory),
    }
    if reading.interfaces:
        body["networks"] = {
            interface: {
                "rx_bytes": c.rx_bytes,
                "rx_packets": c.rx_packets,
                "rx_errors": c.rx_errors,
                "rx_dropped": c.rx_dropped,
                "tx_bytes": c.tx_bytes,
                "tx_packets": c.tx_packets,
                "tx_errors": c.tx_errors,
                "tx_dropped": c.tx_dropped,
            }
            for interface, c in reading.interfaces.items()
        }
    return body


def render_stopped(container_id: str, name: str) -> dict[str, Any]:
    """What Docker answers for a container without processes: the shape, all zero."""
    return {
        "name": name,
        "id": container_id,
        "read": _ZERO_TIME,
        "preread": _ZERO_TIME,
        "pids_stats": {},
        "blkio_stats": dict.fromkeys(_BLKIO_TABLES),
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": _no_cpu(),
        "precpu_stats": _no_cpu(),
        "memory_stats": {},
    }


def _pids(reading: Reading) -> dict[str, int]:
    if reading.pids_limit is None:
        # Docker leaves "max" out on v1 and takes it for the largest number on v2.
        return {"current": reading.pids} | ({"limit": _NO_LIMIT} if reading.cgroup_version == 2 else {})
    return {"current": reading.pids, "limit": reading.pids_limit}


def _cpu(moment: Moment) -> dict[str, Any]:
    reading = moment.reading
    usage: dict[str, Any] = {
        "total_usage": reading.cpu_total_ns,
        "usage_in_kernelmode": reading.cpu_system_ns,
        "usage_in_usermode": reading.cpu_user_ns,
    }
    if reading.per_cpu_ns:
        usage["percpu_usage"] = list(reading.per_cpu_ns)
    return {
        "cpu_usage": usage,
        "system_cpu_usage": moment.system_cpu_ns,
        "online_cpus": moment.online_cpus,
        "throttling_data": {
            "periods": reading.periods,
            "throttled_periods": reading.throttled_periods,
            "throttled_time": reading.throttled_ns,
        },
    }


def _no_cpu() -> dict[str, Any]:
    return {
        "cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
        "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
    }


def _memory(reading: Reading, machine_memory: int) -> dict[str, Any]:
    limit = reading.memory_limit
    if limit is None or (machine_memory and limit > machine_memory):
        limit = machine_memory
    body: dict[str, Any] = {"usage": reading.memory_usage, "stats": dict(reading.memory_stat), "limit": limit}
    if reading.memory_max_usage is not None:
        body["max_usage"] = reading.memory_max_usage
    if reading.memory_failures:
        body["failcnt"] = reading.memory_failures
    return body


def _blkio(reading: Reading) -> dict[str, Any]:
    tables: dict[str, Any] = dict.fromkeys(_BLKIO_TABLES)
    # The kernel's own words: capitalised in v1's blkio files, lower case where v2's io.stat is translated.
    read, write = ("Read", "Write") if reading.cgroup_version == 1 else ("read", "write")
    size: list[dict[str, Any]] = []
    count: list[dict[str, Any]] = []
    for b in reading.blocks:
        where = {"major": b.major, "minor": b.minor}
        size += [where | {"op": read, "value": b.read_bytes}, where | {"op": write, "value": b.write_bytes}]
        count += [where | {"op": read, "value": b.reads}, where | {"op": write, "value": b.writes}]
        if reading.cgroup_version == 1:
            size.append(where | {"op": "Total", "value": b.read_bytes + b.write_bytes})
            count.append(where | {"op": "Total", "value": b.reads + b.writes})
    tables["io_service_bytes_recursive"] = size
    tables["io_serviced_recursive"] = count
    return tables


def _rfc3339(time_ns: int) -> str:
    seconds, fraction = divmod(time_ns, 1_000_000_000)
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z"
