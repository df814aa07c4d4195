"""A part of group ``tcp``: how long services a container offers and uses take to answer, and what is sent twice.

From ``struct tcp_info`` (linux/tcp.h) of every established connection, which ``sockets.py`` asks for. A service
is a port: one that the container listens on, or one of a peer that it is connected to.
"""

from __future__ import annotations

import struct
from collections.abc import Container, Sequence
from functools import lru_cache
from typing import NamedTuple

from collector.lanes.board import Reading
from collector.netlink_wire import attribute

__all__ = ["INFO", "MAX_SERVICES", "QUANTILES", "Connection", "connection", "quantile", "readings_of"]

QUANTILES = (0.5, 0.9, 0.99)

#: Services of one container that get series, those with most connections.
MAX_SERVICES = 16

INFO = 2  # INET_DIAG_INFO
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


def readings_of(connections: Sequence[Connection], listening: Container[int]) -> tuple[list[Reading], int]:
    """Readings by service, and how many services were left out."""
    services: dict[tuple[str, int], list[Connection]] = {}
    for each in connections:
        key = ("server", each[0]) if each[0] in listening else ("client", each[1])
        services.setdefault(key, []).append(each)
    shown = list(services)
    if len(shown) > MAX_SERVICES:
        shown = sorted(services, key=lambda key: (-len(services[key]), key))[:MAX_SERVICES]
    readings: list[Reading] = []
    for key in sorted(shown):
        members = services[key]
        labels = _labels(*key)
        readings.append(Reading("container_network_tcp_service_connections", labels[0], len(members)))
        times = [each[2] / 1e6 for each in members if each[2]]
        shares = [min(each[4] / each[3], 1.0) for each in members if each[3]]
        for family, values in (
            ("container_network_tcp_rtt_seconds", times),
            ("container_network_tcp_retransmit_ratio", shares),
        ):
            if values:
                values.sort()
                for share, quantiled in zip(QUANTILES, labels[1:], strict=True):
                    readings.append(Reading(family, quantiled, quantile(values, share)))
    return readings, len(services) - len(shown)


@lru_cache(maxsize=4096)
def _labels(role: str, port: int) -> tuple[tuple[tuple[str, str], ...], ...]:
    """A service's labels, alone and with each quantile."""
    service = (("role", role), ("port", str(port)))
    return (service, *((*service, ("quantile", f"{share:g}")) for share in QUANTILES))


def connection(data: memoryview, start: int, end: int) -> Connection | None:
    """What ``struct inet_diag_msg`` and the attributes behind it say; None of a kernel that says less."""
    info = attribute(data, start + _MESSAGE, end, INFO)
    if info is None or len(info) < _SENT_END:
        return None
    local, remote = _PORTS.unpack_from(data, start + 4)
    rtt, again, sent = (_NUMBER.unpack_from(info, at)[0] for at in _WANTED)
    return Connection(local, remote, rtt, sent, again)
