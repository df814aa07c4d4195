"""Sockets of a network namespace by the kernel's own list: sock_diag(7), with tcp_info's byte counts.

They are those of the calling thread's namespace (``namespaces.py`` enters one for the length of a reading).
Whose sockets they are is worked out in ``connections.py``.
Formats: linux/inet_diag.h, linux/unix_diag.h, linux/tcp.h, linux/rtnetlink.h.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

from collector.netlink_wire import DONE, attribute, messages, open_socket
from collector.netlink_wire import request as message

__all__ = [
    "LISTEN",
    "STATES",
    "TIME_WAIT",
    "InetSocket",
    "UnixSocket",
    "addresses",
    "dump",
    "inet_sockets",
    "parse_inet",
    "parse_unix",
    "tcp_sockets",
    "text_address",
    "unix_sockets",
]

#: include/net/tcp_states.h
STATES = (
    "UNKNOWN",
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RECV",
    "FIN_WAIT1",
    "FIN_WAIT2",
    "TIME_WAIT",
    "CLOSE",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "CLOSING",
    "NEW_SYN_RECV",
)
TIME_WAIT, LISTEN = "TIME_WAIT", "LISTEN"

_SOCK_DIAG = 4
_INET = struct.Struct("=BBBB2s2s16s16sI8sIIIII")  # inet_diag_msg
_ADDRESS = struct.Struct("=BBBBI")  # ifaddrmsg
_TCPDIAG_GETSOCK, _SOCK_DIAG_BY_FAMILY, _RTM_NEWADDR, _RTM_GETADDR = 18, 20, 20, 22
_DIAG_INFO = 2
_BYTES_ACKED = 120  # offset in tcp_info of bytes_acked and, behind it, bytes_received
_BYTES_SENT = 200  # and of bytes_sent and bytes_retrans
_TCP, _UDP = 6, 17
_ALL_STATES = 0xFFFFFFFF

_T = TypeVar("_T")


class InetSocket(NamedTuple):
    """One TCP or UDP socket. Addresses are as text; IPv4 inside IPv6 is shown as IPv4."""

    protocol: str  #: ``tcp`` or ``udp``
    state: str  #: one of ``STATES``; for udp ESTABLISHED means connected, CLOSE not
    local: str
    local_port: int
    remote: str
    remote_port: int
    receive_queue: int  #: bytes unread; for LISTEN connections not yet accepted
    send_queue: int  #: bytes unacknowledged; for LISTEN the longest the queue may get
    uid: int
    inode: int  #: what ``/proc/PID/fd`` shows; 0 for one no process has any more
    bytes_sent: int | None  #: payload without retransmissions; tcp only
    bytes_received: int | None


class UnixSocket(NamedTuple):
    """One unix domain socket."""

    inode: int
    kind: str  #: ``stream``, ``dgram`` or ``seqpacket``
    state: str
    path: str  #: "" for an unnamed one, ``@…`` for an abstract one
    peer_inode: int


def tcp_sockets() -> list[InetSocket]:
    """TCP sockets of both families of this thread's namespace, in one dump. Raises OSError."""
    # The older request: it walks the kernel's table once for both families, the newer one once for each.
    request = struct.pack("=BBBB", 0, 0, 0, 1 << (_DIAG_INFO - 1)) + bytes(48) + struct.pack("=II", 0xFFF, 0)
    return dump(_TCPDIAG_GETSOCK, request, lambda data, into: parse_inet(data, "tcp", into))


def inet_sockets() -> list[InetSocket]:
    """TCP and UDP sockets of this thread's namespace. Raises OSError."""
    found = tcp_sockets()
    for family in (socket.AF_INET, socket.AF_INET6):
        request = struct.pack("=BBBBI", family, _UDP, 0, 0, 0xFFF) + bytes(48)
        try:
            found += dump(_SOCK_DIAG_BY_FAMILY, request, lambda data, into: parse_inet(data, "udp", into))
        except FileNotFoundError:  # a kernel without udp_diag
            found += _udp_table(
                Path("/proc/thread-self/net") / ("udp6" if family == socket.AF_INET6 else "udp")
            )
    return found


def unix_sockets() -> list[UnixSocket]:
    """Unix domain sockets of this thread's namespace. Raises OSError."""
    show_name, show_peer = 0x1, 0x4
    request = struct.pack("=BBHIIIII", socket.AF_UNIX, 0, 0, _ALL_STATES, 0, show_name | show_peer, 0, 0)
    return dump(_SOCK_DIAG_BY_FAMILY, request, parse_unix)


def addresses() -> list[str]:
    """Addresses of this thread's namespace, loopback's left out. Raises OSError."""
    return dump(_RTM_GETADDR, bytes(8), _parse_addresses, socket.NETLINK_ROUTE)


def parse_inet(data: bytes, protocol: str, into: list[InetSocket]) -> bool:
    """Take one datagram of a dump; true when it was the last. Raises OSError on an error."""
    for kind, offset, end in messages(data):
        if kind == DONE:
            return True
        body = offset + 16
        fields = _INET.unpack_from(data, body)
        family, state, sport, dport, source, destination = (*fields[:2], *fields[4:8])
        sent = received = None
        if protocol == "tcp":
            info = attribute(data, body + _INET.size, end, _DIAG_INFO)
            if info is not None and len(info) >= _BYTES_ACKED + 16:
                sent, received = struct.unpack_from("=QQ", info, _BYTES_ACKED)
                if len(info) >= _BYTES_SENT + 16:  # Linux 4.19: without the one that a SYN counts as
                    total, again = struct.unpack_from("=QQ", info, _BYTES_SENT)
                    sent = total - again
        into.append(
            InetSocket(
                protocol,
                STATES[state] if state < len(STATES) else str(state),
                text_address(family, source),
                int.from_bytes(sport, "big"),
                text_address(family, destination),
                int.from_bytes(dport, "big"),
                fields[11],
                fields[12],
                fields[13],
                fields[14],
                sent,
                received,
            )
        )
    return False


def parse_unix(data: bytes, into: list[UnixSocket]) -> bool:
    """Take one datagram of a dump; true when it was the last. Raises OSError on an error."""
    kinds = {1: "stream", 2: "dgram", 5: "seqpacket"}
    for kind, offset, end in messages(data):
        if kind == DONE:
            return True
        _family, sort, state, _pad, inode = struct.unpack_from("=BBBBI", data, offset + 16)
        name = attribute(data, offset + 32, end, 0) or b""
        peer = attribute(data, offset + 32, end, 2)
        into.append(
            UnixSocket(
                inode,
                kinds.get(sort, str(sort)),
                STATES[state] if state < len(STATES) else str(state),
                ("@" + name[1:].decode(errors="replace") if name[:1] == b"\0" else _text(name)),
                struct.unpack("=I", peer)[0] if peer else 0,
            )
        )
    return False


def dump(
    kind: int, request: bytes, take: Callable[[bytes, list[_T]], bool], protocol: int = _SOCK_DIAG
) -> list[_T]:
    """One netlink dump, taken apart by ``take``. Raises OSError."""
    found: list[_T] = []
    with open_socket(protocol) as opened:
        opened.send(message(kind, request))
        while not take(opened.recv(1 << 18), found):
            pass
    return found


def _parse_addresses(data: bytes, into: list[str]) -> bool:
    for kind, offset, end in messages(data):
        if kind == DONE:
            return True
        if kind == _RTM_NEWADDR:
            family = _ADDRESS.unpack_from(data, offset + 16)[0]
            # IFA_LOCAL is one's own where IFA_ADDRESS is the other end's.
            found = attribute(data, offset + 24, end, 2) or attribute(data, offset + 24, end, 1)
            if found is not None:
                text = text_address(family, found)
                if not ipaddress.ip_address(text).is_loopback:
                    into.append(text)
    return False


def text_address(family: int, data: bytes) -> str:
    """An address as text; IPv4 inside IPv6 as IPv4."""
    if family == socket.AF_INET:
        return socket.inet_ntop(socket.AF_INET, data[:4])
    if data.startswith(b"\0\0\0\0\0\0\0\0\0\0\xff\xff"):
        return socket.inet_ntop(socket.AF_INET, data[12:16])
    return socket.inet_ntop(socket.AF_INET6, data[:16])


def _text(name: bytes) -> str:
    return name.rstrip(b"\0").decode(errors="replace")


def _udp_table(path: Path) -> list[InetSocket]:
    """``/proc/net/udp``: the same at a higher price, for kernels without udp_diag."""
    found = []
    for line in path.read_bytes().splitlines()[1:]:
        words = line.decode().split()
        (local, sport), (remote, dport) = (word.split(":") for word in words[1:3])
        sending, receiving = words[4].split(":")
        found.append(
            InetSocket(
                "udp",
                STATES[int(words[3], 16)],
                _hexadecimal(local),
                int(sport, 16),
                _hexadecimal(remote),
                int(dport, 16),
                int(receiving, 16),
                int(sending, 16),
                int(words[7]),
                int(words[9]),
                None,
                None,
            )
        )
    return found


def _hexadecimal(text: str) -> str:
    """An address as ``/proc/net`` writes it: 32-bit words in the machine's order."""
    words = [struct.pack("=I", int(text[start : start + 8], 16)) for start in range(0, len(text), 8)]
    return text_address(socket.AF_INET if len(words) == 1 else socket.AF_INET6, b"".join(words))
