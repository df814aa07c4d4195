"""Packet filter rules of our networks, in one nftables table of our own: masquerading, published ports, isolation.

The whole table is made anew in one transaction when networks change, so a crash leaves the old or the new one;
a container's published ports are single map elements. Other programs' tables are never touched.
"""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network

from runtime.errors import ServerError
from runtime.networks.ports import Published

__all__ = ["BridgeRules", "Forward", "Nftables", "ruleset"]

log = logging.getLogger(__name__)

_TIMEOUT_SECONDS = 20


@dataclass(frozen=True, slots=True)
class BridgeRules:
    """What the rules need to know of one bridge network."""

    bridge: str
    subnet: IPv4Network
    masquerade: bool = True
    internal: bool = False  #: no way in or out but for its own containers
    icc: bool = True  #: whether its containers may talk to each other


@dataclass(frozen=True, slots=True)
class Forward:
    """A published port and the container address that it leads to."""

    published: Published
    container_ip: str

    @property
    def map_name(self) -> str:
        """The map that holds it: ``ports`` for every host address, ``bound`` for one."""
        return "ports" if self.published.host_ip == "0.0.0.0" else "bound"

    @property
    def key(self) -> str:
        """The map's key."""
        port = f"{self.published.protocol} . {self.published.host_port}"
        return port if self.map_name == "ports" else f"{self.published.host_ip} . {port}"

    @property
    def element(self) -> str:
        """The map's element."""
        return f"{self.key} : {self.container_ip} . {self.published.port}"


def ruleset(table: str, bridges: Sequence[BridgeRules], forwards: Iterable[Forward]) -> str:
    """The nft script that replaces the whole table (nft(8))."""
    by_map: dict[str, list[str]] = {"ports": [], "bound": []}
    for forward in forwards:
        by_map[forward.map_name].append(forward.element)
    dnat = (
        "dnat ip to ip daddr . meta l4proto . th dport map @bound\n"
        "fib daddr type local dnat ip to meta l4proto . th dport map @ports"
    )
    return f"""add table ip {table}
delete table ip {table}
table ip {table} {{
map ports {{
type inet_proto . inet_service : ipv4_addr . inet_service
{_elements(by_map["ports"])}
}}
map bound {{
type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
{_elements(by_map["bound"])}
}}
chain guard {{
type filter hook prerouting priority raw; policy accept;
{_lines(_guard(bridge) for bridge in bridges)}
}}
chain prerouting {{
type nat hook prerouting priority dstnat; policy accept;
{dnat}
}}
chain output {{
type nat hook output priority -100; policy accept;
{dnat}
}}
chain postrouting {{
type nat hook postrouting priority srcnat; policy accept;
{_lines(_postrouting(bridge) for bridge in bridges)}
}}
chain forward {{
type filter hook forward priority filter; policy accept;
ct state established,related accept
ct status dnat accept
{_lines(_same_bridge(bridge) for bridge in bridges)}
{_lines(_across(bridge) for bridge in bridges)}
}}
}}
"""


def _elements(items: Sequence[str]) -> str:
    return f"elements = {{ {', '.join(items)} }}" if items else ""


def _lines(items: Iterable[str]) -> str:
    return "\n".join(item for item in items if item)


def _guard(bridge: BridgeRules) -> str:
    """The bridge routes 127/8 for published ports: nothing from outside may use that."""
    return f'iifname "{bridge.bridge}" ip daddr 127.0.0.0/8 drop'


def _postrouting(bridge: BridgeRules) -> str:
    name, subnet = bridge.bridge, bridge.subnet
    lines = [
        # published ports reached from the host's loopback, or from the container's own network
        f'oifname "{name}" ip saddr 127.0.0.0/8 masquerade',
        f'oifname "{name}" ip saddr {subnet} ct status dnat masquerade',
    ]
    if bridge.masquerade and not bridge.internal:
        lines.insert(0, f'ip saddr {subnet} oifname != "{name}" masquerade')
    return "\n".join(lines)


def _same_bridge(bridge: BridgeRules) -> str:
    verdict = "accept" if bridge.icc else "drop"
    return f'iifname "{bridge.bridge}" oifname "{bridge.bridge}" {verdict}'


def _across(bridge: BridgeRules) -> str:
    """Nothing reaches a container from elsewhere but through a published port."""
    lines = [f'oifname "{bridge.bridge}" drop']
    if bridge.internal:
        lines.append(f'iifname "{bridge.bridge}" drop')
    return "\n".join(lines)


class Nftables:
    """Applies rules with the ``nft`` command."""

    def __init__(self, table: str = "taffrail", command: str = "nft") -> None:
        self._table = table
        self._command = command

    def replace(self, bridges: Sequence[BridgeRules], forwards: Iterable[Forward]) -> None:
        """Make the table hold exactly this. Raises ServerError."""
        self._run(ruleset(self._table, bridges, forwards))

    def add(self, forwards: Sequence[Forward]) -> None:
        """Forward these ports too."""
        self._run("".join(f"add element ip {self._table} {f.map_name} {{ {f.element} }}\n" for f in forwards))

    def remove(self, forwards: Sequence[Forward]) -> None:
        """Forward these no longer (all of them must be there: on doubt call ``replace``)."""
        self._run("".join(f"delete element ip {self._table} {f.map_name} {{ {f.key} }}\n" for f in forwards))

    def destroy(self) -> None:
        """Remove the table; nothing happens if it is not there."""
        self._run(f"add table ip {self._table}\ndelete table ip {self._table}\n")

    def _run(self, script: str) -> None:
        if not script:
            return
        try:
            done = subprocess.run(
                [self._command, "-f", "-"],
                input=script,
                text=True,
                capture_output=True,
                timeout=_TIMEOUT_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ServerError(f"packet filter: {self._command}: {error}") from error
        if done.returncode:
            raise ServerError(f"packet filter: {self._command}: {done.stderr.strip()[:500]}")
