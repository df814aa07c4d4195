"""The one table of container and machine series: name, type, help, where the value comes from, unit.

Names, types and units are cAdvisor's wherever cAdvisor has the series; below ``BEYOND`` are ours. The
writer (``exposition.py``) knows no names of its own, and documentation and tests read this table.
"""

from __future__ import annotations

from exporters.prometheus.family import Family, Kind
from exporters.prometheus.slow_families import BEYOND_SLOW, SLOW

__all__ = ["BEYOND", "FAMILIES", "Family", "Kind"]


def _counter(name: str, source: str, text: str, unit: str = "", labels: str = "") -> Family:
    return Family(name, Kind.COUNTER, text, source, unit, labels)


def _gauge(
    name: str, source: str, text: str, unit: str = "", labels: str = "", default: int | None = None
) -> Family:
    return Family(name, Kind.GAUGE, text, source, unit, labels, default)


_ALWAYS = (
    _gauge("container_last_seen", "container.last_seen", "When the container was last seen running.", "s"),
    _gauge(
        "container_health_state",
        "container.health",
        "Result of the health check: 1 healthy, 0 starting or unhealthy, -1 no health check.",
    ),
    _gauge("container_start_time_seconds", "container.started", "When the container was started.", "s"),
    _gauge("container_creation_time_seconds", "container.created", "When the container was created.", "s"),
)

_SPEC = (
    _gauge("container_spec_cpu_period", "cpu.period_us", "Length of a CFS period in microseconds.", "us"),
    _gauge("container_spec_cpu_quota", "cpu.quota_us", "CPU time allowed per CFS period.", "us"),
    _gauge("container_spec_cpu_shares", "cpu.shares", "CPU share relative to other containers."),
    _gauge("container_spec_memory_limit_bytes", "memory.limit_bytes", "Memory limit, 0 if none.", "B", "", 0),
    _gauge(
        "container_spec_memory_swap_limit_bytes",
        "memory.swap_limit_bytes",
        "Swap limit, 0 if none: memory and swap on cgroup v1, swap alone on v2.",
        "B",
        "",
        0,
    ),
    _gauge(
        "container_spec_memory_reservation_limit_bytes",
        "memory.reservation_bytes",
        "Memory reservation, 0 if none.",
        "B",
        "",
        0,
    ),
)

_CPU = (
    _counter("container_cpu_user_seconds_total", "cpu.user_seconds", "CPU time in user mode.", "s"),
    _counter("container_cpu_system_seconds_total", "cpu.system_seconds", "CPU time in the kernel.", "s"),
    _counter("container_cpu_usage_seconds_total", "cpu.usage_seconds", "CPU time used.", "s", 'cpu="total"'),
    _counter("container_cpu_cfs_periods_total", "cpu.periods", "CFS periods that have passed."),
    _counter("container_cpu_cfs_throttled_periods_total", "cpu.throttled_periods", "CFS periods cut short."),
    _counter(
        "container_cpu_cfs_throttled_seconds_total",
        "cpu.throttled_seconds",
        "Time the container was kept from running by its quota.",
        "s",
    ),
    _counter("container_cpu_cfs_burst_periods_total", "cpu.burst_periods", "CFS periods with a burst."),
    _counter("container_cpu_cfs_burst_seconds_total", "cpu.burst_seconds", "CPU time above quota.", "s"),
)

_FAULTS = "container_memory_failures_total"
_FAULTS_HELP = "Page faults."

_MEMORY = (
    _gauge("container_memory_usage_bytes", "memory.usage_bytes", "Memory in use, page cache included.", "B"),
    _gauge(
        "container_memory_working_set_bytes",
        "memory.working_set_bytes",
        "Memory in use without inactive page cache.",
        "B",
    ),
    _gauge("container_memory_rss", "memory.rss_bytes", "Anonymous memory.", "B"),
    _gauge("container_memory_cache", "memory.cache_bytes", "Page cache.", "B"),
    _gauge("container_memory_mapped_file", "memory.mapped_file_bytes", "Memory-mapped files.", "B"),
    _gauge("container_memory_swap", "memory.swap_bytes", "Swap in use.", "B", "", 0),
    _gauge("container_memory_max_usage_bytes", "memory.max_usage_bytes", "Highest memory usage.", "B", "", 0),
    _gauge("container_memory_kernel_usage", "memory.kernel_bytes", "Kernel memory.", "B"),
    _counter("container_memory_failcnt", "memory.failures", "Times the memory limit was hit."),
    _gauge(
        "container_memory_total_active_file_bytes",
        "memory.active_file_bytes",
        "Page cache on the active list.",
        "B",
    ),
    _gauge(
        "container_memory_total_inactive_file_bytes",
        "memory.inactive_file_bytes",
        "Page cache on the inactive list.",
        "B",
    ),
    _counter(_FAULTS, "memory.own_page_faults", _FAULTS_HELP, "", 'failure_type="pgfault",scope="container"'),
    _counter(_FAULTS, "memory.page_faults", _FAULTS_HELP, "", 'failure_type="pgfault",scope="hierarchy"'),
    _counter(
        _FAULTS,
        "memory.own_major_page_faults",
        _FAULTS_HELP,
        "",
        'failure_type="pgmajfault",scope="container"',
    ),
    _counter(
        _FAULTS,
        "memory.major_page_faults",
        _FAULTS_HELP,
        "",
        'failure_type="pgmajfault",scope="hierarchy"',
    ),
    _counter("container_memory_events_high_total", "memory.high_events", "Times memory.high throttled it."),
    _counter("container_memory_events_max_total", "memory.max_events", "Times memory.max made it reclaim."),
    _gauge("container_memory_file_dirty_bytes", "stat.file_dirty", "Page cache to be written.", "B"),
    _gauge("container_memory_file_writeback_bytes", "stat.file_writeback", "Page cache being written.", "B"),
    _counter("container_memory_pgscan_total", "stat.pgscan", "Pages looked at by reclaim."),
    _counter("container_memory_pgsteal_total", "stat.pgsteal", "Pages reclaimed."),
    _counter(
        "container_memory_workingset_refault_file_total",
        "stat.workingset_refault_file",
        "Pages of files read back soon after they were reclaimed.",
    ),
    _counter(
        "container_memory_workingset_refault_anon_total",
        "stat.workingset_refault_anon",
        "Anonymous pages swapped in soon after they were reclaimed.",
    ),
)


def _room(name: str, field: str, text: str, unit: str = "") -> tuple[Family, ...]:
    """A row for the host's file systems, and one for those that containers' writable layers are on."""
    return (
        _gauge(name, f"filesystem.{field}", text, unit),
        Family(name, Kind.GAUGE, text, "lane.disk", unit, varies=("device",)),
    )


_DISK = (
    *_room(
        "container_fs_usage_bytes",
        "used_bytes",
        "Bytes in use: of a container its writable layer, of the host each file system.",
        "B",
    ),
    *_room("container_fs_limit_bytes", "capacity_bytes", "Size of the file system.", "B"),
    *_room("container_fs_inodes_total", "inodes", "Inodes of the file system."),
    *_room("container_fs_inodes_free", "inodes_free", "Inodes not in use."),
)

_OPERATION = 'operation="%s"'


def _io_cost(what: str, text: str) -> Family:
    return _counter(f"container_fs_io_cost_{what}_seconds_total", f"device.cost_{what}_seconds", text, "s")


_DISK_IO = (
    _counter("container_fs_reads_bytes_total", "device.read_bytes", "Bytes read.", "B"),
    _counter("container_fs_writes_bytes_total", "device.write_bytes", "Bytes written.", "B"),
    _counter("container_fs_reads_total", "device.reads", "Reads completed."),
    _counter("container_fs_writes_total", "device.writes", "Writes completed."),
    _counter("container_fs_sector_reads_total", "disk.sectors_read", "Sectors of 512 bytes read."),
    _counter("container_fs_sector_writes_total", "disk.sectors_written", "Sectors of 512 bytes written."),
    _counter("container_fs_reads_merged_total", "disk.reads_merged", "Reads merged with others."),
    _counter("container_fs_writes_merged_total", "disk.writes_merged", "Writes merged with others."),
    _counter("container_fs_read_seconds_total", "disk.read_seconds", "Time spent reading.", "s"),
    _counter("container_fs_write_seconds_total", "disk.write_seconds", "Time spent writing.", "s"),
    _gauge("container_fs_io_current", "disk.io_current", "I/O requests in flight."),
    _counter("container_fs_io_time_seconds_total", "disk.io_seconds", "Time with I/O in flight.", "s"),
    _counter(
        "container_fs_io_time_weighted_seconds_total",
        "disk.io_weighted_seconds",
        "Time with I/O in flight, times the requests in flight.",
        "s",
    ),
    _io_cost("usage", "Time of the device its I/O was worth, by io.cost."),
    _io_cost("wait", "Time its I/O waited for want of budget."),
    _io_cost("indebt", "Time it was in debt for I/O that could not wait."),
    _io_cost("indelay", "Time it was held up to pay debts off."),
    _counter(
        "container_blkio_device_usage_total",
        "device.read_bytes",
        "Bytes of block I/O by device and operation.",
        "B",
        _OPERATION % "Read",
    ),
    _counter(
        "container_blkio_device_usage_total",
        "device.write_bytes",
        "Bytes of block I/O by device and operation.",
        "B",
        _OPERATION % "Write",
    ),
)


def _network(direction: str, short: str, verb: str) -> tuple[Family, ...]:
    name = f"container_network_{direction}"
    return (
        _counter(f"{name}_bytes_total", f"interface.{short}_bytes", f"Bytes {verb}.", "B"),
        _counter(f"{name}_packets_total", f"interface.{short}_packets", f"Packets {verb}."),
        _counter(f"{name}_errors_total", f"interface.{short}_errors", f"Errors while packets were {verb}."),
        _counter(
            f"{name}_packets_dropped_total",
            f"interface.{short}_dropped",
            f"Packets dropped that should have been {verb}.",
        ),
    )


_NETWORK = (*_network("receive", "rx", "received"), *_network("transmit", "tx", "sent"))

_EVENTS = (
    _counter("container_oom_events_total", "container.oom_kills", "Processes killed for want of memory."),
)


def _pressure(resource: str) -> tuple[Family, ...]:
    name = f"container_pressure_{resource}"
    return (
        _counter(
            f"{name}_waiting_seconds_total",
            f"pressure.{resource}.some_seconds",
            f"Time some task waited for {resource}.",
            "s",
        ),
        _counter(
            f"{name}_stalled_seconds_total",
            f"pressure.{resource}.full_seconds",
            f"Time all tasks waited for {resource}.",
            "s",
        ),
    )


def _stall(resource: str) -> tuple[Family, ...]:
    name = f"container_pressure_{resource}"
    text = f"waited for {resource}, in percent of the last ten seconds."
    return (
        _gauge(f"{name}_waiting_avg10", f"stall.{resource}.some_avg10", f"Time some task {text}", "%"),
        _gauge(f"{name}_stalled_avg10", f"stall.{resource}.full_avg10", f"Time all tasks {text}", "%"),
    )


_PRESSURE = (*_pressure("cpu"), *_pressure("memory"), *_pressure("io"))

_PROCESS = (
    _gauge("container_threads", "tasks.pids", "Tasks, which are processes and threads."),
    _gauge("container_threads_max", "tasks.pids_limit", "Limit of tasks, 0 if none.", "", "", 0),
)

#: Series cAdvisor does not have.
BEYOND = (
    _gauge("container_state", "container.state", "1 for the state the container is in."),
    _gauge("container_exit_code", "container.exit_code", "Exit code of the last run."),
    _counter("container_restarts_total", "container.restarts", "Times the engine restarted it."),
    _counter(
        "container_oom_kills_total",
        "container.oom_kills",
        "Processes killed for want of memory, until the end.",
    ),
    _gauge("container_info", "container.info", "What does not change while the container exists."),
    _gauge(
        "container_cpu_limit_cores", "limit.cpu_cores", "CPUs the quota allows; without a quota not there."
    ),
    _gauge(
        "container_memory_limit_ratio",
        "limit.memory_ratio",
        "Working set as a share of the memory limit, or of the host's memory where there is none.",
    ),
    _gauge(
        "container_spec_memory_high_bytes",
        "memory.high_bytes",
        "Memory above which it is slowed down and reclaimed; not there without such a limit.",
        "B",
    ),
    _counter("container_memory_events_low_total", "memory.low_events", "Times reclaimed below memory.low."),
    _counter(
        "container_memory_events_oom_total",
        "memory.oom_events",
        "Times an allocation was about to fail at the limit.",
    ),
    _counter(
        "container_memory_events_oom_group_kill_total",
        "memory.oom_group_kills",
        "Times all processes were killed at once for want of memory.",
    ),
    _counter(
        "container_threads_limit_hits_total",
        "tasks.pids_limit_events",
        "Times a task could not be made for the limit.",
    ),
    *_stall("cpu"),
    *_stall("memory"),
    *_stall("io"),
    _counter(
        "container_pressure_irq_stalled_seconds_total",
        "pressure.irq.full_seconds",
        "Time interrupts kept its tasks from running.",
        "s",
    ),
    _gauge(
        "container_pressure_irq_stalled_avg10",
        "stall.irq.full_avg10",
        "Time interrupts kept its tasks from running, in percent of the last ten seconds.",
        "%",
    ),
    *BEYOND_SLOW,
)

_META = (
    _gauge("container_scrape_error", "scrape.container_error", "1 if a container's counter failed."),
    _gauge("machine_scrape_error", "scrape.machine_error", "1 if the machine's data failed."),
    _gauge("cadvisor_version_info", "scrape.version", "Versions of the kernel, the system and the agent."),
)


def _hardware(name: str, field: str, text: str, varies: tuple[str, ...], unit: str = "") -> Family:
    return Family(name, Kind.GAUGE, text, f"hardware.{field}", unit, varies=varies)


_MACHINE = (
    _gauge("machine_cpu_cores", "machine.cores", "Logical CPUs."),
    _gauge("machine_cpu_physical_cores", "machine.physical_cores", "CPU cores."),
    _gauge("machine_cpu_sockets", "machine.sockets", "CPU sockets."),
    _gauge("machine_memory_bytes", "machine.memory_bytes", "Memory installed.", "B"),
    _gauge("machine_swap_bytes", "machine.swap_bytes", "Swap available.", "B"),
    _gauge("machine_cpu_books", "hardware.books", "CPU books, of s390x."),
    _gauge("machine_cpu_drawers", "hardware.drawers", "CPU drawers, of s390x."),
    _hardware("machine_dimm_count", "dimm_count", "Memory modules by type.", ("type",)),
    _hardware("machine_dimm_capacity_bytes", "dimm_bytes", "Size of the memory modules.", ("type",), "B"),
    _hardware("machine_nvm_capacity", "nvm_bytes", "Persistent memory by its use.", ("mode",), "B"),
    _hardware("machine_nvm_avg_power_budget_watts", "nvm_watts", "0 without persistent memory.", (), "W"),
    _hardware(
        "machine_cpu_cache_capacity_bytes",
        "caches",
        "Size of a core's caches, and of those a node shares; with cpu_topology.",
        ("node_id", "core_id", "type", "level"),
        "B",
    ),
    _hardware(
        "machine_thread_siblings_count",
        "siblings",
        "Logical CPUs of a CPU's core; with cpu_topology.",
        ("node_id", "core_id", "thread_id"),
    ),
    _hardware(
        "machine_node_memory_capacity_bytes",
        "node_memory",
        "Memory of a NUMA node; with cpu_topology.",
        ("node_id",),
        "B",
    ),
    _hardware(
        "machine_node_hugepages_count",
        "huge_pages",
        "Huge pages of a NUMA node by size in kB; with cpu_topology.",
        ("node_id", "page_size"),
    ),
    _hardware(
        "machine_node_distance",
        "distances",
        "Distance between NUMA nodes; with cpu_topology.",
        ("node_id", "target_node_id"),
    ),
)

FAMILIES: tuple[Family, ...] = (
    *_ALWAYS,
    *_SPEC,
    *_CPU,
    *_MEMORY,
    *_DISK,
    *_DISK_IO,
    *_NETWORK,
    *_EVENTS,
    *_PRESSURE,
    *_PROCESS,
    *SLOW,
    *BEYOND,
    *_META,
    *_MACHINE,
)
