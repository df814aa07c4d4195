"""The host's connection tracking: who a translated address really is, and UDP flows, which sockets do not show.

Read from ``/proc/net/nf_conntrack``, or by netlink where the kernel has no such file. Formats:
linux/netfilter/nfnetlink_conntrack.h and what the file shows.
"""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from collector.netlink_wire import DONE, attribute, messages, open_socket, request
from collector.processes.sock_diag import text_address

__all__ = ["Flow", "Nat", "parse_file", "parse_flows", "read_flows"]

#: So much of the table is taken apart at most, about 40,000 connections; the rest is counted.
MAX_BYTES = 8 * 1024 * 1024

_TUPLE = rb"src=(\S+) dst=(\S+) sport=(\d+) dport=(\d+)(?: packets=\d+ bytes=(\d+))?"
_LINE = re.compile(rb"^ipv[46] +\d+ (tcp|udp) .*?" + _TUPLE + rb".*? " + _TUPLE, re.MULTILINE)

_NETFILTER = 12
_IPCTNL_MSG_CT_GET = 1 << 8 | 1


class Flow(NamedTuple):
    """One tracked connection: as its client sent it, and as the answers come back."""

    protocol: str
    source: str
    source_port: int
    destination: str
    destination_port: int
    reply_source: str  #: the real server, where the destination was translated
    reply_source_port: int
    reply_destination: str  #: whom the server takes the client for
    reply_destination_port: int
    bytes_sent: int | None  #: by the client; None without net.netfilter.nf_conntrack_acct
    bytes_received: int | None

    @property
    def translated(self) -> bool:
        """Whether either end sees another address than the other end has."""
        return (self.source, self.source_port, self.destination, self.destination_port) != (
            self.reply_destination,
            self.reply_destination_port,
            self.reply_source,
            self.reply_source_port,
        )


class Nat:
    """Answers who is really at the other end of a socket."""

    def __init__(self, flows: Iterable[Flow]) -> None:
        self._ends: dict[tuple[str, str, int, str, int], tuple[str, int]] = {}
        for flow in flows:
            if flow.translated:
                client, server = flow[1:3], flow[5:7]
                self._ends[flow.protocol, *client, *flow[3:5]] = server
                self._ends[flow.protocol, *server, *flow[7:9]] = client

    def remote(
        self, protocol: str, local: str, local_port: int, remote: str, remote_port: int
    ) -> tuple[str, int]:
        """The true address and port of a socket's remote end."""
        return self._ends.get((protocol, local, local_port, remote, remote_port), (remote, remote_port))


def read_flows(proc: Path) -> tuple[list[Flow], int]:
    """The host's tracked connections and how many bytes of the table were left unread.

    Those only that tell what sockets do not: translated ones, and all of UDP.

    Raises OSError where neither the file nor netlink tells (no conntrack in the kernel, not allowed).
    """
    try:
        with open(proc / "net/nf_conntrack", "rb", buffering=0) as table:
            chunks = []
            size = 0
            while size < MAX_BYTES and (chunk := table.read(1 << 16)):
                chunks.append(chunk)
                size += len(chunk)
            left = 0
            while size >= MAX_BYTES and (chunk := table.read(1 << 16)):
                left += len(chunk)
            return parse_file(b"".join(chunks)), left
    except FileNotFoundError:
        return _ask()


def _ask() -> tuple[list[Flow], int]:
    """By netlink. What is too much is taken from the kernel all the same: it tells how much it was."""
    flows: list[Flow] = []
    size = left = 0
    with open_socket(_NETFILTER) as opened:
        opened.send(request(_IPCTNL_MSG_CT_GET, struct.pack("=BBH", socket.AF_UNSPEC, 0, 0)))
        done = False
        while not done:
            data = opened.recv(1 << 18)
            if size < MAX_BYTES:
                size += len(data)
                done = parse_flows(data, flows)
            else:
                # The message that ends a dump comes alone or last, and is no connection.
                done = any(kind == DONE for kind, _, _ in messages(data))
                left += 0 if done else len(data)
    return flows, left


def parse_file(data: bytes) -> list[Flow]:
    """``/proc/net/nf_conntrack``: its UDP lines, and those of translated TCP connections."""
    return [
        _flow(match)
        for match in _LINE.findall(data)
        if match[0] == b"udp" or match[1:5] != (match[7], match[6], match[9], match[8])
    ]


def _flow(match: tuple[bytes, ...]) -> Flow:
    protocol, source, destination, sport, dport, sent, source2, destination2, sport2, dport2, received = match
    return Flow(
        protocol.decode(),
        _compressed(source),
        int(sport),
        _compressed(destination),
        int(dport),
        _compressed(source2),
        int(sport2),
        _compressed(destination2),
        int(dport2),
        int(sent) if sent else None,
        int(received) if received else None,
    )


def _compressed(address: bytes) -> str:
    """The file writes IPv6 with all its zeros."""
    text = address.decode()
    return socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, text)) if ":" in text else text


def parse_flows(data: bytes, into: list[Flow]) -> bool:
    """Take one datagram of a conntrack dump; true when it was the last. Raises OSError on an error.

    Kept are the connections ``read_flows`` tells of.
    """
    for kind, offset, end in messages(data):
        if kind == DONE:
            return True
        body = data[offset + 20 : end]
        original, reply = (_ends(attribute(body, 0, len(body), number)) for number in (1, 2))
        if original is not None and reply is not None:
            counts = [_count(attribute(body, 0, len(body), number)) for number in (9, 10)]
            flow = Flow(*original, *reply[1:], *counts)
            if flow.translated or flow.protocol == "udp":
                into.append(flow)
    return False


def _ends(data: bytes | None) -> tuple[str, str, int, str, int] | None:
    """CTA_TUPLE_…: protocol, source, its port, destination, its port; None for others than TCP and UDP."""
    if data is None:
        return None
    ip, proto = (attribute(data, 0, len(data), number) or b"" for number in (1, 2))
    protocol = {b"\x06": "tcp", b"\x11": "udp"}.get(attribute(proto, 0, len(proto), 1) or b"")
    sport, dport = (attribute(proto, 0, len(proto), number) for number in (2, 3))
    family, first = (socket.AF_INET, 1) if attribute(ip, 0, len(ip), 1) else (socket.AF_INET6, 3)
    source, destination = (attribute(ip, 0, len(ip), number) for number in (first, first + 1))
    if protocol is None or sport is None or dport is None or source is None or destination is None:
        return None
    return (
        protocol,
        text_address(family, source),
        int.from_bytes(sport, "big"),
        text_address(family, destination),
        int.from_bytes(dport, "big"),
    )


def _count(data: bytes | None) -> int | None:
    found = attribute(data, 0, len(data), 2) if data else None
    return int.from_bytes(found, "big") if found else None
