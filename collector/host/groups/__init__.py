"""Every group of host counters there is, by the name of Node Exporter's collector."""

from __future__ import annotations

from collector.host.group import Factory, plain
from collector.host.groups.clock import time, timex
from collector.host.groups.cpu import cpu, cpufreq, schedstat
from collector.host.groups.diskstats import diskstats
from collector.host.groups.filesystem import filesystem
from collector.host.groups.interfaces import bonding
from collector.host.groups.kernel import (
    dmi,
    entropy,
    filefd,
    loadavg,
    os_release,
    pressure,
    selinux,
    stat,
    uname,
)
from collector.host.groups.linked import netclass, netdev
from collector.host.groups.memory import meminfo, vmstat
from collector.host.groups.network import arp, conntrack, netstat, sockstat, softnet, udp_queues
from collector.host.groups.raid import edac, mdadm
from collector.host.groups.sensors import hwmon, powersupplyclass, thermal_zone

__all__ = ["BUILTIN"]

BUILTIN: dict[str, Factory] = {
    "arp": plain(arp),
    "bonding": plain(bonding),
    "conntrack": plain(conntrack),
    "cpu": cpu,
    "cpufreq": plain(cpufreq),
    "diskstats": plain(diskstats),
    "dmi": plain(dmi),
    "edac": plain(edac),
    "entropy": plain(entropy),
    "filefd": plain(filefd),
    "filesystem": filesystem,
    "hwmon": plain(hwmon),
    "loadavg": plain(loadavg),
    "mdadm": plain(mdadm),
    "meminfo": plain(meminfo),
    "netclass": netclass,
    "netdev": netdev,
    "netstat": plain(netstat),
    "os": plain(os_release),
    "powersupplyclass": plain(powersupplyclass),
    "pressure": plain(pressure),
    "schedstat": plain(schedstat),
    "selinux": plain(selinux),
    "sockstat": plain(sockstat),
    "softnet": plain(softnet),
    "stat": plain(stat),
    "thermal_zone": plain(thermal_zone),
    "time": plain(time),
    "timex": plain(timex),
    "udp_queues": plain(udp_queues),
    "uname": plain(uname),
    "vmstat": plain(vmstat),
}
