"""Rows of the table of series for what lanes read (``collector/lanes/``): a part of ``families.py``.

Names, types and units are cAdvisor's up to ``BEYOND_SLOW``; those below are ours, named after node_exporter's.
"""

from __future__ import annotations

from exporters.prometheus.family import Family, Kind

__all__ = ["BEYOND_SLOW", "SLOW"]

_COUNTER, _GAUGE = Kind.COUNTER, Kind.GAUGE


def _row(
    group: str, kind: Kind, name: str, text: str, unit: str = "", varies: tuple[str, ...] = ()
) -> Family:
    return Family(name, kind, text, f"lane.{group}", unit, varies=varies)


_SOCKETS = (
    *(
        _row(
            "tcp",
            _GAUGE,
            f"container_network_tcp{six}_usage_total",
            f"TCP sockets over IPv{six or 4} by state, in the container's network namespace.",
            varies=("tcp_state",),
        )
        for six in ("", "6")
    ),
    *(
        _row(
            "udp",
            _GAUGE,
            f"container_network_udp{six}_usage_total",
            f"UDP sockets over IPv{six or 4}: their number, datagrams dropped, bytes queued.",
            varies=("udp_state",),
        )
        for six in ("", "6")
    ),
    _row(
        "advtcp",
        _GAUGE,
        "container_network_advance_tcp_stats_total",
        "Counters of TCP by the kernel's name in small letters.",
        varies=("tcp_state",),
    ),
)

_PROCESS = (
    _row("process", _GAUGE, "container_processes", "Processes."),
    _row("process", _GAUGE, "container_file_descriptors", "Open file descriptors of all processes."),
    _row("process", _GAUGE, "container_sockets", "Open file descriptors that are sockets."),
    _row(
        "process",
        _GAUGE,
        "container_ulimits_soft",
        "Soft limit of the first process, -1 if none.",
        varies=("ulimit",),
    ),
    _row(
        "cpuLoad",
        _GAUGE,
        "container_cpu_load_average_10s",
        "Threads running or ready to run, averaged over ten seconds, in thousandths.",
    ),
    _row(
        "cpuLoad",
        _GAUGE,
        "container_cpu_load_d_average_10s",
        "Threads that wait uninterruptibly, averaged over ten seconds, in thousandths.",
    ),
    _row("cpuLoad", _GAUGE, "container_tasks_state", "Tasks by state.", varies=("state",)),
    _row(
        "sched",
        _COUNTER,
        "container_cpu_schedstat_run_seconds_total",
        "Time the threads have run, those that ended counted in.",
        "s",
    ),
    _row(
        "sched",
        _COUNTER,
        "container_cpu_schedstat_runqueue_seconds_total",
        "Time the threads have waited for a CPU.",
        "s",
    ),
    _row(
        "sched",
        _COUNTER,
        "container_cpu_schedstat_run_periods_total",
        "Times a thread was put on a CPU.",
    ),
)

_MEMORY = (
    _row(
        "memory_numa",
        _GAUGE,
        "container_memory_numa_pages",
        "Pages by NUMA node; v2 counts the container with all below alone.",
        varies=("type", "scope", "node"),
    ),
    _row(
        "hugetlb",
        _GAUGE,
        "container_hugetlb_usage_bytes",
        "Huge pages in use.",
        "B",
        ("pagesize",),
    ),
    _row(
        "hugetlb",
        _GAUGE,
        "container_hugetlb_max_usage_bytes",
        "Highest use of huge pages; v1 alone keeps it.",
        "B",
        ("pagesize",),
    ),
    _row(
        "hugetlb",
        _COUNTER,
        "container_hugetlb_failcnt",
        "Times the limit of huge pages was hit.",
        varies=("pagesize",),
    ),
    _row("perf", _COUNTER, "container_perf_events_total", "Events by perf's name.", varies=("event",)),
    _row(
        "perf",
        _GAUGE,
        "container_perf_events_scaling_ratio",
        "Share of the time in which the event was counted; counts are scaled up by it.",
        varies=("event",),
    ),
    _row(
        "referenced_memory",
        _GAUGE,
        "container_referenced_bytes",
        "Memory the processes have used since the kernel last aged it.",
        "B",
    ),
    _row("cpuset", _GAUGE, "container_memory_migrate", "1 if memory moves with the container's nodes."),
)

SLOW = (*_SOCKETS, *_PROCESS, *_MEMORY)

_LISTEN = (
    _row(
        "tcp",
        _GAUGE,
        "container_network_listen_queue_length",
        "Connections waiting to be accepted at the fullest socket of a listening port.",
        varies=("port",),
    ),
    _row(
        "tcp",
        _GAUGE,
        "container_network_listen_queue_limit",
        "Connections that may wait to be accepted at that socket.",
        varies=("port",),
    ),
)

_SERVICE = ("role", "port")
_ROUND_TRIPS = (
    _row(
        "tcp",
        _GAUGE,
        "container_network_tcp_service_connections",
        "Connections established to a port it listens on, or by it to a port of others.",
        varies=_SERVICE,
    ),
    _row(
        "tcp",
        _GAUGE,
        "container_network_tcp_rtt_seconds",
        "Smoothed round-trip time of a service's connections.",
        "s",
        (*_SERVICE, "quantile"),
    ),
    _row(
        "tcp",
        _GAUGE,
        "container_network_tcp_retransmit_ratio",
        "Share of the segments a connection of the service sent that were sent again.",
        varies=(*_SERVICE, "quantile"),
    ),
)

_COMMANDS = (
    _row(
        "commands",
        _COUNTER,
        "container_command_cpu_seconds_total",
        "CPU time of the processes of a command, as far as they were seen.",
        "s",
        ("command",),
    ),
    _row(
        "commands",
        _GAUGE,
        "container_command_memory_rss_bytes",
        "Memory in use by the processes of a command; what they share counts for each.",
        "B",
        ("command",),
    ),
    _row("commands", _GAUGE, "container_command_processes", "Processes of a command.", varies=("command",)),
)

_CONNTRACK = (
    _row("conntrack", _GAUGE, "container_nf_conntrack_entries", "Connections tracked in the namespace."),
    _row("conntrack", _GAUGE, "container_nf_conntrack_entries_limit", "Connections that can be tracked."),
    _row(
        "conntrack",
        _COUNTER,
        "container_nf_conntrack_stat_drop",
        "Packets dropped because a connection could not be tracked.",
    ),
    _row(
        "conntrack",
        _COUNTER,
        "container_nf_conntrack_stat_early_drop",
        "Tracked connections given up for want of room.",
    ),
    _row(
        "conntrack",
        _COUNTER,
        "container_nf_conntrack_stat_insert_failed",
        "Connections that could not be added to the table.",
    ),
)

#: node_exporter's default fields, and those of them that are no counters.
_NETSTAT = {
    "Icmp6_InErrors": "ICMPv6 messages received with errors.",
    "Icmp6_InMsgs": "ICMPv6 messages received.",
    "Icmp6_OutMsgs": "ICMPv6 messages sent.",
    "Icmp_InErrors": "ICMP messages received with errors.",
    "Icmp_InMsgs": "ICMP messages received.",
    "Icmp_OutMsgs": "ICMP messages sent.",
    "Ip6_InOctets": "Bytes received over IPv6.",
    "Ip6_OutOctets": "Bytes sent over IPv6.",
    "IpExt_InOctets": "Bytes received over IPv4.",
    "IpExt_OutOctets": "Bytes sent over IPv4.",
    "Ip_Forwarding": "1 if packets are forwarded, 2 if not.",
    "TcpExt_ListenDrops": "Connections that a listening socket could not take.",
    "TcpExt_ListenOverflows": "Connections dropped because a listen queue was full.",
    "TcpExt_SyncookiesFailed": "SYN cookies that were wrong.",
    "TcpExt_SyncookiesRecv": "SYN cookies received.",
    "TcpExt_SyncookiesSent": "SYN cookies sent.",
    "TcpExt_TCPOFOQueue": "Segments received out of order.",
    "TcpExt_TCPRcvQDrop": "Segments dropped because a receive queue was full.",
    "TcpExt_TCPSynRetrans": "SYNs sent again.",
    "TcpExt_TCPTimeouts": "Timeouts of TCP.",
    "Tcp_ActiveOpens": "Connections opened from here.",
    "Tcp_CurrEstab": "Connections established now.",
    "Tcp_InErrs": "Segments received with errors.",
    "Tcp_InSegs": "Segments received.",
    "Tcp_OutRsts": "Resets sent.",
    "Tcp_OutSegs": "Segments sent.",
    "Tcp_PassiveOpens": "Connections accepted.",
    "Tcp_RetransSegs": "Segments sent again.",
    "Udp6_InDatagrams": "Datagrams received over IPv6.",
    "Udp6_InErrors": "Datagrams over IPv6 that could not be received.",
    "Udp6_NoPorts": "Datagrams over IPv6 to a port nobody has.",
    "Udp6_OutDatagrams": "Datagrams sent over IPv6.",
    "Udp6_RcvbufErrors": "Datagrams over IPv6 dropped because a receive buffer was full.",
    "Udp6_SndbufErrors": "Datagrams over IPv6 dropped because a send buffer was full.",
    "UdpLite6_InErrors": "UDP-Lite datagrams over IPv6 that could not be received.",
    "UdpLite_InErrors": "UDP-Lite datagrams that could not be received.",
    "Udp_InDatagrams": "Datagrams received.",
    "Udp_InErrors": "Datagrams that could not be received.",
    "Udp_NoPorts": "Datagrams to a port nobody has.",
    "Udp_OutDatagrams": "Datagrams sent.",
    "Udp_RcvbufErrors": "Datagrams dropped because a receive buffer was full.",
    "Udp_SndbufErrors": "Datagrams dropped because a send buffer was full.",
}
_NETSTAT_GAUGES = frozenset({"Ip_Forwarding", "Tcp_CurrEstab"})

_SOCKSTAT = {
    "sockets_used": "Sockets of every kind in the namespace.",
    "TCP_inuse": "TCP sockets over IPv4 in use.",
    "TCP_tw": "TCP sockets in TIME_WAIT, both families.",
    "UDP_inuse": "UDP sockets over IPv4 in use.",
    "UDPLITE_inuse": "UDP-Lite sockets over IPv4 in use.",
    "RAW_inuse": "Raw sockets over IPv4 in use.",
    "FRAG_inuse": "Fragmented IPv4 packets being put together.",
    "FRAG_memory": "Bytes of fragments of IPv4 packets.",
    "TCP6_inuse": "TCP sockets over IPv6 in use.",
    "UDP6_inuse": "UDP sockets over IPv6 in use.",
    "UDPLITE6_inuse": "UDP-Lite sockets over IPv6 in use.",
    "RAW6_inuse": "Raw sockets over IPv6 in use.",
    "FRAG6_inuse": "Fragmented IPv6 packets being put together.",
    "FRAG6_memory": "Bytes of fragments of IPv6 packets.",
}

BEYOND_SLOW = (
    _row("disk", _GAUGE, "container_log_bytes", "Bytes the log takes on disk, rotated files included.", "B"),
    _row(
        "disk",
        _GAUGE,
        "container_volume_bytes",
        "Bytes a volume takes on disk; every container that has it shows all of it.",
        "B",
        ("volume",),
    ),
    *_LISTEN,
    *_ROUND_TRIPS,
    *_COMMANDS,
    *_CONNTRACK,
    *(
        _row(
            "netstat",
            _GAUGE if field in _NETSTAT_GAUGES else _COUNTER,
            f"container_netstat_{field}",
            text,
            "B" if field.endswith("Octets") else "",
        )
        for field, text in _NETSTAT.items()
    ),
    *(
        _row(
            "sockstat",
            _GAUGE,
            f"container_sockstat_{field}",
            text,
            "B" if field.endswith("memory") else "",
        )
        for field, text in _SOCKSTAT.items()
    ),
)
