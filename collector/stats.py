"""``docker stats``' columns from two samples, by Docker's own formulas.

One place for them, so that the command line, the page, the collector's API and the engine's stats API
show the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

from collector.sample import Sample

__all__ = ["Stats", "stats_of"]


@dataclass(frozen=True, slots=True)
class Stats:
    """One row of ``docker stats``; totals in bytes. All zero where there is no sample yet.

    None is what the kernel counts for nobody there: the host has no number of tasks, and on cgroup v1 a cgroup
    may be in some controllers' trees only.
    """

    time_ns: int = 0  #: of the newer sample; 0 = never sampled
    cpu_percent: float | None = 0.0  #: 100 is one whole CPU
    online_cpus: int = 0
    memory_usage_bytes: int | None = 0  #: without inactive page cache
    memory_limit_bytes: int | None = 0  #: the host's memory where the container has no limit
    memory_percent: float | None = 0.0
    net_rx_bytes: int = 0
    net_tx_bytes: int = 0
    block_read_bytes: int = 0
    block_write_bytes: int = 0
    pids: int | None = 0
    net_rx_bytes_per_second: float = 0.0  #: between the two samples; 0 after a counter's reset
    net_tx_bytes_per_second: float = 0.0
    block_read_bytes_per_second: float = 0.0
    block_write_bytes_per_second: float = 0.0


def stats_of(sample: Sample, previous: Sample | None, online_cpus: int, host_memory_bytes: int) -> Stats:
    """Compute the row. CPU % needs both samples and their ``host_cpu_seconds``, rates need both: 0 without.

    CPU % is never more than all CPUs.
    """
    totals = _totals(sample)
    rates = _rates(sample, totals, previous)
    usage: int | None = None
    limit: int | None = None
    share: float | None = None
    if sample.memory is not None:
        usage = sample.memory.usage_bytes
        inactive = sample.memory.inactive_file_bytes or 0
        if inactive < usage:  # Docker subtracts only then
            usage -= inactive
        own = sample.memory.limit_bytes
        limit = host_memory_bytes if own is None else min(own, host_memory_bytes or own)
        share = usage / limit * 100 if limit else 0.0
    return Stats(
        sample.time_ns,
        _cpu_percent(sample, previous, online_cpus),
        online_cpus,
        usage,
        limit,
        share,
        *totals,
        sample.pids,
        *rates,
    )


def _cpu_percent(sample: Sample, previous: Sample | None, online_cpus: int) -> float | None:
    if sample.cpu is None:
        return None
    if previous is None or previous.cpu is None:
        return 0.0
    if sample.host_cpu_seconds is None or previous.host_cpu_seconds is None:
        return 0.0
    used = sample.cpu.usage_seconds - previous.cpu.usage_seconds
    system = sample.host_cpu_seconds - previous.host_cpu_seconds
    # The two are read one after the other, on a starved host far apart: nobody uses more than all CPUs.
    return min(used / system, 1.0) * online_cpus * 100 if used > 0 and system > 0 else 0.0


def _totals(sample: Sample) -> tuple[int, int, int, int]:
    """Bytes received, sent, read and written."""
    return (
        sum(interface.rx_bytes for interface in sample.interfaces),
        sum(interface.tx_bytes for interface in sample.interfaces),
        sum(device.read_bytes for device in sample.block_io),
        sum(device.write_bytes for device in sample.block_io),
    )


def _rates(sample: Sample, totals: tuple[int, ...], previous: Sample | None) -> tuple[float, ...]:
    if previous is None or sample.time_ns <= previous.time_ns:
        return (0.0,) * len(totals)
    seconds = (sample.time_ns - previous.time_ns) / 1e9
    before = _totals(previous)
    return tuple(max(now - then, 0) / seconds for now, then in zip(totals, before, strict=True))
