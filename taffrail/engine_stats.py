"""The engine's statistics from the collector's readers: the one place where the two meet.

The runtime says what it wants (``runtime.stats.StatsSource``), the collector knows the kernel's files;
neither imports the other.
"""

from __future__ import annotations

from collections.abc import Mapping

from collector.cgroup.layout import UNIFIED, Layout
from collector.container import Container
from collector.roots import Roots
from collector.sample import BlockIO, Memory, Sample
from collector.sampler import read_container
from runtime.stats import Block, Interface, Reading, Target
from taffrail.paths import Paths

__all__ = ["CgroupStats", "parse_memory_stat", "reading_of"]

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
        sample = read_container(container, self._roots)
        return reading_of(sample, self._version, target.own_network, self._memory_stat(target))

    def _memory_stat(self, target: Target) -> dict[str, int]:
        """All of ``memory.stat`` by the kernel's names, as Docker's clients know it from Docker."""
        layout = Layout.read(self._roots)
        directories = layout.directories(layout.process_paths(target.pid, target.container_id))
        directory = directories.get(UNIFIED if self._version == 2 else "memory")
        if directory is None:
            return {}
        return parse_memory_stat((directory / "memory.stat").read_bytes())


def parse_memory_stat(data: bytes) -> dict[str, int]:
    """Every counter of ``memory.stat``, of either version.

    Newer kernels split v2's ``workingset_refault`` and ``workingset_activate`` into anonymous and file pages; the
    sums are there, too.
    """
    found = {name.decode(): int(value) for name, value in (line.split() for line in data.splitlines())}
    for name in ("workingset_refault", "workingset_activate"):
        if f"{name}_anon" in found:
            found.setdefault(name, found[f"{name}_anon"] + found[f"{name}_file"])
    return found


def reading_of(
    sample: Sample, cgroup_version: int, own_network: bool, memory_stat: Mapping[str, int]
) -> Reading:
    """A sample as the Engine API's rendering wants it; ``memory_stat`` is all of the kernel's file."""
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
        memory_failures=_failures(memory, cgroup_version) if memory else 0,
        memory_stat=memory_stat,
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


def _failures(memory: Memory, cgroup_version: int) -> int:
    """What Docker calls ``failcnt``: times the limit was hit on v1, times memory ran out at it on v2."""
    return (memory.failures if cgroup_version == 1 else memory.oom_events) or 0
