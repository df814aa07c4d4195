"""One sample: every counter of one container (or of the host's root cgroup) at one moment.

Counters are totals since the cgroup was made, in the unit of the field's name. ``None`` means the kernel
does not have it here (absent); a controller that failed to read is named in ``errors`` and leaves the
others untouched.
"""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["BlockIO", "Cpu", "DiskStats", "Interface", "Memory", "Pressure", "Sample"]


@dataclass(frozen=True, slots=True)
class Cpu:
    """CPU time and throttling."""

    usage_seconds: float
    user_seconds: float | None = None
    system_seconds: float | None = None
    periods: int | None = None
    throttled_periods: int | None = None
    throttled_seconds: float | None = None
    per_cpu_seconds: tuple[float, ...] = ()  #: v1 only
    burst_periods: int | None = None
    burst_seconds: float | None = None
    quota_us: int | None = None  #: None = no quota
    period_us: int | None = None
    shares: int | None = None  #: v1's scale (1024 is a full share); converted from the weight on v2


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory in bytes, events as counts."""

    usage_bytes: int
    working_set_bytes: int
    rss_bytes: int | None = None
    cache_bytes: int | None = None
    mapped_file_bytes: int | None = None
    swap_bytes: int | None = None
    max_usage_bytes: int | None = None
    kernel_bytes: int | None = None
    active_file_bytes: int | None = None
    inactive_file_bytes: int | None = None
    limit_bytes: int | None = None  #: None = unlimited
    swap_limit_bytes: int | None = None
    reservation_bytes: int | None = None
    failures: int | None = None
    page_faults: int | None = None
    major_page_faults: int | None = None
    oom_kills: int | None = None
    own_page_faults: int | None = None  #: v1: of this cgroup without its children
    own_major_page_faults: int | None = None
    high_events: int | None = None  #: v2: times memory.high throttled it
    max_events: int | None = None  #: v2: times memory.max made it reclaim
    stat: dict[str, int] = field(default_factory=dict)  #: memory.stat's further keys somebody asked for
    low_events: int | None = None  #: v2: times it was reclaimed although below memory.low
    oom_events: int | None = None  #: v2: times an allocation was about to fail at the limit
    oom_group_kills: int | None = None  #: v2: times the whole cgroup was killed at once
    high_bytes: int | None = None  #: v2: above this it is slowed down and reclaimed; None = no such limit


@dataclass(frozen=True, slots=True)
class BlockIO:
    """Block I/O of one device."""

    device: str  #: ``major:minor``
    read_bytes: int
    write_bytes: int
    reads: int
    writes: int
    #: v2, where the device has io.cost on: time its I/O was worth, and more where blkcg_debug_stats is set.
    cost_usage_seconds: float | None = None
    cost_wait_seconds: float | None = None
    cost_indebt_seconds: float | None = None
    cost_indelay_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class DiskStats:
    """A whole block device as the host sees it (``/proc/diskstats``)."""

    device: str  #: ``/dev/vda``
    number: str  #: ``major:minor``
    reads: int
    reads_merged: int
    sectors_read: int
    read_seconds: float
    writes: int
    writes_merged: int
    sectors_written: int
    write_seconds: float
    io_current: int
    io_seconds: float
    io_weighted_seconds: float


@dataclass(frozen=True, slots=True)
class Interface:
    """One network interface as its container sees it."""

    name: str
    rx_bytes: int
    rx_packets: int
    rx_errors: int
    rx_dropped: int
    tx_bytes: int
    tx_packets: int
    tx_errors: int
    tx_dropped: int


@dataclass(frozen=True, slots=True)
class Pressure:
    """Pressure stall totals of one resource, in seconds."""

    some_seconds: float | None  #: None of interrupts, which stop everything on their CPU
    full_seconds: float | None = None
    some_avg10: float | None = None  #: percent of the last ten seconds, as the kernel averages
    full_avg10: float | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """All of one container at one moment."""

    time_ns: int
    cpu: Cpu | None = None
    memory: Memory | None = None
    block_io: tuple[BlockIO, ...] = ()
    pids: int | None = None
    pids_limit: int | None = None
    threads: int | None = None
    interfaces: tuple[Interface, ...] = ()
    pressure: dict[str, Pressure] = field(default_factory=dict)  #: by resource: cpu memory io irq
    errors: tuple[str, ...] = ()  #: controllers that failed, ``"memory: [Errno 5] …"``
    host_cpu_seconds: float | None = None  #: the host's CPU time, all cores, idle included, at this moment
    disks: tuple[DiskStats, ...] = ()  #: the host's own sample only
    pids_limit_events: int | None = None  #: times a task could not be made for the limit
