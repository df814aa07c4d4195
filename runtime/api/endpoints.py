"""A container's networks and ports in the answers of inspect and list."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runtime.networks.network import Attachment
from runtime.networks.ports import ports_to_api

if TYPE_CHECKING:
    from runtime.container import Container
    from runtime.engine import Engine

__all__ = ["network_mode", "network_settings", "ports"]


def network_mode(container: Container) -> str:
    """``HostConfig.NetworkMode``; ``default`` is the bridge."""
    mode = container.definition.config.host.network_mode
    return "bridge" if mode == "default" else mode


def network_settings(engine: Engine, container: Container) -> dict[str, Any]:
    """``NetworkSettings``: real addresses while it runs, what it asked for otherwise."""
    attachment = engine.networks.attachment(container.id)
    mode = network_mode(container)
    if attachment is None:
        attachment = Attachment(container.id, mode, None, exposed=())
    body = attachment.to_api()
    if not body["Networks"] and not mode.startswith("container:"):
        body["Networks"] = _asked(engine, container, mode, running=container.state.running)
    return body


def _asked(engine: Engine, container: Container, mode: str, *, running: bool) -> dict[str, Any]:
    config = container.definition.config
    out: dict[str, Any] = {}
    for reference in dict.fromkeys([mode, *config.networks]):
        network = engine.find_network(reference)
        wanted = config.networks.get(reference)
        name = network.name if network else reference
        if name in out:
            continue
        fixed = wanted.ipv4_address if wanted else ""
        out[name] = {
            "IPAMConfig": {"IPv4Address": fixed} if fixed else None,
            "Links": None,
            "Aliases": list(wanted.aliases) or None if wanted else None,
            "MacAddress": "",
            "DriverOpts": None,
            "GwPriority": 0,
            "NetworkID": network.id if network else "",
            "EndpointID": "",
            "Gateway": "",
            "IPAddress": "",
            "IPPrefixLen": 0,
            "IPv6Gateway": "",
            "GlobalIPv6Address": "",
            "GlobalIPv6PrefixLen": 0,
            "DNSNames": None,
        }
    return out


def ports(engine: Engine, container: Container) -> list[dict[str, Any]]:
    """``Ports`` of the list: published ones with their host address, the others bare."""
    attachment = engine.networks.attachment(container.id)
    if attachment is None:
        return []
    out: list[dict[str, Any]] = []
    for key, bindings in ports_to_api(attachment.ports, attachment.exposed).items():
        port, _, protocol = key.partition("/")
        inside = {"PrivatePort": int(port), "Type": protocol or "tcp"}
        if not bindings:
            out.append(inside)
        out += [
            {"IP": binding["HostIp"], **inside, "PublicPort": int(binding["HostPort"])}
            for binding in bindings or ()
        ]
    return out
