"""Groups ``tcp`` and ``udp``: sockets by state, listen queues, drops, by sock_diag in the namespace.

``/proc/PID/net/tcp`` says the same for 2 ms of the kernel's time. Formats: linux/inet_diag.h and
linux/sock_diag.h. Names and label values are cAdvisor's, but for the listen queues, which are ours.
"""

from __future__ import annotations

import errno
import logging
import socket
import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache

from collector.lanes.board import Reading
from collector.lanes.inside import Dump, Take, inside, read_file, read_sockstat
from collector.lanes.round_trips import INFO, Connection, connection, readings_of
from collector.netlink_wire import attribute
from collector.sockstat import parse_sockstat, tcp_in_use
from collector.target import Target

__all__ = [
    "MAX_PORTS",
    "TCP_STATES",
    "UDP_STATES",
    "TcpGroup",
    "UdpGroup",
    "parse_in_use",
    "parse_tcp_table",
    "parse_udp_table",
]

logger = logging.getLogger(__name__)

#: By the kernel's numbers from 1 (include/net/tcp_states.h), as cAdvisor writes them.
TCP_STATES = (
    "established",
    "synsent",
    "synrecv",
    "finwait1",
    "finwait2",
    "timewait",
    "close",
    "closewait",
    "lastack",
    "listen",
    "closing",
)
UDP_STATES = ("listen", "dropped", "rxqueued", "txqueued")

#: Listening ports of one container that get series, the lowest ones.
MAX_PORTS = 32

_SOCK_DIAG = 4  # NETLINK_SOCK_DIAG
_TCPDIAG_GETSOCK, _SOCK_DIAG_BY_FAMILY = 18, 20
_ESTABLISHED, _SYN_RECV, _LISTEN, _NEW_SYN_RECV = 1, 3, 10, 12
_ALL = 0xFFF  # every state of a connection; bit 13, bound but neither connected nor listening, is left out
_SKMEMINFO, _DROPS = 7, 8
_QUEUES = struct.Struct("=II")
_QUEUES_AT = 56  # inet_diag_msg: 4 bytes, inet_diag_sockid 48, expires 4, then rqueue and wqueue
_MESSAGE = 72
#: A kernel without inet_diag, tcp_diag or udp_diag, and no module of it to be loaded.
_NOT_THERE = frozenset({errno.ENOENT, errno.EINVAL, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT})
_TCP_TABLES: Mapping[int, str] = {socket.AF_INET: "net/tcp", socket.AF_INET6: "net/tcp6"}
_UDP_TABLES: Mapping[int, str] = {socket.AF_INET: "net/udp", socket.AF_INET6: "net/udp6"}

_TCP_KEYS = {
    family: tuple((name, (("tcp_state", state),)) for state in TCP_STATES)
    for family, name in (
        (socket.AF_INET, "container_network_tcp_usage_total"),
        (socket.AF_INET6, "container_network_tcp6_usage_total"),
    )
}
#: What a namespace without TCP sockets shows.
_NO_TCP = tuple(Reading(*key, 0) for keys in _TCP_KEYS.values() for key in keys)
_UDP_NAMES = {
    socket.AF_INET: "container_network_udp_usage_total",
    socket.AF_INET6: "container_network_udp6_usage_total",
}
_UDP_KEYS = {
    family: tuple((name, (("udp_state", state),)) for state in UDP_STATES)
    for family, name in _UDP_NAMES.items()
}

#: What a namespace without UDP sockets shows.
_NO_UDP = tuple(Reading(*key, 0) for keys in _UDP_KEYS.values() for key in keys)


@lru_cache(maxsize=64)  # containers that rest have the same lines
def parse_in_use(sockstat: bytes, sockstat6: bytes) -> tuple[int, int, int]:
    """From ``/proc/net/sockstat`` and ``sockstat6``: TCP sockets (those in TIME_WAIT too), UDP sockets over
    IPv4, UDP sockets over IPv6, of the namespace. Raises ValueError where the lines are not there.
    """
    found = parse_sockstat(sockstat + sockstat6)
    if "TCP" not in found or "UDP" not in found:
        raise ValueError(f"sockstat {sockstat[:80]!r}: expected lines 'TCP: inuse …' and 'UDP: inuse …'")
    return tcp_in_use(found), found["UDP"].get("inuse", 0), found.get("UDP6", {}).get("inuse", 0)


def in_use(target: Target) -> tuple[int, int, int]:
    """``parse_in_use`` of a container. Raises OSError, ValueError."""
    return parse_in_use(*read_sockstat(target))


class TcpGroup:
    """TCP sockets of every namespace by state, how full its listen queues are, how its connections fare."""

    name = "tcp"

    def __init__(self, seconds: float = 30.0) -> None:
        self.seconds = seconds
        self.cut = 0  #: listening ports and services left out, over the limits, summed over readings
        self._dump = Dump(_SOCK_DIAG)
        self._missing = False  # a kernel without inet_diag: its table then, and nothing of listen queues
        # The older request: it walks the kernel's table once for both families, the newer one for each.
        self._request = bytes((0, 0, 0, 1 << (INFO - 1))) + bytes(48) + struct.pack("=II", _ALL, 0)

    def read(self, target: Target) -> Sequence[Reading]:
        """Raise OSError, ValueError."""
        if not target.counts_network:
            return ()
        if not in_use(target)[
            0
        ]:  # the walk costs a quarter of a millisecond, which most would spend for nothing
            return _NO_TCP
        counts: dict[int, list[int]] = {socket.AF_INET: [0] * 13, socket.AF_INET6: [0] * 13}
        ports: dict[int, tuple[int, int]] = {}
        connections: list[Connection] = []

        def take(data: memoryview, start: int, end: int) -> None:
            state = data[start + 1]
            counts[data[start]][state] += 1
            if state == _ESTABLISHED:
                if (found := connection(data, start, end)) is not None:
                    connections.append(found)
            elif state == _LISTEN:
                port = data[start + 4] << 8 | data[start + 5]
                queue = _QUEUES.unpack_from(data, start + _QUEUES_AT)
                if port not in ports or _fuller(queue, ports[port]):
                    ports[port] = queue

        if not self._missing:
            self._missing = not _asked(self._dump, target, _TCPDIAG_GETSOCK, self._request, take)
        if self._missing:
            for family, name in _TCP_TABLES.items():
                counts[family] = parse_tcp_table(read_table(target, name))
        readings = []
        for family, keys in _TCP_KEYS.items():
            states = counts[family]
            states[_SYN_RECV] += states[_NEW_SYN_RECV]
            readings += [Reading(*key, states[number]) for number, key in enumerate(keys, 1)]
        services, cut = readings_of(connections, ports)
        self.cut += cut
        return readings + self._queues(ports) + services

    def _queues(self, ports: dict[int, tuple[int, int]]) -> list[Reading]:
        shown = sorted(ports)[:MAX_PORTS]
        self.cut += len(ports) - len(shown)
        readings = []
        for port in shown:
            labels = (("port", str(port)),)
            length, limit = ports[port]
            readings.append(Reading("container_network_listen_queue_length", labels, length))
            readings.append(Reading("container_network_listen_queue_limit", labels, limit))
        return readings


class UdpGroup:
    """UDP sockets of every namespace, what they have queued and what they dropped."""

    name = "udp"

    def __init__(self, seconds: float = 30.0) -> None:
        self.seconds = seconds
        self._dump = Dump(_SOCK_DIAG)
        self._missing = False  # a kernel without udp_diag

    def read(self, target: Target) -> Sequence[Reading]:
        """Raise OSError, ValueError."""
        if not target.counts_network:
            return ()
        _, four, six = in_use(target)
        if not four and not six:
            return _NO_UDP
        readings: list[Reading] = []
        for family, sockets in ((socket.AF_INET, four), (socket.AF_INET6, six)):
            sums = self._sums(target, family) if sockets else (0, 0, 0, 0)
            readings += [Reading(*key, value) for key, value in zip(_UDP_KEYS[family], sums, strict=True)]
        return readings

    def _sums(self, target: Target, family: int) -> tuple[int, int, int, int]:
        if self._missing:
            return parse_udp_table(read_table(target, _UDP_TABLES[family]))
        sums = [0, 0, 0, 0]

        def take(data: memoryview, start: int, end: int) -> None:
            received, sent = _QUEUES.unpack_from(data, start + _QUEUES_AT)
            sums[0] += 1
            sums[1] += _drops(data, start + _MESSAGE, end)
            sums[2] += received
            sums[3] += sent

        request = struct.pack("=BBBBI", family, socket.IPPROTO_UDP, 1 << (_SKMEMINFO - 1), 0, _ALL)
        if _asked(self._dump, target, _SOCK_DIAG_BY_FAMILY, request + bytes(48), take):
            return sums[0], sums[1], sums[2], sums[3]
        self._missing = True
        return self._sums(target, family)


def _asked(dump: Dump, target: Target, kind: int, request: bytes, take: Take) -> bool:
    """Ask in the container's namespace; false where the kernel has nobody to answer. Raises OSError."""
    with inside(target):
        try:
            dump.ask(kind, request, take)
        except OSError as error:
            if error.errno not in _NOT_THERE:
                raise
            logger.info("the kernel does not tell of its sockets (%s): reading /proc/PID/net instead", error)
            return False
    return True


def read_table(target: Target, name: str) -> bytes:
    """``net/tcp`` and its like; empty for IPv6 where there is none. Raises OSError."""
    try:
        return read_file(target, name)
    except FileNotFoundError:
        if not name.endswith("6"):
            raise
        return b""


def parse_tcp_table(data: bytes) -> list[int]:
    """``/proc/net/tcp``: sockets by the kernel's number of their state.

    Raises ValueError on a line without a state.
    """
    counts = [0] * 13
    for line in data.split(b"\n")[1:-1]:
        words = line.split(None, 4)
        if len(words) < 5 or not 0 < int(words[3], 16) < len(counts):
            raise ValueError(f"net/tcp line {line[:60]!r}: expected a state in the fourth column")
        counts[int(words[3], 16)] += 1
    return counts


def parse_udp_table(data: bytes) -> tuple[int, int, int, int]:
    """``/proc/net/udp``: sockets, datagrams dropped, bytes received and not read, bytes being sent.

    cAdvisor reads the two queues the other way round. Raises ValueError on a line without 13 columns.
    """
    sockets = drops = received = sent = 0
    for line in data.split(b"\n")[1:-1]:
        words = line.split()
        if len(words) < 13:
            raise ValueError(f"net/udp line {line[:60]!r}: expected 13 columns")
        send, _, receive = words[4].partition(b":")
        sockets += 1
        drops += int(words[12])
        received += int(receive, 16)
        sent += int(send, 16)
    return sockets, drops, received, sent


def _drops(data: memoryview, offset: int, end: int) -> int:
    """Datagrams dropped for want of room, from the socket's memory information."""
    found = attribute(data, offset, end, _SKMEMINFO)
    if found is None or len(found) < 4 * (_DROPS + 1):
        return 0
    dropped: int = struct.unpack_from("=I", found, 4 * _DROPS)[0]
    return dropped


def _fuller(queue: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether a listen queue is nearer to its limit; of several sockets at a port the fullest is shown."""
    return queue[0] * max(other[1], 1) > other[0] * max(queue[1], 1)
