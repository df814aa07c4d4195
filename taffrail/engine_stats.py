"""The engine's statistics from the collector's readers: the one place where the two meet.

The runtime says what it wants (``runtime.stats.StatsSource``), the collector knows the kernel's files;
neither imports the other.
"""

from __future__ import annotations

from collector.container import Container
from collector.roots import Roots
from collector.sample import BlockIO, Memory, Sample
from collector.sampler import read_container
from runtime.stats import Block, Interface, Reading, Target
from taffrail.paths import Paths

__all__ = ["CgroupStats", "reading_of"]

_NS = 1_000_000_000


class CgroupStats:
    """Reads one container at a time, for ``docker stats`` on our engine."""

    def __init__(self, paths: Paths) -> None:
        self._roots = Roots(proc=paths.proc, sys=paths.sys)
        self._version = 2 if (paths.sys / "fs/cgroup/cgroup.controllers").exists() else 1

    def read(self, target: Target) -> Reading:
        """The counters now. Raises OSError if the container has gone."""
        container = Container(
            id=target.container_id,
            name="",
            pid=target.pid,
            cgroup=target.cgroup,
            network_mode="bridge" if target.own_network else "none",
        )
        return reading_of(read_container(container, self._roots), self._version, target.own_network)


def reading_of(sample: Sample, cgroup_version: int, own_network: bool) -> Reading:
    """A sample as the Engine API's rendering wants it."""
    cpu, memory = sample.cpu, sample.memory
    interfaces = sample.interfaces if own_network else ()
    return Reading(
        time_ns=sample.time_ns,
        cgroup_version=cgroup_version,
        cpu_total_ns=_ns(cpu.usage_seconds if cpu else None),
        cpu_user_ns=_ns(cpu.user_seconds if cpu else None),
        cpu_system_ns=_ns(cpu.system_seconds if cpu else None),
        per_cpu_ns=tuple(_ns(value) for value in cpu.per_cpu_seconds) if cpu else (),
        periods=(cpu.periods or 0) if cpu else 0,
        throttled_periods=(cpu.throttled_periods or 0) if cpu else 0,
        throttled_ns=_ns(cpu.throttled_seconds if cpu else None),
        memory_usage=memory.usage_bytes if memory else 0,
        memory_max_usage=memory.max_usage_bytes if memory and cgroup_version == 1 else None,
        memory_limit=memory.limit_bytes if memory else None,
        memory_failures=(memory.failures or 0) if memory else 0,
        memory_stat=_stat(memory, cgroup_version) if memory else {},
        blocks=tuple(_block(b) for b in sample.block_io),
        pids=sample.pids or 0,
        pids_limit=sample.pids_limit,
        interfaces={
            i.name: Interface(
                i.rx_bytes,
                i.rx_packets,
                i.rx_errors,
                i.rx_dropped,
                i.tx_bytes,
                i.tx_packets,
                i.tx_errors,
                i.tx_dropped,
            )
            for i in interfaces
        },
    )


def _block(counters: BlockIO) -> Block:
    major, _, minor = counters.device.partition(":")
    return Block(
        int(major), int(minor), counters.read_bytes, counters.write_bytes, counters.reads, counters.writes
    )


def _ns(seconds: float | None) -> int:
    return 0 if seconds is None else round(seconds * _NS)


def _stat(memory: Memory, cgroup_version: int) -> dict[str, int]:
    """memory.stat under the kernel's own names: ``total_…`` of the hierarchy on v1, plain on v2."""
    if cgroup_version == 1:
        names = {
            "total_cache": memory.cache_bytes,
            "total_rss": memory.rss_bytes,
            "total_mapped_file": memory.mapped_file_bytes,
            "total_swap": memory.swap_bytes,
            "total_active_file": memory.active_file_bytes,
            "total_inactive_file": memory.inactive_file_bytes,
            "total_pgfault": memory.page_faults,
            "total_pgmajfault": memory.major_page_faults,
        }
        own = {name.removeprefix("total_"): value for name, value in names.items()}
        names = {**own, **names}
    else:
        names = {
            "anon": memory.rss_bytes,
            "file": memory.cache_bytes,
            "file_mapped": memory.mapped_file_bytes,
            "active_file": memory.active_file_bytes,
            "inactive_file": memory.inactive_file_bytes,
            "pgfault": memory.page_faults,
            "pgmajfault": memory.major_page_faults,
        }
    found = {name: value for name, value in names.items() if value is not None}
    return {**memory.stat, **found}
