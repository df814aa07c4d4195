"""Protocol counters, sockets, packet queues, connection tracking and neighbours of the host's namespace.

Sources of the formats: the kernel's net/ipv4/proc.c, net/core/net-procfs.c, nf_conntrack_standalone.c,
proc_pid_net(5).
"""

from __future__ import annotations

import contextlib
import os
import re
from collections import Counter
from functools import cache

from collector.host.group import Absent, Files, Readings, Series, one
from collector.sockstat import parse_sockstat

__all__ = [
    "arp",
    "conntrack",
    "netstat",
    "parse_arp",
    "parse_conntrack",
    "parse_netstat",
    "parse_snmp6",
    "parse_softnet",
    "parse_udp_queues",
    "sockstat",
    "softnet",
    "udp_queues",
]

_PAGE = os.sysconf("SC_PAGE_SIZE")
#: Node Exporter's default choice of fields.
_NETSTAT = re.compile(
    r"(.*_(InErrors|InErrs)|Ip_Forwarding|Ip(6|Ext)_(InOctets|OutOctets)|Icmp6?_(InMsgs|OutMsgs)"
    r"|TcpExt_(Listen.*|Syncookies.*|TCPSynRetrans|TCPTimeouts|TCPOFOQueue|TCPRcvQDrop)"
    r"|Tcp_(ActiveOpens|InSegs|OutSegs|OutRsts|PassiveOpens|RetransSegs|CurrEstab)"
    r"|Udp6?_(InDatagrams|OutDatagrams|NoPorts|RcvbufErrors|SndbufErrors))"
)
_TRACKED = ("found", "invalid", "ignore", "insert", "insert_failed", "drop", "early_drop", "search_restart")
#: A header line of ``netstat`` or ``snmp`` to the numbers of its fields that count, and their families.
_chosen: dict[bytes, tuple[tuple[int, str], ...]] = {}


def parse_netstat(data: bytes) -> Readings:
    """``/proc/net/netstat`` and ``snmp``: pairs of lines, names and numbers. Raises ValueError on other ones."""
    readings: Readings = {}
    lines = data.splitlines()
    for names, numbers in zip(lines[::2], lines[1::2], strict=True):
        chosen = _chosen.get(names)
        if chosen is None:
            protocol, *fields = names.decode().replace(":", " ").split()
            chosen = _chosen[names] = tuple(
                (number, f"node_netstat_{protocol}_{field}")
                for number, field in enumerate(fields, 1)
                if _NETSTAT.fullmatch(f"{protocol}_{field}")
            )
        words = numbers.split() if chosen else []
        for number, family in chosen:
            readings[family] = one(int(words[number]))
    return readings


def parse_snmp6(data: bytes) -> Readings:
    """``/proc/net/snmp6``: a name, which begins with its protocol, and a number in each line."""
    readings: Readings = {}
    for line in data.splitlines():
        name, _, value = line.partition(b" ")
        family = _snmp6_family(name.strip())
        if family:
            readings[family] = one(int(value))
    return readings


@cache
def _snmp6_family(name: bytes) -> str:
    """The family of a field of ``/proc/net/snmp6``, "" of one that does not count."""
    protocol, six, field = name.decode().partition("6")
    chosen = six and _NETSTAT.fullmatch(f"{protocol}6_{field}")
    return f"node_netstat_{protocol}6_{field}" if chosen else ""


def netstat(files: Files) -> Readings:
    """Node Exporter's ``netstat`` with its default choice of fields."""
    readings = parse_netstat(files.read(f"{files.net}/netstat"))
    readings |= parse_netstat(files.read(f"{files.net}/snmp"))
    with contextlib.suppress(FileNotFoundError):  # no IPv6 here
        readings |= parse_snmp6(files.read(f"{files.net}/snmp6"))
    return readings


def sockstat(files: Files) -> Readings:
    """Node Exporter's ``sockstat``; the memory of TCP and UDP, which is in pages, in bytes too."""
    data = files.required(f"{files.net}/sockstat")
    with contextlib.suppress(FileNotFoundError):  # no IPv6 here
        data += files.read(f"{files.net}/sockstat6")
    readings: Readings = {}
    for protocol, fields in parse_sockstat(data).items():
        for field, value in fields.items():
            readings[f"node_sockstat_{protocol}_{field}"] = one(value)
            if field == "mem":
                readings[f"node_sockstat_{protocol}_mem_bytes"] = one(value * _PAGE)
    return readings


def parse_softnet(data: bytes) -> Readings:
    """``/proc/net/softnet_stat``: hexadecimal columns, a line a CPU that is online, its number in the 13th."""
    processed: Series = []
    dropped: Series = []
    squeezed: Series = []
    for number, line in enumerate(data.splitlines()):
        words = line.split()
        label = (str(int(words[12], 16) if len(words) > 12 else number),)
        processed.append((label, int(words[0], 16)))
        dropped.append((label, int(words[1], 16)))
        squeezed.append((label, int(words[2], 16)))
    return {
        "node_softnet_processed_total": processed,
        "node_softnet_dropped_total": dropped,
        "node_softnet_times_squeezed_total": squeezed,
    }


def softnet(files: Files) -> Readings:
    """Node Exporter's ``softnet``."""
    return parse_softnet(files.required(f"{files.net}/softnet_stat"))


def parse_udp_queues(data: bytes) -> tuple[int, int]:
    """Bytes in the transmit and receive queues of all sockets of ``/proc/net/udp``."""
    transmit = receive = 0
    for line in data.splitlines()[1:]:
        sent, _, got = line.split(None, 5)[4].partition(b":")
        transmit += int(sent, 16)
        receive += int(got, 16)
    return transmit, receive


def udp_queues(files: Files) -> Readings:
    """Node Exporter's ``udp_queues``. Raises Absent where there is no UDP."""
    series: Series = []
    for version, name in (("v4", "udp"), ("v6", "udp6")):
        try:
            transmit, receive = parse_udp_queues(files.read(f"{files.net}/{name}", longest_line=512))
        except FileNotFoundError:
            continue
        series += [(("tx", version), transmit), (("rx", version), receive)]
    if not series:
        raise Absent("udp")
    return {"node_udp_queues": series}


def parse_arp(data: bytes) -> Readings:
    """``/proc/net/arp``: entries by interface, its last column."""
    devices = Counter(line.rsplit(None, 1)[-1].decode() for line in data.splitlines()[1:])
    return {"node_arp_entries": [((device,), count) for device, count in devices.items()]}


def arp(files: Files) -> Readings:
    """Node Exporter's ``arp``."""
    return parse_arp(files.required(f"{files.net}/arp"))


def parse_conntrack(data: bytes) -> Readings:
    """``/proc/net/stat/nf_conntrack``: a line of names, then a line of hexadecimal numbers a CPU; their sums."""
    header, *lines = data.decode().splitlines()
    names = header.split()
    rows = [[int(word, 16) for word in line.split()] for line in lines]
    values = {name: sum(row[column] for row in rows) for column, name in enumerate(names)}
    return {f"node_nf_conntrack_stat_{name}": one(values[name]) for name in _TRACKED if name in values}


def conntrack(files: Files) -> Readings:
    """Node Exporter's ``conntrack``. Raises Absent where connections are not tracked."""
    directory = f"{files.proc}/sys/net/netfilter"
    readings = {
        "node_nf_conntrack_entries": one(int(files.required(f"{directory}/nf_conntrack_count"))),
        "node_nf_conntrack_entries_limit": one(int(files.required(f"{directory}/nf_conntrack_max"))),
    }
    with contextlib.suppress(FileNotFoundError):  # a kernel made without the old interface
        readings |= parse_conntrack(files.read(f"{files.net}/stat/nf_conntrack"))
    return readings
