"""Groups ``netstat``, ``advtcp`` and ``sockstat``: the protocol counters of every network namespace.

``netstat`` has node_exporter's names and the fields it exports by default, ``advtcp`` cAdvisor's one family.
Source of the formats: the kernel's Documentation/networking/snmp_counter.rst and proc(5).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any

from collector.lanes.board import Key, Reading
from collector.lanes.inside import read_file, read_sockstat
from collector.sockstat import parse_sockstat
from collector.target import Target

__all__ = ["ADVANCED_TCP", "FIELDS", "AdvancedTcpGroup", "NetstatGroup", "SockstatGroup", "field_of"]

#: What node_exporter's netstat collector exports unless it is told otherwise (its flag's default).
FIELDS = (
    "Icmp6_InErrors",
    "Icmp6_InMsgs",
    "Icmp6_OutMsgs",
    "Icmp_InErrors",
    "Icmp_InMsgs",
    "Icmp_OutMsgs",
    "Ip6_InOctets",
    "Ip6_OutOctets",
    "IpExt_InOctets",
    "IpExt_OutOctets",
    "Ip_Forwarding",
    "TcpExt_ListenDrops",
    "TcpExt_ListenOverflows",
    "TcpExt_SyncookiesFailed",
    "TcpExt_SyncookiesRecv",
    "TcpExt_SyncookiesSent",
    "TcpExt_TCPOFOQueue",
    "TcpExt_TCPRcvQDrop",
    "TcpExt_TCPSynRetrans",
    "TcpExt_TCPTimeouts",
    "Tcp_ActiveOpens",
    "Tcp_CurrEstab",
    "Tcp_InErrs",
    "Tcp_InSegs",
    "Tcp_OutRsts",
    "Tcp_OutSegs",
    "Tcp_PassiveOpens",
    "Tcp_RetransSegs",
    "Udp6_InDatagrams",
    "Udp6_InErrors",
    "Udp6_NoPorts",
    "Udp6_OutDatagrams",
    "Udp6_RcvbufErrors",
    "Udp6_SndbufErrors",
    "UdpLite6_InErrors",
    "UdpLite_InErrors",
    "Udp_InDatagrams",
    "Udp_InErrors",
    "Udp_NoPorts",
    "Udp_OutDatagrams",
    "Udp_RcvbufErrors",
    "Udp_SndbufErrors",
)

#: The values of cAdvisor's label ``tcp_state``: fields of Tcp and TcpExt in small letters.
_ADVANCED = """
    rtoalgorithm rtomin rtomax maxconn activeopens passiveopens attemptfails estabresets currestab insegs
    outsegs retranssegs inerrs outrsts incsumerrors embryonicrsts syncookiessent syncookiesrecv
    syncookiesfailed prunecalled rcvpruned ofopruned outofwindowicmps lockdroppedicmps tw twrecycled twkilled
    tcptimewaitoverflow tcptimeouts tcpspuriousrtos tcplossprobes tcplossproberecovery tcprenorecoveryfail
    tcpsackrecoveryfail tcprenofailures tcpsackfailures tcplossfailures delayedacks delayedacklocked
    delayedacklost listenoverflows listendrops tcphphits tcppureacks tcphpacks tcprenorecovery tcpsackrecovery
    tcpsackreneging tcpfackreorder tcpsackreorder tcprenoreorder tcptsreorder tcpfullundo tcppartialundo
    tcpdsackundo tcplossundo tcpfastretrans tcpslowstartretrans tcplostretransmit tcpretransfail
    tcprcvcollapsed tcpdsackoldsent tcpdsackofosent tcpdsackrecv tcpdsackoforecv tcpabortondata
    tcpabortonclose tcpabortonmemory tcpabortontimeout tcpabortonlinger tcpabortfailed tcpmemorypressures
    tcpmemorypressureschrono tcpsackdiscard tcpdsackignoredold tcpdsackignorednoundo tcpmd5notfound
    tcpmd5unexpected tcpmd5failure tcpsackshifted tcpsackmerged tcpsackshiftfallback tcpbacklogdrop
    pfmemallocdrop tcpminttldrop tcpdeferacceptdrop ipreversepathfilter tcpreqqfulldocookies tcpreqqfulldrop
    tcpfastopenactive tcpfastopenactivefail tcpfastopenpassive tcpfastopenpassivefail
    tcpfastopenlistenoverflow tcpfastopencookiereqd tcpsynretrans tcporigdatasent pawsactive pawsestab
    """
ADVANCED_TCP = frozenset(_ADVANCED.split())

_SIX = re.compile(rb"(Icmp6|Ip6|Udp6|UdpLite6)(\w+)")


class _Table:
    """Picks fields out of ``net/snmp`` and ``net/netstat``: lines of names, each before a line of values.

    Where the fields are is learnt once for a kernel: by the lines of names, which are then compared whole.
    """

    def __init__(self, key: Callable[[str, str], Key | None]) -> None:
        """``key`` says what a protocol's field is called, or that it is not wanted."""
        self._key = key
        self._learnt: dict[bytes, tuple[bytes, int, tuple[Key, ...], itemgetter[Any]]] = {}
        self._last: dict[
            bytes, tuple[bytes, list[Reading]]
        ] = {}  # by names: containers that rest read the same

    def take(self, data: bytes, into: list[Reading]) -> None:
        """Append a file's readings. Raises ValueError where names and values do not go together."""
        lines = data.split(b"\n")
        for names, values in zip(lines[::2], lines[1::2], strict=False):
            learnt = self._learnt.get(names)
            if learnt is None:
                learnt = self._learnt[names] = self._learn(names)
            protocol, count, keys, pick = learnt
            if not keys:
                continue
            last = self._last.get(names)
            if last is not None and last[0] == values:
                into += last[1]
                continue
            words = values.split()
            if len(words) != count or words[0] != protocol:
                raise ValueError(f"line {values[:60]!r}: expected a number for each of {names[:60]!r}")
            found = [Reading(*key, int(word)) for key, word in zip(keys, pick(words)[2:], strict=True)]
            self._last[names] = values, found
            into += found

    def _learn(self, names: bytes) -> tuple[bytes, int, tuple[Key, ...], itemgetter[Any]]:
        first, *words = names.split() or [b""]
        protocol = first.removesuffix(b":").decode(errors="replace")
        named = [(self._key(protocol, word.decode(errors="replace")), at) for at, word in enumerate(words, 1)]
        found = [(key, at) for key, at in named if key is not None]
        # The first place is named so that one field is a tuple too.
        pick: itemgetter[Any] = itemgetter(0, 0, *(at for _, at in found))
        return first, len(words) + 1, tuple(key for key, _ in found), pick


def field_of(protocol: str, name: str) -> Key | None:
    """The family of a field node_exporter exports."""
    field = f"{protocol}_{name}"
    return (f"container_netstat_{field}", ()) if field in FIELDS else None


def _advanced(protocol: str, name: str) -> Key | None:
    if protocol not in ("Tcp", "TcpExt") or name.lower() not in ADVANCED_TCP:
        return None
    return "container_network_advance_tcp_stats_total", (("tcp_state", name.lower()),)


class NetstatGroup:
    """Retransmits, overflowing listen queues, dropped datagrams and their kind, of every namespace."""

    name = "netstat"

    def __init__(self, seconds: float = 30.0) -> None:
        self.seconds = seconds
        self._table = _Table(field_of)
        self._six_names: list[bytes] = []
        self._six: list[tuple[Key, int]] = []  # what is shown, and where it is among the names

    def read(self, target: Target) -> Sequence[Reading]:
        """Raise OSError, ValueError."""
        if not target.counts_network:
            return ()
        readings: list[Reading] = []
        self._table.take(read_file(target, "net/snmp"), readings)
        self._table.take(read_file(target, "net/netstat"), readings)
        with contextlib.suppress(FileNotFoundError):  # no IPv6
            self._take_six(read_file(target, "net/snmp6"), readings)
        return readings

    def _take_six(self, data: bytes, into: list[Reading]) -> None:
        """``net/snmp6`` has a name and a number a line: ``Udp6InErrors 0``."""
        words = data.split()
        names, values = words[::2], words[1::2]
        if names != self._six_names:
            self._six = _learn_six(names)
            self._six_names = names
        if len(values) != len(names):
            raise ValueError(f"net/snmp6 {data[-60:]!r}: expected a number behind every name")
        into += [Reading(*key, int(values[at])) for key, at in self._six]


def _learn_six(names: Sequence[bytes]) -> list[tuple[Key, int]]:
    shown = []
    for at, name in enumerate(names):
        found = _SIX.fullmatch(name)
        key = field_of(found[1].decode(), found[2].decode()) if found else None
        if key is not None:
            shown.append((key, at))
    return shown


class AdvancedTcpGroup:
    """About a hundred counters of TCP in every namespace, as cAdvisor has them: typed as gauges."""

    name = "advtcp"

    def __init__(self, seconds: float = 30.0) -> None:
        self.seconds = seconds
        self._table = _Table(_advanced)

    def read(self, target: Target) -> Sequence[Reading]:
        """Raise OSError, ValueError."""
        if not target.counts_network:
            return ()
        readings: list[Reading] = []
        self._table.take(read_file(target, "net/snmp"), readings)
        self._table.take(read_file(target, "net/netstat"), readings)
        return readings


#: What is counted in each namespace; orphans, allocated sockets and memory are the whole host's.
_SOCKSTAT = {
    "sockets": ("used",),
    "TCP": ("inuse", "tw"),
    "UDP": ("inuse",),
    "UDPLITE": ("inuse",),
    "RAW": ("inuse",),
    "FRAG": ("inuse", "memory"),
    "TCP6": ("inuse",),
    "UDP6": ("inuse",),
    "UDPLITE6": ("inuse",),
    "RAW6": ("inuse",),
    "FRAG6": ("inuse", "memory"),
}


class SockstatGroup:
    """Sockets in use by protocol, under node_exporter's names."""

    name = "sockstat"

    def __init__(self, seconds: float = 30.0) -> None:
        self.seconds = seconds

    def read(self, target: Target) -> Sequence[Reading]:
        """Raise OSError, ValueError."""
        if not target.counts_network:
            return ()
        return _in_use(*read_sockstat(target))


@lru_cache(maxsize=64)  # containers that rest have the same lines
def _in_use(sockstat: bytes, sockstat6: bytes) -> tuple[Reading, ...]:
    return tuple(
        Reading(f"container_sockstat_{protocol}_{name}", (), value)
        for protocol, fields in parse_sockstat(sockstat + sockstat6).items()
        for name, value in fields.items()
        if name in _SOCKSTAT.get(protocol, ())
    )
