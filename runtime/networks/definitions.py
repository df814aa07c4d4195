"""The networks that are defined, on disk, and their address pools; no kernel, no containers.

Not locked: ``Networks`` calls it under its own lock.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from runtime.config import EndpointConfig
from runtime.errors import BadRequest, Conflict, Forbidden, no_such_network
from runtime.files import write_atomically
from runtime.networks.ipam import AddressPool, free_subnet, overlapping, parse_address, parse_subnet
from runtime.networks.model import Attachment, Endpoint, Network, NetworkRequest, bridge_name

__all__ = ["Definitions", "InUse"]

#: Subnets that the host routes, and the interfaces they lead to.
InUse = Sequence[tuple[IPv4Network, str]]


class Definitions:
    """Every network by id, and which of its addresses are taken."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._networks: dict[str, Network] = {}
        self._pools: dict[str, AddressPool] = {}
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    def load(self) -> None:
        """Read the definitions of an earlier run."""
        for path in self._directory.glob("*.json"):
            self._register(Network.from_json(json.loads(path.read_bytes())))

    def add_predefined(self, bridge: str, subnet: str, in_use: InUse) -> None:
        """Define ``bridge``, ``host`` and ``none`` where they are not yet."""
        names = {network.name for network in self.all()}
        for name, driver in (("host", "host"), ("none", "null")):
            if name not in names:
                self.save(Network(_random_id(name), name, driver, _now()))
        if "bridge" not in names:
            request = NetworkRequest("bridge", subnet=subnet, options=_default_options(bridge))
            self.save(self.define(request, in_use))

    def all(self) -> Sequence[Network]:
        """All networks, by name."""
        return sorted(self._networks.values(), key=lambda network: network.name)

    def bridges(self) -> Sequence[Network]:
        """Those with a bridge."""
        return [network for network in self.all() if network.driver == "bridge"]

    def get(self, reference: str) -> Network:
        """By name, id or unique id prefix. Raises NotFound, BadRequest."""
        name = "bridge" if reference == "default" else reference
        for network in self._networks.values():
            if name in (network.name, network.id):
                return network
        found = [network for network in self._networks.values() if network.id.startswith(name)]
        if not name or not found:
            raise no_such_network(reference)
        if len(found) > 1:
            raise BadRequest(f"network {reference} is ambiguous ({len(found)} matches found on ID prefix)")
        return found[0]

    def define(self, request: NetworkRequest, in_use: InUse) -> Network:
        """A network as requested, addresses chosen and checked; not yet saved. Raises Docker's errors."""
        if any(network.name == request.name for network in self.all()):
            raise Conflict(f"network with name {request.name} already exists")
        network_id = _random_id(request.name)
        bridge = bridge_name(request, network_id)
        taken = [IPv4Network(network.subnet) for network in self.bridges()]
        taken += [subnet for subnet, interface in in_use if interface != bridge]
        subnet, gateway = _choose(request, taken)
        for text in request.auxiliary.values():
            if parse_address(text, "auxiliary address") not in subnet:
                raise BadRequest(f"no matching subnet for aux-address {text}")
        return Network(
            id=network_id,
            name=request.name,
            driver="bridge",
            created=_now(),
            bridge=bridge,
            subnet=str(subnet),
            gateway=str(gateway),
            ip_range=request.ip_range,
            auxiliary=dict(request.auxiliary),
            configured_subnet=bool(request.subnet),
            internal=request.internal,
            attachable=request.attachable,
            options=dict(request.options),
            labels=dict(request.labels),
        )

    def save(self, network: Network) -> None:
        """Keep a definition, durably."""
        self._register(network)
        write_atomically(self._path(network), json.dumps(network.to_json()).encode())

    def forget(self, network: Network) -> None:
        """Remove a definition; nothing happens if it is not there."""
        self._path(network).unlink(missing_ok=True)
        self._networks.pop(network.id, None)
        self._pools.pop(network.id, None)

    def new_endpoint(self, attachment: Attachment, network: Network, config: EndpointConfig) -> Endpoint:
        """An endpoint with an address that is now taken. Raises BadRequest, Forbidden with Docker's words."""
        address = self._take(network, config)
        names = [attachment.container_name, *config.aliases, attachment.container_id[:12]]
        endpoint_id = _stable_id(attachment.container_id, network.id)
        taken = {endpoint.interface for endpoint in attachment.endpoints}
        return Endpoint(
            id=endpoint_id,
            network_id=network.id,
            network_name=network.name,
            interface=next(f"eth{n}" for n in range(len(taken) + 1) if f"eth{n}" not in taken),
            host_interface=f"veth{endpoint_id[:10]}",
            ip=str(address),
            prefix=IPv4Network(network.subnet).prefixlen,
            gateway=network.gateway,
            mac=config.mac_address or _mac(address),
            aliases=() if network.name == "bridge" else tuple(dict.fromkeys(n for n in names if n)),
            fixed_ip=config.ipv4_address,
        )

    def restore(self, endpoint: Endpoint) -> None:
        """Take the address of an endpoint that an earlier run made."""
        if endpoint.network_id in self._pools:
            self._pools[endpoint.network_id].restore(IPv4Address(endpoint.ip))

    def give_back(self, endpoint: Endpoint) -> None:
        """Free an endpoint's address."""
        if endpoint.network_id in self._pools:
            self._pools[endpoint.network_id].give_back(IPv4Address(endpoint.ip))

    def _take(self, network: Network, config: EndpointConfig) -> IPv4Address:
        fixed = parse_address(config.ipv4_address) if config.ipv4_address else None
        if fixed and network.name == "bridge":
            raise BadRequest("user specified IP address is supported on user defined networks only")
        if fixed and not network.configured_subnet:
            raise BadRequest(
                "user specified IP address is supported only when connecting to networks "
                "with user configured subnets"
            )
        if config.aliases and network.name == "bridge":
            raise BadRequest("network-scoped alias is supported only for containers in user defined networks")
        address = self._pools[network.id].take(fixed)
        if address is None:
            raise BadRequest(
                f"no available IPv4 addresses on this network's address pools: {network.name} ({network.id})"
            )
        return address

    def _register(self, network: Network) -> None:
        self._networks[network.id] = network
        if network.driver == "bridge":
            reserved = [network.gateway_address, *map(IPv4Address, network.auxiliary.values())]
            ip_range = IPv4Network(network.ip_range) if network.ip_range else None
            self._pools[network.id] = AddressPool(IPv4Network(network.subnet), reserved, ip_range)

    def _path(self, network: Network) -> Path:
        return self._directory / f"{network.id}.json"


def _choose(request: NetworkRequest, taken: Sequence[IPv4Network]) -> tuple[IPv4Network, IPv4Address]:
    """The subnet and the gateway: those that are asked for, or free ones."""
    if request.subnet:
        subnet = parse_subnet(request.subnet)
        if overlapping(subnet, taken):
            raise Forbidden("Pool overlaps with other one on this address space")
    elif request.gateway or request.ip_range:
        raise BadRequest("IPAM.Config: a gateway or IP range needs a subnet")
    else:
        subnet = free_subnet(taken, default_bridge=request.name == "bridge")
    gateway = parse_address(request.gateway, "gateway") if request.gateway else subnet.network_address + 1
    if gateway not in subnet:
        raise BadRequest(f"no matching subnet for gateway {gateway}")
    if request.ip_range and not parse_subnet(request.ip_range).subnet_of(subnet):
        raise BadRequest(f"no matching subnet for range {request.ip_range}")
    return subnet, gateway


def _default_options(bridge: str) -> dict[str, str]:
    """What ``docker network inspect bridge`` shows for the default network."""
    prefix = "com.docker.network.bridge."
    return {
        f"{prefix}default_bridge": "true",
        f"{prefix}enable_icc": "true",
        f"{prefix}enable_ip_masquerade": "true",
        f"{prefix}host_binding_ipv4": "0.0.0.0",
        f"{prefix}name": bridge,
        "com.docker.network.driver.mtu": "1500",
    }


def _random_id(seed: str) -> str:
    return hashlib.sha256(seed.encode() + os.urandom(32)).hexdigest()


def _stable_id(container_id: str, network_id: str) -> str:
    """An endpoint's id: the same for the same pair, so that what a crash left is found by name."""
    return hashlib.sha256(f"{container_id} {network_id}".encode()).hexdigest()


def _mac(address: IPv4Address) -> str:
    """Made of the address, as Docker does: the neighbours' caches stay right when it is used again."""
    return "02:42:" + ":".join(f"{byte:02x}" for byte in address.packed)


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")
