"""All interfaces of the host in two requests: what each is, and its counters, instead of two dozen files each.

What netlink does not tell stays with sysfs: three attributes that only change with the interface's name or
address, and the speed, which is asked for each time but of a veth. Formats: linux/if_link.h, linux/rtnetlink.h,
the kernel's net/core/rtnetlink.c and net-sysfs.c.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from collector.netlink_wire import DONE, HEADER, attributes, messages, open_socket, request

__all__ = ["HostLinks", "LinkFacts", "LinkRow", "parse_link"]

_RTM_NEWLINK, _RTM_GETLINK, _RTM_NEWSTATS, _RTM_GETSTATS = 16, 18, 92, 94
_ADDRESS, _BROADCAST, _IFNAME, _MTU, _LINK, _TXQLEN, _OPERSTATE, _LINKMODE = 1, 2, 3, 4, 5, 13, 16, 17
_LINKINFO, _IFALIAS, _GROUP, _EXT_MASK, _PROMISCUITY, _CARRIER, _CARRIER_CHANGES = 18, 20, 27, 29, 30, 33, 35
_CARRIER_UP_COUNT, _CARRIER_DOWN_COUNT, _ALLMULTI = 47, 48, 61
_INFO_KIND = 1
#: No counters with the links: they would make every answer another.
_SKIP_STATS = 1 << 3
_UP, _DORMANT = 0x1, 0x20000
_PROMISC, _ALL_MULTICAST = 0x100, 0x200
#: Netlink computes these flags: promiscuous, all multicast, running, lower up, dormant.
_COMPUTED = 0x100 | 0x200 | 0x40 | 0x10000 | _DORMANT
_STATES = ("unknown", "notpresent", "down", "lowerlayerdown", "testing", "dormant", "up")
_HEAD = struct.Struct("=BxHiI")  # family, type, index, flags of struct ifinfomsg
_STATS_64 = 1
_COUNTERS = struct.Struct("=24Q")
_INDEX = struct.Struct("=I")
_BUFFER = 1 << 18


@dataclass(frozen=True, slots=True)
class LinkFacts:
    """What one message tells of an interface, as its files in ``/sys/class/net`` have it."""

    index: int
    name: str
    kind: str  #: ``veth``, ``bridge``, …; "" for devices that name none
    type: int
    flags: int | None  #: None where the kernel (before 6.0) does not tell enough
    up: bool
    dormant: bool
    address: str
    broadcast: str
    mtu: int
    link: int
    queue_length: int
    operstate: str
    link_mode: int
    alias: str
    group: int
    carrier: int
    carrier_changes: int
    carrier_up: int | None
    carrier_down: int | None


class LinkRow(NamedTuple):
    """The 24 counters of ``struct rtnl_link_stats64``, in its order."""

    rx_packets: int
    tx_packets: int
    rx_bytes: int
    tx_bytes: int
    rx_errors: int
    tx_errors: int
    rx_dropped: int
    tx_dropped: int
    multicast: int
    collisions: int
    rx_length_errors: int
    rx_over_errors: int
    rx_crc_errors: int
    rx_frame_errors: int
    rx_fifo_errors: int
    rx_missed_errors: int
    tx_aborted_errors: int
    tx_carrier_errors: int
    tx_fifo_errors: int
    tx_heartbeat_errors: int
    tx_window_errors: int
    rx_compressed: int
    tx_compressed: int
    rx_nohandler: int


def parse_link(data: bytes, start: int, end: int) -> LinkFacts:
    """One RTM_NEWLINK message. Raises ValueError or struct.error on one that is too short."""
    _family, kind, index, flags = _HEAD.unpack_from(data, start + 16)
    found = dict(attributes(data, start + 32, end))
    if _IFNAME not in found:
        raise ValueError(f"link {index}: expected a name")
    own: int | None = None
    if _ALLMULTI in found:
        own = flags & ~_COMPUTED
        own |= _PROMISC if _number(found.get(_PROMISCUITY)) else 0
        own |= _ALL_MULTICAST if _number(found[_ALLMULTI]) else 0
    info = found.get(_LINKINFO, b"")
    state = _number(found.get(_OPERSTATE))
    return LinkFacts(
        index,
        _text(found[_IFNAME]),
        _text(dict(attributes(info, 0, len(info))).get(_INFO_KIND, b"")),
        kind,
        own,
        bool(flags & _UP),
        bool(flags & _DORMANT),
        found.get(_ADDRESS, b"").hex(":"),
        found.get(_BROADCAST, b"").hex(":"),
        _number(found.get(_MTU)),
        _number(found.get(_LINK), index),
        _number(found.get(_TXQLEN)),
        _STATES[state] if state < len(_STATES) else "unknown",
        _number(found.get(_LINKMODE)),
        _text(found.get(_IFALIAS, b"")),
        _number(found.get(_GROUP)),
        _number(found.get(_CARRIER)),
        _number(found.get(_CARRIER_CHANGES)),
        _number(found[_CARRIER_UP_COUNT]) if _CARRIER_UP_COUNT in found else None,
        _number(found[_CARRIER_DOWN_COUNT]) if _CARRIER_DOWN_COUNT in found else None,
    )


class HostLinks:
    """Asks in this thread's namespace, by a socket for each answer, and knows what the last one told."""

    def __init__(self, opened: Callable[[int], socket.socket] = open_socket) -> None:
        self._open = opened
        mask = struct.pack("=HHI", 8, _EXT_MASK, _SKIP_STATS)
        self._ask_links = request(_RTM_GETLINK, b"\0" * 16 + mask)
        self._ask_counters = request(_RTM_GETSTATS, b"\0" * 8 + _INDEX.pack(_STATS_64))
        self._known: dict[int, tuple[bytes, LinkFacts]] = {}  # a message is parsed once
        self._facts: tuple[LinkFacts, ...] = ()

    def facts(self) -> tuple[LinkFacts, ...]:
        """Every interface; the same object as before while nothing of any has changed. Raises OSError, ValueError."""
        known, self._known = self._known, {}
        for data, told in self._dump(self._ask_links):
            for kind, start, end in told:
                if kind == _RTM_NEWLINK:
                    index = _INDEX.unpack_from(data, start + 20)[0]
                    before = known.get(index)
                    message = data[start + HEADER.size : end]
                    if before is None or before[0] != message:
                        link = _parse(data, start, end)
                        before = (message, link if before is None or before[1] != link else before[1])
                    self._known[index] = before
        # By name: an interface that is changed during a dump can be in it twice.
        facts = tuple({link.name: link for _, link in self._known.values()}.values())
        if facts != self._facts:
            self._facts = facts
        return self._facts

    def counters(self) -> dict[int, LinkRow]:
        """Counters of every interface, by index. Raises OSError where the kernel refuses (before 4.7)."""
        found: dict[int, LinkRow] = {}
        for data, told in self._dump(self._ask_counters):
            for kind, start, _end in told:
                if kind == _RTM_NEWSTATS:
                    # header 16, if_stats_msg 12 (the index at 4), attribute header 4, rtnl_link_stats64
                    found[_INDEX.unpack_from(data, start + 20)[0]] = LinkRow._make(
                        _COUNTERS.unpack_from(data, start + 32)
                    )
        return found

    def _dump(self, asking: bytes) -> Iterator[tuple[bytes, list[tuple[int, int, int]]]]:
        """The datagrams of an answer and the messages in each. Raises OSError."""
        with self._open(socket.NETLINK_ROUTE) as asked:
            asked.send(asking)
            while True:
                data = asked.recv(_BUFFER)
                told = list(messages(data))
                yield data, told
                if any(kind == DONE for kind, _, _ in told):
                    return


def _parse(data: bytes, start: int, end: int) -> LinkFacts:
    try:
        return parse_link(data, start, end)
    except struct.error as error:
        raise ValueError(f"a link of {end - start} bytes: {error}") from error


def _number(data: bytes | None, absent: int = 0) -> int:
    return absent if data is None else int.from_bytes(data[:4], sys.byteorder)


def _text(data: bytes) -> str:
    return data.rstrip(b"\0").decode(errors="replace")
