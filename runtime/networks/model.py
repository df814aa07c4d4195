"""What a network, an endpoint and an attachment are, their JSON on disk, and their form in the Engine API."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from runtime.errors import BadRequest, NotFound
from runtime.fields import Fields
from runtime.networks.nat import BridgeRules, Forward
from runtime.networks.ports import Published, ports_to_api

__all__ = ["Attachment", "Endpoint", "Network", "NetworkRequest"]

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*\Z")
_INTERFACE = re.compile(r"[^\s/:]{1,15}\Z")
_OPTION = "com.docker.network.bridge."


@dataclass(frozen=True, slots=True)
class NetworkRequest:
    """The body of ``POST /networks/create``. Addresses as text, "" where the engine is to choose."""

    name: str
    driver: str = "bridge"
    internal: bool = False
    attachable: bool = False
    subnet: str = ""
    gateway: str = ""
    ip_range: str = ""
    auxiliary: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_api(cls, body: Mapping[str, Any]) -> NetworkRequest:
        """Parse the body. Raises BadRequest, NotFound (for a driver that is not here)."""
        f = Fields(body)
        driver = f.string("Driver") or "bridge"
        name = f.string("Name")
        if not _NAME.match(name):
            raise BadRequest(f"invalid network name {name!r}: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
        if driver != "bridge":
            raise NotFound(f"could not find plugin {driver} in v1 plugin registry: plugin not found")
        if f.boolean("EnableIPv6"):
            raise BadRequest("EnableIPv6: networks are IPv4 only")
        ipam = f.object("IPAM")
        if ipam.string("Driver") not in ("", "default"):
            raise NotFound(f"could not find IPAM driver {ipam.string('Driver')}: plugin not found")
        pools = ipam.objects("Config", _pool)
        if len(pools) > 1:
            raise BadRequest("IPAM.Config: expected at most one subnet: networks are IPv4 only")
        pool = pools[0] if pools else {}
        return cls(
            name=name,
            driver=driver,
            internal=f.boolean("Internal"),
            attachable=f.boolean("Attachable"),
            options=f.string_map("Options"),
            labels=f.string_map("Labels"),
            **pool,
        )


def _pool(f: Fields) -> dict[str, Any]:
    return {
        "subnet": f.string("Subnet"),
        "gateway": f.string("Gateway"),
        "ip_range": f.string("IPRange"),
        "auxiliary": f.string_map("AuxiliaryAddresses"),
    }


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A container's connection to one bridge network."""

    id: str  #: 64 hexadecimal digits
    network_id: str
    network_name: str
    interface: str  #: in the container: ``eth0``
    host_interface: str  #: the other end of the pair, on the bridge
    ip: str
    prefix: int
    gateway: str
    mac: str
    aliases: tuple[str, ...] = ()  #: names that resolve to it on this network
    fixed_ip: str = ""  #: what the user asked for, for inspect's IPAMConfig

    def to_api(self) -> dict[str, Any]:
        """The Engine API's EndpointSettings."""
        return {
            "IPAMConfig": {"IPv4Address": self.fixed_ip} if self.fixed_ip else None,
            "Links": None,
            "Aliases": list(self.aliases) or None,
            "MacAddress": self.mac,
            "NetworkID": self.network_id,
            "EndpointID": self.id,
            "Gateway": self.gateway,
            "IPAddress": self.ip,
            "IPPrefixLen": self.prefix,
            "IPv6Gateway": "",
            "GlobalIPv6Address": "",
            "GlobalIPv6PrefixLen": 0,
            "DriverOpts": None,
            "DNSNames": list(self.aliases) or None,
        }


@dataclass(frozen=True, slots=True)
class Attachment:
    """A container's network while it runs. ``netns_path`` goes into the OCI spec; None for the host's."""

    container_id: str
    mode: str  #: ``none``, ``host``, ``bridge``, ``container:<id>``, or a network's name
    netns_path: Path | None
    container_name: str = ""
    endpoints: tuple[Endpoint, ...] = ()
    ports: tuple[Published, ...] = ()
    exposed: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()  #: the container's own DNS servers, asked for names that are no container's

    @property
    def nameserver(self) -> str:
        """The resolver of its first user-defined network; "" where there is none."""
        return next((item.gateway for item in self.endpoints if item.network_name != "bridge"), "")

    def forwards(self) -> list[Forward]:
        """The published ports and the address that they lead to: that of the first endpoint."""
        return [Forward(item, self.endpoints[0].ip) for item in self.ports] if self.endpoints else []

    def to_json(self) -> dict[str, Any]:
        """What ``from_json`` reads."""
        return {**asdict(self), "netns_path": str(self.netns_path or "")}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Attachment:
        """Read a record. Raises KeyError, TypeError for one that is damaged."""
        endpoints = tuple(
            Endpoint(**{**item, "aliases": tuple(item["aliases"])}) for item in data["endpoints"]
        )
        return cls(
            container_id=data["container_id"],
            mode=data["mode"],
            netns_path=Path(data["netns_path"]) if data["netns_path"] else None,
            container_name=data["container_name"],
            endpoints=endpoints,
            ports=tuple(Published(**item) for item in data["ports"]),
            exposed=tuple(data["exposed"]),
            dns=tuple(data.get("dns") or ()),
        )

    def to_api(self) -> dict[str, Any]:
        """The Engine API's NetworkSettings; the flat fields are those of the default bridge."""
        flat = next((item for item in self.endpoints if item.network_name == "bridge"), None)
        return {
            "Bridge": "",
            "SandboxID": self.container_id,
            "SandboxKey": str(self.netns_path or ""),
            "Ports": ports_to_api(self.ports, self.exposed),
            "HairpinMode": False,
            "LinkLocalIPv6Address": "",
            "LinkLocalIPv6PrefixLen": 0,
            "SecondaryIPAddresses": None,
            "SecondaryIPv6Addresses": None,
            "EndpointID": flat.id if flat else "",
            "Gateway": flat.gateway if flat else "",
            "GlobalIPv6Address": "",
            "GlobalIPv6PrefixLen": 0,
            "IPAddress": flat.ip if flat else "",
            "IPPrefixLen": flat.prefix if flat else 0,
            "IPv6Gateway": "",
            "MacAddress": flat.mac if flat else "",
            "Networks": {item.network_name: item.to_api() for item in self.endpoints},
        }


@dataclass(frozen=True, slots=True)
class Network:
    """One network. ``bridge``, ``host`` and ``none`` are always there."""

    id: str  #: 64 hexadecimal digits
    name: str
    driver: str  #: ``bridge``, ``host``, ``null``
    created: str  #: RFC 3339
    bridge: str = ""  #: the bridge's interface name
    subnet: str = ""
    gateway: str = ""
    ip_range: str = ""
    auxiliary: Mapping[str, str] = field(default_factory=dict)
    configured_subnet: bool = False  #: the user chose the subnet, so containers may choose addresses
    internal: bool = False
    attachable: bool = False
    options: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def predefined(self) -> bool:
        """Whether it is one of the three that cannot be removed."""
        return self.name in ("bridge", "host", "none")

    @property
    def mtu(self) -> int:
        """Of its interfaces; 0 for the kernel's default."""
        text = self.options.get("com.docker.network.driver.mtu", "")
        return int(text) if text.isdigit() else 0

    @property
    def rules(self) -> BridgeRules:
        """What the packet filter does for it."""
        return BridgeRules(
            bridge=self.bridge,
            subnet=IPv4Network(self.subnet),
            masquerade=self._flag("enable_ip_masquerade"),
            internal=self.internal,
            icc=self._flag("enable_icc"),
        )

    @property
    def gateway_address(self) -> IPv4Address:
        """The bridge's own address."""
        return IPv4Address(self.gateway)

    def _flag(self, name: str) -> bool:
        return self.options.get(_OPTION + name, "true").lower() not in ("false", "0")

    def to_json(self) -> dict[str, Any]:
        """What ``from_json`` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Network:
        """Read a record. Raises TypeError for one that is damaged."""
        return cls(**data)

    def to_api(self, containers: Mapping[str, Mapping[str, str]] | None = None) -> dict[str, Any]:
        """The Engine API's Network; ``containers`` as inspect has them, by id."""
        config: dict[str, Any] = {}
        if self.subnet:
            config = {"Subnet": self.subnet, "Gateway": self.gateway}
            if self.ip_range:
                config["IPRange"] = self.ip_range
            if self.auxiliary:
                config["AuxiliaryAddresses"] = dict(self.auxiliary)
        return {
            "Name": self.name,
            "Id": self.id,
            "Created": self.created,
            "Scope": "local",
            "Driver": self.driver,
            "EnableIPv4": True,
            "EnableIPv6": False,
            "IPAM": {"Driver": "default", "Options": {}, "Config": [config] if config else []},
            "Internal": self.internal,
            "Attachable": self.attachable,
            "Ingress": False,
            "ConfigFrom": {"Network": ""},
            "ConfigOnly": False,
            "Containers": dict(containers or {}),
            "Options": dict(self.options),
            "Labels": dict(self.labels),
        }


def bridge_name(request: NetworkRequest, network_id: str) -> str:
    """The interface name that a request asks for, or one made of the id. Raises BadRequest."""
    name = request.options.get(_OPTION + "name") or f"br-{network_id[:12]}"
    if not _INTERFACE.match(name):
        raise BadRequest(f"invalid bridge name {name!r}: expected at most 15 characters without '/' and ':'")
    return name
