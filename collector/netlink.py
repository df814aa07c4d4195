"""Interface counters of this network namespace in one request, and who is at the other end of a veth.

One RTM_GETSTATS dump costs less than a microsecond an interface, where ``/proc/PID/net/dev`` costs thirty
a container; what a container receives is what the host's end of its veth sent. Only these few
messages are spoken here (linux/rtnetlink.h, linux/if_link.h); everything else on links is pyroute2's.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from collector.namespaces import in_namespace
from collector.netlink_wire import (
    DONE,
    ERROR,
    REQUEST,
    attributes,
    messages,
    open_socket,
    raise_error,
    request,
)

__all__ = ["Counters", "Link", "LinkCounters", "links_of", "parse_links", "parse_stats"]

_RTM_NEWLINK, _RTM_GETLINK, _RTM_GETNSID, _RTM_NEWSTATS, _RTM_GETSTATS = 16, 18, 90, 92, 94
_IFLA_IFNAME, _IFLA_LINK, _IFLA_LINKINFO, _IFLA_LINK_NETNSID = 3, 5, 18, 37
_IFLA_INFO_KIND = 1
_NETNSA_NSID, _NETNSA_FD = 1, 3
_STATS_LINK_64 = 1
#: A message from its header on: header 16, if_stats_msg 12 (the index at 4), attribute header 4, rtnl_link_stats64.
_STATS = struct.Struct("=IH14xI8x4Q")
_LENGTH = struct.Struct("=IH")
_INDEX = struct.Struct("=I")


class Counters(NamedTuple):
    """The first four of an interface's 64-bit counters."""

    rx_packets: int
    tx_packets: int
    rx_bytes: int
    tx_bytes: int


@dataclass(frozen=True, slots=True)
class Link:
    """One interface and its peer."""

    name: str
    index: int
    kind: str  #: ``veth``, ``macvlan``, "" for devices that name none (the loopback)
    peer_index: int  #: 0 where it has no peer
    peer_namespace: int  #: the peer's namespace by this namespace's numbering, -1 for this one


def parse_stats(data: bytes, into: dict[int, Counters]) -> bool:
    """Take one datagram of an RTM_GETSTATS dump; true when it was the last. Raises OSError on an error."""
    offset, end = 0, len(data)
    unpack, made = _STATS.unpack_from, Counters._make
    while offset < end:
        length, kind = _LENGTH.unpack_from(data, offset)
        if kind == _RTM_NEWSTATS:
            _, _, index, *counters = unpack(data, offset)
            into[index] = made(counters)
        elif kind == DONE:
            return True
        elif kind == ERROR:
            raise_error(data, offset)
        offset += (length + 3) & ~3
    return False


def parse_links(data: bytes, into: list[Link]) -> bool:
    """Take one datagram of an RTM_GETLINK dump; true when it was the last. Raises OSError on an error."""
    for kind, offset, end in messages(data):
        if kind == DONE:
            return True
        if kind == _RTM_NEWLINK:
            found = dict(attributes(data, offset + 32, end))
            info = found.get(_IFLA_LINKINFO, b"")
            into.append(
                Link(
                    found.get(_IFLA_IFNAME, b"").rstrip(b"\0").decode(errors="replace"),
                    _INDEX.unpack_from(data, offset + 20)[0],
                    dict(attributes(info, 0, len(info))).get(_IFLA_INFO_KIND, b"").rstrip(b"\0").decode(),
                    _number(found.get(_IFLA_LINK), 0),
                    _number(found.get(_IFLA_LINK_NETNSID), -1),
                )
            )
    return False


class LinkCounters:
    """A kept socket in the host's namespace, for one dump a sampling pass."""

    def __init__(self) -> None:
        self._socket = open_socket(socket.NETLINK_ROUTE)
        self._request = request(_RTM_GETSTATS, b"\0" * 8 + _INDEX.pack(_STATS_LINK_64))

    def read(self) -> dict[int, Counters]:
        """Counters of every interface, by index. Raises OSError where the kernel refuses (before 4.7)."""
        counters: dict[int, Counters] = {}
        self._socket.send(self._request)
        while not parse_stats(self._socket.recv(1 << 18), counters):
            pass
        return counters

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def links_of(process: int) -> tuple[tuple[Link, ...], int]:
    """The links of a process's network namespace, and our own namespace's number in there.

    ``process`` is a descriptor of its ``/proc/PID``. Nothing is kept open. Raises OSError when the process
    is gone or we may not enter its namespace.
    """
    links: list[Link] = []
    with (
        in_namespace(process, lambda: open_socket(socket.NETLINK_ROUTE)) as there,
        open(Path("/proc/self/ns/net"), "rb") as own,
    ):
        there.send(request(_RTM_GETLINK, b"\0" * 16))
        while not parse_links(there.recv(1 << 18), links):
            pass
        attribute = struct.pack("=HHI", 8, _NETNSA_FD, own.fileno())
        there.send(request(_RTM_GETNSID, b"\0" * 4 + attribute, REQUEST))
        data = there.recv(1 << 16)
        for _kind, offset, end in messages(data):
            found = dict(attributes(data, offset + 20, end))
            return tuple(links), _number(found.get(_NETNSA_NSID), -1)
    raise OSError(errno.EPROTO, "no answer to RTM_GETNSID")


def _number(data: bytes | None, absent: int) -> int:
    return absent if data is None else int.from_bytes(data[:4], sys.byteorder, signed=True)
