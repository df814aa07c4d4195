"""Group ``rtt``: how long the services a container offers and uses take to answer, and how much is sent twice.

From ``struct tcp_info`` (linux/tcp.h) of every established connection, by sock_diag in the namespace. A service
is a port: one that the container listens on, or one of a peer that it is connected to.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from collector.lanes.board import Reading
from collector.lanes.inside import Dump, inside
from collector.lanes.sockets import NOT_THERE, in_use
from collector.netlink_wire import attribute
from collector.target import Target

__all__ = ["MAX_SERVICES", "QUANTILES", "Connection", "RoundTripGroup", "quantile", "readings_of"]

QUANTILES = (0.5, 0.9, 0.99)

#: Services of one container that get series, those with most connections.
MAX_SERVICES = 16

_SOCK_DIAG, _TCPDIAG_GETSOCK = 4, 18
_ESTABLISHED, _LISTEN = 1, 10
_INFO = 2  # INET_DIAG_INFO
_MESSAGE = 72
_PORTS = struct.Struct(">HH")
_NUMBER = struct.Struct("=I")
_WANTED = (68, 100, 156)  # offsets of tcpi_rtt, tcpi_total_retrans, tcpi_data_segs_out
_SENT_END = 160


class Connection(NamedTuple):
    """What matters of one established connection."""

    local: int  #: ports
    remote: int
    rtt_us: int  #: smoothed; 0 before the first answer
    sent: int  #: segments with data, those sent again among them
    again: int


def quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that this share of all does not exceed."""
    return ordered[max(-int(-share * len(ordered) // 1) - 1, 0)]


def readings_of(connections: Sequence[Connection], listening: set[int]) -> tuple[list[Reading], int]:
    """Readings by service, and how many services were left out."""
    services: dict[tuple[str, int], list[Connection]] = {}
    for connection in connections:
        own = connection.local in listening
        key = ("server", connection.local) if own else ("client", connection.remote)
        services.setdefault(key, []).append(connection)
    shown = sorted(services, key=lambda key: (-len(services[key]), key))[:MAX_SERVICES]
    readings: list[Reading] = []
    for key in sorted(shown):
        role, port = key
        labels = (("role", role), ("port", str(port)))
        members = services[key]
        readings.append(Reading("container_network_tcp_service_connections", labels, len(members)))
        times = [each.rtt_us / 1e6 for each in members if each.rtt_us]
        shares = [min(each.again / each.sent, 1.0) for each in members if each.sent]
        readings += _quantiles("container_network_tcp_rtt_seconds", labels, times)
        readings += _quantiles("container_network_tcp_retransmit_ratio", labels, shares)
    return readings, len(services) - len(shown)


def _quantiles(family: str, labels: tuple[tuple[str, str], ...], values: list[float]) -> Iterator[Reading]:
    values.sort()
    for share in QUANTILES if values else ():
        yield Reading(family, (*labels, ("quantile", f"{share:g}")), quantile(values, share))


class RoundTripGroup:
    """Round trips and retransmissions of the connections of every namespace."""

    name = "rtt"

    def __init__(self, seconds: float = 60.0) -> None:
        self.seconds = seconds
        self.cut = 0  #: services left out, over ``MAX_SERVICES``, summed over readings
        self._dump = Dump(_SOCK_DIAG)
        self._missing = False  # a kernel without inet_diag
        states = 1 << _ESTABLISHED | 1 << _LISTEN
        # The older request: it walks the kernel's table once for both families, the newer one for each.
        self._request = bytes((0, 0, 0, 1 << (_INFO - 1))) + bytes(48) + struct.pack("=II", states, 0)

    def read(self, target: Target) -> Sequence[Reading]:
        """Raise OSError, ValueError; nothing where the kernel does not tell of its sockets."""
        if self._missing or not target.counts_network or not in_use(target)[0]:
            return ()
        connections: list[Connection] = []
        listening: set[int] = set()

        def take(data: memoryview, start: int, end: int) -> None:
            local, remote = _PORTS.unpack_from(data, start + 4)
            if data[start + 1] == _LISTEN:
                listening.add(local)
                return
            info = attribute(data, start + _MESSAGE, end, _INFO)
            if info is not None and len(info) >= _SENT_END:
                rtt, again, sent = (_NUMBER.unpack_from(info, at)[0] for at in _WANTED)
                connections.append(Connection(local, remote, rtt, sent, again))

        with inside(target):
            try:
                self._dump.ask(_TCPDIAG_GETSOCK, self._request, take)
            except OSError as error:
                if error.errno not in NOT_THERE:
                    raise
                self._missing = True
                return ()
        readings, cut = readings_of(connections, listening)
        self.cut += cut
        return readings
