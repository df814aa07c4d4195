"""Kernel switches that container networks need: IPv4 forwarding, and published ports on the host's loopback."""

from __future__ import annotations

import logging
from pathlib import Path

__all__ = ["enable_forwarding", "route_loopback"]

log = logging.getLogger(__name__)

_IPV4 = Path("/proc/sys/net/ipv4")


def enable_forwarding(root: Path = _IPV4) -> bool:
    """Switch on IPv4 forwarding; True if it was off."""
    switch = root / "ip_forward"
    if switch.read_text().strip() == "1":
        return False
    switch.write_text("1")
    log.info("IPv4 forwarding was off: switched on for containers' networks")
    return True


def route_loopback(bridge: str, root: Path = _IPV4) -> None:
    """Let packets from 127.0.0.1 leave through this bridge, for published ports; ``nat`` guards the way in."""
    (root / "conf" / bridge / "route_localnet").write_text("1")
