"""The one table of host series: Node Exporter's families, their types and labels, in our words.

A name with a star stands for all the fields of a file that the kernel chooses. Which group of host
counters reads a family is in the table for the reader's sake; the page is written by ``node_page.py``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["NODE_FAMILIES", "NodeFamily", "node_family"]


@dataclass(frozen=True, slots=True)
class NodeFamily:
    """One family, or all families whose names match the star."""

    group: str  #: Node Exporter's collector
    name: str
    kind: str  #: counter, gauge or untyped
    help: str  #: ``{}`` stands for what the star matched
    labels: tuple[str, ...] = ()


def _family(group: str, kind: str, name: str, text: str, labels: str = "") -> NodeFamily:
    return NodeFamily(group, f"node_{name}", kind, text, tuple(labels.split()))


def _rows(group: str, labels: str, *rows: tuple[str, str, str]) -> tuple[NodeFamily, ...]:
    return tuple(_family(group, kind, name, text, labels) for kind, name, text in rows)


_C, _G, _U = "counter", "gauge", "untyped"

_CPU = (
    *_rows(
        "cpu",
        "cpu mode",
        (_C, "cpu_seconds_total", "Time the CPU spent in each mode."),
        (_C, "cpu_guest_seconds_total", "Time the CPU spent running guests, which user and nice include."),
    ),
    *_rows(
        "cpu",
        "package core cpu vendor family model model_name microcode stepping cachesize",
        (_G, "cpu_info", "What the CPU is."),
    ),
    *_rows(
        "cpu",
        "package core",
        (_C, "cpu_core_throttles_total", "Times the core was slowed down for its heat."),
    ),
    *_rows(
        "cpu",
        "package",
        (_C, "cpu_package_throttles_total", "Times the package was slowed down for its heat."),
    ),
    *_rows(
        "cpufreq",
        "cpu",
        (_G, "cpu_frequency_hertz", "Frequency the hardware runs at."),
        (_G, "cpu_frequency_min_hertz", "Lowest frequency of the hardware."),
        (_G, "cpu_frequency_max_hertz", "Highest frequency of the hardware."),
        (_G, "cpu_scaling_frequency_hertz", "Frequency the kernel asked for."),
        (_G, "cpu_scaling_frequency_min_hertz", "Lowest frequency the kernel may ask for."),
        (_G, "cpu_scaling_frequency_max_hertz", "Highest frequency the kernel may ask for."),
    ),
    *_rows(
        "cpufreq",
        "cpu governor",
        (_G, "cpu_scaling_governor", "1 for the governor in use."),
    ),
    *_rows(
        "schedstat",
        "cpu",
        (_C, "schedstat_running_seconds_total", "Time tasks ran on the CPU."),
        (_C, "schedstat_waiting_seconds_total", "Time tasks waited for the CPU, ready to run."),
        (_C, "schedstat_timeslices_total", "Timeslices run on the CPU."),
    ),
)

_MEMORY = _rows(
    "meminfo",
    "",
    (_G, "memory_*_bytes", "Field {} of /proc/meminfo, in bytes."),
    (_G, "memory_*", "Field {} of /proc/meminfo."),
) + _rows("vmstat", "", (_U, "vmstat_*", "Field {} of /proc/vmstat."))

_KERNEL = (
    *_rows(
        "stat",
        "",
        (_C, "intr_total", "Interrupts served."),
        (_C, "context_switches_total", "Context switches."),
        (_C, "forks_total", "Processes and threads started."),
        (_G, "boot_time_seconds", "When the host was booted, since the epoch."),
        (_G, "procs_running", "Tasks that are ready to run or running."),
        (_G, "procs_blocked", "Tasks that wait for I/O."),
    ),
    *_rows("loadavg", "", *((_G, f"load{n}", f"Load average of {n} minutes.") for n in (1, 5, 15))),
    *_rows(
        "pressure",
        "",
        (_C, "pressure_cpu_waiting_seconds_total", "Time some task waited for a CPU."),
        (_C, "pressure_io_waiting_seconds_total", "Time some task waited for I/O."),
        (_C, "pressure_io_stalled_seconds_total", "Time all tasks waited for I/O."),
        (_C, "pressure_memory_waiting_seconds_total", "Time some task waited for memory."),
        (_C, "pressure_memory_stalled_seconds_total", "Time all tasks waited for memory."),
        (_C, "pressure_irq_stalled_seconds_total", "Time interrupts kept all tasks from running."),
    ),
    *_rows(
        "filefd",
        "",
        (_G, "filefd_allocated", "Open files of the whole host."),
        (_G, "filefd_maximum", "How many files may be open."),
    ),
    *_rows(
        "entropy",
        "",
        (_G, "entropy_available_bits", "Entropy the random number generator has."),
        (_G, "entropy_pool_size_bits", "Entropy it can have."),
    ),
    *_rows(
        "uname",
        "sysname release version machine nodename domainname",
        (_G, "uname_info", "Names and versions uname(2) tells."),
    ),
    *_rows(
        "os",
        "build_id id id_like image_id image_version name pretty_name variant variant_id version "
        "version_codename version_id",
        (_G, "os_info", "What os-release says of the system."),
    ),
    *_rows(
        "os",
        "id id_like name",
        (_G, "os_version", "Major and minor version of the system."),
    ),
    *_rows(
        "dmi",
        "bios_date bios_release bios_vendor bios_version board_asset_tag board_name board_serial "
        "board_vendor board_version chassis_asset_tag chassis_serial chassis_vendor chassis_version "
        "product_family product_name product_serial product_sku product_uuid product_version "
        "system_vendor",
        (_G, "dmi_info", "What the firmware says of the machine."),
    ),
    *_rows(
        "selinux",
        "",
        (_G, "selinux_enabled", "1 if SELinux is enabled."),
        (_G, "selinux_config_mode", "Mode configured: 1 enforcing, 0 permissive, -1 disabled."),
        (_G, "selinux_current_mode", "Mode in force: 1 enforcing, 0 permissive."),
    ),
)

_CLOCK = (
    *_rows(
        "time",
        "",
        (_G, "time_seconds", "The host's time, since the epoch."),
    ),
    *_rows(
        "time",
        "time_zone",
        (_G, "time_zone_offset_seconds", "What the local time is ahead of UTC."),
    ),
    *_rows(
        "time",
        "device clocksource",
        (_G, "time_clocksource_available_info", "A clock source there is."),
    ),
    *_rows(
        "time",
        "device clocksource",
        (_G, "time_clocksource_current_info", "The clock source in use."),
    ),
    *_rows(
        "timex",
        "",
        (_G, "timex_offset_seconds", "Offset between this clock and its reference."),
        (_G, "timex_frequency_adjustment_ratio", "How fast the clock is made to run, 1 for unchanged."),
        (_G, "timex_maxerror_seconds", "Largest error the clock may have."),
        (_G, "timex_estimated_error_seconds", "Error the clock probably has."),
        (_G, "timex_status", "Bits of the clock's status (STA_ in sys/timex.h)."),
        (_G, "timex_loop_time_constant", "Time constant of the phase-locked loop."),
        (_G, "timex_tick_seconds", "Time between two ticks of the clock."),
        (_G, "timex_pps_frequency_hertz", "Frequency of the pulse per second, as an offset."),
        (_G, "timex_pps_jitter_seconds", "Jitter of the pulse per second."),
        (_G, "timex_pps_shift_seconds", "Length of an interval of the pulse per second."),
        (_G, "timex_pps_stability_hertz", "Stability of the pulse per second."),
        (_C, "timex_pps_jitter_total", "Times the jitter was too large."),
        (_C, "timex_pps_calibration_total", "Intervals of calibration."),
        (_C, "timex_pps_error_total", "Intervals of calibration that failed."),
        (_C, "timex_pps_stability_exceeded_total", "Times the stability was too poor."),
        (_G, "timex_tai_offset_seconds", "What International Atomic Time is ahead of UTC."),
        (_G, "timex_sync_status", "1 if the clock is synchronized."),
    ),
)

_DISK = (
    *_rows(
        "diskstats",
        "device",
        (_C, "disk_reads_completed_total", "Reads completed."),
        (_C, "disk_reads_merged_total", "Reads merged with others."),
        (_C, "disk_read_bytes_total", "Bytes read."),
        (_C, "disk_read_time_seconds_total", "Time reads took, added up."),
        (_C, "disk_writes_completed_total", "Writes completed."),
        (_C, "disk_writes_merged_total", "Writes merged with others."),
        (_C, "disk_written_bytes_total", "Bytes written."),
        (_C, "disk_write_time_seconds_total", "Time writes took, added up."),
        (_G, "disk_io_now", "Requests in flight."),
        (_C, "disk_io_time_seconds_total", "Time with requests in flight."),
        (
            _C,
            "disk_io_time_weighted_seconds_total",
            "Time with requests in flight, times how many there were.",
        ),
        (_C, "disk_discards_completed_total", "Discards completed."),
        (_C, "disk_discards_merged_total", "Discards merged with others."),
        (_C, "disk_discarded_sectors_total", "Sectors of 512 bytes discarded."),
        (_C, "disk_discard_time_seconds_total", "Time discards took, added up."),
        (_C, "disk_flush_requests_total", "Flushes completed."),
        (_C, "disk_flush_requests_time_seconds_total", "Time flushes took, added up."),
    ),
    *_rows(
        "diskstats",
        "device major minor path wwn model serial revision",
        (_G, "disk_info", "What the device is."),
    ),
    *_rows(
        "diskstats",
        "device type usage uuid version",
        (_G, "disk_filesystem_info", "The file system on the device."),
    ),
    *_rows(
        "diskstats",
        "device name uuid vg_name lv_name lv_layer",
        (_G, "disk_device_mapper_info", "What the device mapper calls it."),
    ),
    *_rows(
        "diskstats",
        "device",
        (_G, "disk_ata_write_cache", "1 if the disk has a write cache."),
        (_G, "disk_ata_write_cache_enabled", "1 if its write cache is on."),
        (_G, "disk_ata_rotation_rate_rpm", "Turns a minute, 0 for a disk that does not turn."),
    ),
    *_rows(
        "filesystem",
        "device mountpoint fstype",
        (_G, "filesystem_size_bytes", "Size of the file system."),
        (_G, "filesystem_free_bytes", "Bytes free, those for root included."),
        (_G, "filesystem_avail_bytes", "Bytes free for everybody."),
        (_G, "filesystem_files", "Inodes of the file system."),
        (_G, "filesystem_files_free", "Inodes that are free."),
        (_G, "filesystem_readonly", "1 if it is mounted read-only."),
        (_G, "filesystem_device_error", "1 if the file system could not be asked, or does not answer."),
    ),
    *_rows(
        "mdadm",
        "device",
        (_G, "md_disks_required", "Disks the array should have."),
        (_G, "md_blocks", "Blocks of 1024 bytes the array has."),
        (_G, "md_blocks_synced", "Blocks that are synchronized."),
    ),
    *_rows(
        "mdadm",
        "device state",
        (_G, "md_state", "1 for the state the array is in."),
    ),
    *_rows(
        "mdadm",
        "device state",
        (_G, "md_disks", "Disks of the array by their state."),
    ),
    *_rows(
        "edac",
        "controller",
        (_C, "edac_correctable_errors_total", "Memory errors that were corrected."),
        (_C, "edac_uncorrectable_errors_total", "Memory errors that could not be corrected."),
    ),
    *_rows(
        "edac",
        "controller csrow",
        (_C, "edac_csrow_correctable_errors_total", "Memory errors that were corrected, by row of chips."),
        (_C, "edac_csrow_uncorrectable_errors_total", "Memory errors not corrected, by row of chips."),
    ),
)


def _carried(direction: str, verb: str, *further: tuple[str, str]) -> tuple[NodeFamily, ...]:
    fields = (
        ("bytes", f"Bytes {verb}."),
        ("packets", f"Packets {verb}."),
        ("errs", f"Packets not {verb} for an error."),
        ("drop", f"Packets dropped that should have been {verb}."),
        ("fifo", "Errors of the device's queue."),
        ("compressed", f"Compressed packets {verb}."),
        *further,
    )
    return _rows(
        "netdev", "device", *((_C, f"network_{direction}_{name}_total", text) for name, text in fields)
    )


_NETWORK = (
    *_carried(
        "receive",
        "received",
        ("frame", "Packets with a bad length, checksum or frame."),
        ("multicast", "Multicast packets received."),
        ("nohandler", "Packets that nobody wanted."),
    ),
    *_carried(
        "transmit", "sent", ("colls", "Collisions."), ("carrier", "Packets lost for want of a carrier.")
    ),
    *_rows(
        "netclass",
        "device",
        (_G, "network_up", "1 if the interface is up and works."),
        (_G, "network_address_assign_type", "How it came to its address (NET_ADDR_ in linux/netdevice.h)."),
        (_G, "network_carrier", "1 if it has a carrier."),
        (_C, "network_carrier_changes_total", "Times the carrier came or went."),
        (_C, "network_carrier_up_changes_total", "Times the carrier came."),
        (_C, "network_carrier_down_changes_total", "Times the carrier went."),
        (_G, "network_device_id", "Number of the device among those that share an address."),
        (_G, "network_dormant", "1 if it waits for something, as for authentication."),
        (_G, "network_flags", "Its flags (IFF_ in linux/if.h)."),
        (_G, "network_iface_id", "Its index."),
        (_G, "network_iface_link", "Index of the interface it is on, its own where it is on none."),
        (_G, "network_iface_link_mode", "1 if it waits for a supplicant before it is up."),
        (_G, "network_mtu_bytes", "Largest packet."),
        (_G, "network_name_assign_type", "How it came to its name (NET_NAME_ in linux/netdevice.h)."),
        (_G, "network_net_dev_group", "Its group."),
        (_G, "network_protocol_type", "Its kind (ARPHRD_ in linux/if_arp.h)."),
        (_G, "network_speed_bytes", "Speed in bytes a second, below zero if unknown."),
        (_G, "network_transmit_queue_length", "Packets its queue takes."),
    ),
    *_rows(
        "netclass",
        "device address broadcast duplex ifalias operstate",
        (_G, "network_info", "What the interface is."),
    ),
    *_rows(
        "bonding",
        "master",
        (_G, "bonding_slaves", "Interfaces the bond should have."),
        (_G, "bonding_active", "Interfaces of the bond that work."),
    ),
    *_rows("netstat", "", (_U, "netstat_*", "Field {} of /proc/net/netstat, snmp or snmp6.")),
    *_rows("sockstat", "", (_G, "sockstat_*", "Field {} of /proc/net/sockstat or sockstat6.")),
    *_rows(
        "softnet",
        "cpu",
        (_C, "softnet_processed_total", "Packets the CPU took from devices."),
        (_C, "softnet_dropped_total", "Packets dropped because its queue was full."),
        (_C, "softnet_times_squeezed_total", "Times it stopped with packets left, its budget used up."),
    ),
    *_rows(
        "udp_queues",
        "queue ip",
        (_G, "udp_queues", "Bytes in the queues of UDP sockets."),
    ),
    *_rows(
        "arp",
        "device",
        (_G, "arp_entries", "Neighbours known by ARP."),
    ),
    *_rows(
        "conntrack",
        "",
        (_G, "nf_conntrack_entries", "Connections tracked."),
        (_G, "nf_conntrack_entries_limit", "Connections that can be tracked."),
        (_G, "nf_conntrack_stat_found", "Lookups that found an entry."),
        (_G, "nf_conntrack_stat_invalid", "Packets that could not be tracked."),
        (_G, "nf_conntrack_stat_ignore", "Packets that belonged to an entry already."),
        (_G, "nf_conntrack_stat_insert", "Entries inserted."),
        (_G, "nf_conntrack_stat_insert_failed", "Entries that could not be inserted."),
        (_G, "nf_conntrack_stat_drop", "Packets dropped because tracking failed."),
        (_G, "nf_conntrack_stat_early_drop", "Entries dropped for newer ones, the table being full."),
        (_G, "nf_conntrack_stat_search_restart", "Lookups begun again because the table was resized."),
    ),
)

_SENSOR = "chip sensor"

_SENSORS = (
    *_rows(
        "hwmon",
        "chip chip_name",
        (_G, "hwmon_chip_names", "What the chip calls itself."),
    ),
    *_rows(
        "hwmon",
        "chip sensor label",
        (_G, "hwmon_sensor_label", "What the sensor measures."),
    ),
    *_rows(
        "hwmon",
        "chip sensor",
        (_C, "hwmon_energy_*joule_total", "Energy used."),
    ),
    *_rows(
        "hwmon",
        "chip sensor",
        (_G, "hwmon_*", "Sensor's {}, in the unit of its name."),
    ),
    *_rows(
        "thermal_zone",
        "zone type",
        (_G, "thermal_zone_temp", "Temperature of the zone in degrees Celsius."),
    ),
    *_rows(
        "thermal_zone",
        "name type",
        (_G, "cooling_device_cur_state", "How hard the device cools."),
    ),
    *_rows(
        "thermal_zone",
        "name type",
        (_G, "cooling_device_max_state", "How hard it can."),
    ),
    *_rows(
        "powersupplyclass",
        "power_supply capacity_level charge_type health manufacturer model_name serial_number status "
        "technology type usb_type scope",
        (_G, "power_supply_info", "What the power supply is."),
    ),
    *_rows(
        "powersupplyclass",
        "power_supply",
        (_G, "power_supply_*", "The power supply's {}; charges in ampere hours, energies in watt hours."),
    ),
)

_SCRAPE = (
    *_rows(
        "",
        "collector",
        (_G, "scrape_collector_duration_seconds", "Time the group took."),
    ),
    *_rows(
        "",
        "collector",
        (_G, "scrape_collector_success", "1 if the group was read, 0 if it failed or is not there."),
    ),
    *_rows(
        "",
        "branch goarch goos goversion revision version",
        (_G, "exporter_build_info", "The agent in Node Exporter's place."),
    ),
)

NODE_FAMILIES: tuple[NodeFamily, ...] = (
    *_CPU,
    *_MEMORY,
    *_KERNEL,
    *_CLOCK,
    *_DISK,
    *_NETWORK,
    *_SENSORS,
    *_SCRAPE,
)

_EXACT = {family.name: family for family in NODE_FAMILIES if "*" not in family.name}
_STARS = tuple(
    (re.compile(re.escape(family.name).replace(r"\*", "(.*)")), family)
    for family in NODE_FAMILIES
    if "*" in family.name
)


def node_family(name: str) -> NodeFamily:
    """The family of a name, a star replaced by it. Raises KeyError for a name that is not in the table."""
    exact = _EXACT.get(name)
    if exact is not None:
        return exact
    for pattern, family in _STARS:
        matched = pattern.fullmatch(name)
        if matched:
            return NodeFamily(
                family.group, name, family.kind, family.help.replace("{}", matched[1]), family.labels
            )
    raise KeyError(name)
