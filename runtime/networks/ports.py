"""Published ports: what a request asks for, and reserving host ports so that nobody else takes them.

A reservation is a bound socket that never listens: it keeps other programs (and other containers) off the port
as a proxy would. Forwarding the packets is left to ``nat``.
"""

from __future__ import annotations

import errno
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from runtime.config import PortBinding
from runtime.errors import BadRequest, ServerError

__all__ = ["Published", "Reservations", "parse_port", "ports_to_api", "wanted_bindings"]

_PORT = re.compile(r"(\d{1,5})(?:/(tcp|udp|sctp))?\Z")
_ANY = "0.0.0.0"
_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


@dataclass(frozen=True, slots=True)
class Published:
    """A container port and the host address and port that lead to it."""

    port: int
    protocol: str  #: ``tcp``, ``udp``, ``sctp``
    host_ip: str  #: ``0.0.0.0`` for all
    host_port: int


def parse_port(text: str) -> tuple[int, str]:
    """``80/tcp`` or ``80``. Raises BadRequest."""
    match = _PORT.match(text)
    if not match or not 0 < int(match[1]) < 65536:
        raise BadRequest(
            f"invalid port specification: {text!r}: expected a port from 1 to 65535 and tcp, udp or sctp"
        )
    return int(match[1]), match[2] or "tcp"


def wanted_bindings(
    bindings: Mapping[str, Sequence[PortBinding]], exposed: Sequence[str], publish_all: bool
) -> list[tuple[int, str, PortBinding]]:
    """What to publish: ``PortBindings``, and with ``PublishAllPorts`` every exposed port that has none."""
    wanted = {parse_port(text): list(items) or [PortBinding()] for text, items in bindings.items()}
    if publish_all:
        for text in exposed:
            wanted.setdefault(parse_port(text), [PortBinding()])
    return [(port, protocol, item) for (port, protocol), items in wanted.items() for item in items]


def ports_to_api(
    published: Sequence[Published], exposed: Sequence[str] = ()
) -> dict[str, list[dict[str, str]] | None]:
    """``NetworkSettings.Ports`` of inspect: null for a port that is exposed and not published."""
    out: dict[str, list[dict[str, str]] | None] = dict.fromkeys(exposed)
    for item in published:
        entry = {"HostIp": item.host_ip, "HostPort": str(item.host_port)}
        out[f"{item.port}/{item.protocol}"] = [*(out.get(f"{item.port}/{item.protocol}") or ()), entry]
    return out


class Reservations:
    """The host ports held for containers."""

    def __init__(self, range_file: Path = Path("/proc/sys/net/ipv4/ip_local_port_range")) -> None:
        self._held: dict[Published, socket.socket | None] = {}
        self._range_file = range_file
        self._last_ephemeral = 0

    def reserve(self, port: int, protocol: str, binding: PortBinding) -> Published:
        """Hold a host port for a container port. Raises BadRequest, ServerError with Docker's words."""
        host_ip = binding.host_ip or _ANY
        candidates = self._candidates(binding.host_port)
        problem = ""
        for candidate in candidates:
            item = Published(port, protocol, host_ip, candidate)
            problem = self.hold(item)
            if not problem:
                return item
        raise ServerError(problem or "all ports are allocated")

    def hold(self, item: Published) -> str:
        """Hold exactly this; "" or what is in the way."""
        clash = any(
            held.protocol == item.protocol
            and held.host_port == item.host_port
            and (held.host_ip == item.host_ip or _ANY in (held.host_ip, item.host_ip))
            for held in self._held
        )
        if clash:
            return f"Bind for {item.host_ip}:{item.host_port} failed: port is already allocated"
        try:
            self._held[item] = _bound(item)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                reason = "address already in use"
            else:
                reason = (error.strerror or str(error)).lower()
            return f"listen {item.protocol}4 {item.host_ip}:{item.host_port}: bind: {reason}"
        return ""

    def release(self, items: Sequence[Published]) -> None:
        """Let ports go; nothing happens for those that are not held."""
        for item in items:
            held = self._held.pop(item, None)
            if held is not None:
                held.close()

    def close(self) -> None:
        """Let every port go."""
        self.release(list(self._held))

    def _candidates(self, text: str) -> Iterator[int]:
        if text in ("", "0"):
            yield from self._ephemeral()
            return
        first, dash, last = text.partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise BadRequest(
                f"invalid port specification: {text!r}: expected a port or a range such as 8000-8010"
            )
        low, high = int(first), int(last) if dash else int(first)
        if not 0 < low <= high < 65536:
            raise BadRequest(f"invalid port specification: {text!r}: expected ports from 1 to 65535")
        yield from range(low, high + 1)

    def _ephemeral(self) -> Iterator[int]:
        low, high = (int(number) for number in self._range_file.read_text().split())
        start = self._last_ephemeral + 1 if low <= self._last_ephemeral < high else low
        for candidate in (*range(start, high + 1), *range(low, start)):
            self._last_ephemeral = candidate
            yield candidate


def _bound(item: Published) -> socket.socket | None:
    kind = _KINDS.get(item.protocol)
    if kind is None:
        return None  # SCTP: the kernel may lack it, and the packets are forwarded before any socket sees them
    held = socket.socket(socket.AF_INET, kind)
    try:
        held.bind((item.host_ip, item.host_port))
    except OSError:
        held.close()
        raise
    if kind == socket.SOCK_DGRAM:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)  # what is not forwarded is not kept either
    return held
