"""Interface counters of this network namespace in one request, and who is at the other end of a veth.

One RTM_GETSTATS dump costs less than a microsecond an interface, where ``/proc/PID/net/dev`` costs thirty
a container; what a container receives is what the host's end of its veth sent. Only these few
messages are spoken here (linux/rtnetlink.h, linux/if_link.h); everything else on links is pyroute2's.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

__all__ = ["Counters", "Link", "LinkCounters", "links_of", "parse_links", "parse_stats"]

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_DONE, _ERROR = 3, 2
_RTM_NEWLINK, _RTM_GETLINK, _RTM_GETNSID, _RTM_NEWSTATS, _RTM_GETSTATS = 16, 18, 90, 92, 94
_REQUEST, _DUMP = 0x1, 0x300
_IFLA_IFNAME, _IFLA_LINK, _IFLA_LINKINFO, _IFLA_LINK_NETNSID = 3, 5, 18, 37
_IFLA_INFO_KIND = 1
_NETNSA_NSID, _NETNSA_FD = 1, 3
_STATS_LINK_64 = 1
_COUNTERS = struct.Struct("=4Q")
_INDEX = struct.Struct("=I")
_CLONE_NEWNET = 0x40000000
_TIMEOUT = 5.0


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
    while offset < end:
        length, kind, _flags, _sequence, _port = _HEADER.unpack_from(data, offset)
        if kind == _RTM_NEWSTATS:
            # header 16, if_stats_msg 12 (the index at 4), attribute header 4, rtnl_link_stats64
            into[_INDEX.unpack_from(data, offset + 20)[0]] = Counters(
                *_COUNTERS.unpack_from(data, offset + 32)
            )
        elif kind == _DONE:
            return True
        elif kind == _ERROR:
            _raise(data, offset)
        offset += (length + 3) & ~3
    return False


def parse_links(data: bytes, into: list[Link]) -> bool:
    """Take one datagram of an RTM_GETLINK dump; true when it was the last. Raises OSError on an error."""
    for kind, offset, end in _messages(data):
        if kind == _DONE:
            return True
        if kind == _ERROR:
            _raise(data, offset)
        if kind == _RTM_NEWLINK:
            found = dict(_attributes(data, offset + 32, end))
            info = found.get(_IFLA_LINKINFO, b"")
            into.append(
                Link(
                    found.get(_IFLA_IFNAME, b"").rstrip(b"\0").decode(errors="replace"),
                    _INDEX.unpack_from(data, offset + 20)[0],
                    dict(_attributes(info, 0, len(info))).get(_IFLA_INFO_KIND, b"").rstrip(b"\0").decode(),
                    _number(found.get(_IFLA_LINK), 0),
                    _number(found.get(_IFLA_LINK_NETNSID), -1),
                )
            )
    return False


class LinkCounters:
    """A kept socket in the host's namespace, for one dump a sampling pass."""

    def __init__(self) -> None:
        self._socket = _open()
        self._request = (
            _HEADER.pack(28, _RTM_GETSTATS, _REQUEST | _DUMP, 1, 0) + b"\0" * 8 + _INDEX.pack(_STATS_LINK_64)
        )

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
    with _open_in(process) as there, open(Path("/proc/self/ns/net"), "rb") as own:
        there.send(_HEADER.pack(32, _RTM_GETLINK, _REQUEST | _DUMP, 1, 0) + b"\0" * 16)
        while not parse_links(there.recv(1 << 18), links):
            pass
        attribute = struct.pack("=HHI", 8, _NETNSA_FD, own.fileno())
        there.send(_HEADER.pack(28, _RTM_GETNSID, _REQUEST, 2, 0) + b"\0" * 4 + attribute)
        data = there.recv(1 << 16)
        for kind, offset, end in _messages(data):
            if kind == _ERROR:
                _raise(data, offset)
            found = dict(_attributes(data, offset + 20, end))
            return tuple(links), _number(found.get(_NETNSA_NSID), -1)
    raise OSError(errno.EPROTO, "no answer to RTM_GETNSID")


def _open() -> socket.socket:
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    opened.settimeout(_TIMEOUT)
    return opened


def _open_in(process: int) -> socket.socket:
    """A socket in another namespace, made by a thread that enters it and ends there."""
    made: list[socket.socket] = []
    failed: list[OSError] = []

    def enter() -> None:
        try:
            fd = os.open("ns/net", os.O_RDONLY | os.O_CLOEXEC, dir_fd=process)
            try:
                if ctypes.CDLL(None, use_errno=True).setns(fd, _CLONE_NEWNET) != 0:
                    number = ctypes.get_errno()
                    raise OSError(number, f"setns: {os.strerror(number)}")
                made.append(_open())
            finally:
                os.close(fd)
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=enter, name="namespace")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return made[0]


def _messages(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Type, start and end of each message."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, _flags, _sequence, _port = _HEADER.unpack_from(data, offset)
        yield kind, offset, min(offset + length, len(data))
        if length < _HEADER.size:
            return
        offset += (length + 3) & ~3


def _attributes(data: bytes, offset: int, end: int) -> Iterator[tuple[int, bytes]]:
    while offset + 4 <= end:
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4:
            return
        yield kind & 0x3FFF, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def _number(data: bytes | None, absent: int) -> int:
    return absent if data is None else int.from_bytes(data[:4], sys.byteorder, signed=True)


def _raise(data: bytes, offset: int) -> None:
    number = -struct.unpack_from("=i", data, offset + 16)[0]
    raise OSError(number, f"netlink: {os.strerror(number)}")
