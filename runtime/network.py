"""Networks of containers: the default bridge and user-defined ones, and a namespace per container.

``Networks.prepare`` makes a container's namespace, interfaces, addresses and published ports before the OCI
runtime starts; ``release`` takes them away. Definitions are kept in the state directory, attachments in the run
directory (written before the kernel objects are made), so an engine that died goes on or cleans up.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import TypeVar

from runtime.config import EndpointConfig, PortBinding
from runtime.errors import BadRequest, Conflict, Forbidden, NotFound, no_such_network
from runtime.files import write_atomically
from runtime.forwarding import enable_forwarding, route_loopback
from runtime.ipam import AddressPool, free_subnet, overlapping, parse_address, parse_subnet
from runtime.nat import Forward, Nftables
from runtime.netlink import Interfaces, Namespace, VethSpec
from runtime.network_model import Attachment, Endpoint, Network, NetworkRequest, bridge_name
from runtime.ports import Published, Reservations, wanted_bindings

__all__ = ["Attachment", "Endpoint", "Network", "NetworkRequest", "Networks"]

log = logging.getLogger(__name__)

T = TypeVar("T")


class Networks:
    """All networks of this engine, and what is attached to them. Safe to call from several threads.

    ``bridge`` and ``subnet`` are those of the default network (an empty subnet takes a free one); ``table`` names
    the nftables table. Calls block for some milliseconds: from asyncio, call them in a thread.
    """

    def __init__(
        self,
        state_dir: Path,
        run_dir: Path,
        *,
        bridge: str = "taffrail0",
        subnet: str = "",
        table: str = "taffrail",
    ) -> None:
        self._definitions = state_dir / "networks"
        self._records = run_dir / "attachments"
        self._namespaces = run_dir / "netns"
        for directory in (self._definitions, self._records, self._namespaces):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._bridge = bridge
        self._subnet = subnet
        self._filter = Nftables(table)
        self._ports = Reservations()
        self._lock = threading.RLock()
        # one thread for netlink: its sockets and its namespace are that thread's
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="netlink")
        self._interfaces: Interfaces | None = None
        self._networks: dict[str, Network] = {}
        self._pools: dict[str, AddressPool] = {}
        self._attachments: dict[str, Attachment] = {}

    # -- life cycle --------------------------------------------------------------------------------

    def start(self) -> None:
        """Read the records and bring the kernel into their state. Call once, before anything else."""
        with self._lock:
            self._interfaces = self._worker.submit(Interfaces).result()
            self._load()
            self._add_predefined()
            for network in self._bridges():
                self._make_bridge(network)
            enable_forwarding()
            self._apply_filter()

    def reconcile(self, alive: Collection[str]) -> list[str]:
        """After a restart: release the attachments of containers that run no more; their ids."""
        with self._lock:
            gone = [container_id for container_id in self._attachments if container_id not in alive]
            for container_id in gone:
                self.release(container_id)
            for path in self._namespaces.iterdir():
                if path.name not in self._attachments:
                    Interfaces.remove_namespace(path)
            return gone

    def close(self) -> None:
        """Let go of sockets and threads; networks and attachments stay in the kernel for the next start."""
        with self._lock:
            if self._interfaces is not None:
                self._worker.submit(self._interfaces.close).result()
                self._interfaces = None
            self._ports.close()
            self._worker.shutdown()

    def destroy(self) -> None:
        """Take everything out of the kernel: attachments, bridges, rules. Definitions stay. Then ``close``."""
        with self._lock:
            for container_id in list(self._attachments):
                self.release(container_id)
            for network in self._bridges():
                self._delete_interface(network.bridge)
            self._filter.destroy()
            self.close()

    # -- networks ----------------------------------------------------------------------------------

    def list(self) -> Sequence[Network]:
        """All networks, by name."""
        with self._lock:
            return sorted(self._networks.values(), key=lambda network: network.name)

    def get(self, reference: str) -> Network:
        """By name, id or unique id prefix. Raises NotFound, BadRequest."""
        with self._lock:
            name = "bridge" if reference == "default" else reference
            for network in self._networks.values():
                if name in (network.name, network.id):
                    return network
            found = [network for network in self._networks.values() if network.id.startswith(name)]
            if not name or not found:
                raise no_such_network(reference)
            if len(found) > 1:
                raise BadRequest(
                    f"network {reference} is ambiguous ({len(found)} matches found on ID prefix)"
                )
            return found[0]

    def containers(self, network_id: str) -> dict[str, dict[str, str]]:
        """The ``Containers`` object of ``network inspect``."""
        with self._lock:
            return {
                attachment.container_id: {
                    "Name": attachment.container_name,
                    "EndpointID": endpoint.id,
                    "MacAddress": endpoint.mac,
                    "IPv4Address": f"{endpoint.ip}/{endpoint.prefix}",
                    "IPv6Address": "",
                }
                for attachment in self._attachments.values()
                for endpoint in attachment.endpoints
                if endpoint.network_id == network_id
            }

    def create(self, request: NetworkRequest) -> Network:
        """Make a user-defined bridge network. Raises Conflict, BadRequest, Forbidden with Docker's words."""
        with self._lock:
            if request.name in ("bridge", "host", "none", "default"):
                raise Forbidden(f"operation is not permitted on predefined {request.name} network ")
            if any(network.name == request.name for network in self._networks.values()):
                raise Conflict(f"network with name {request.name} already exists")
            network = self._define(request)
            if self._kernel(lambda links: links.exists(network.bridge)):
                raise Conflict(f"bridge device {network.bridge} exists already")
            self._save(network)
            try:
                self._make_bridge(network)
                self._apply_filter()
            except Exception:
                self._forget(network)
                raise
            return network

    def remove(self, reference: str) -> Network:
        """Remove a user-defined network. Raises NotFound, Forbidden with Docker's words."""
        with self._lock:
            network = self.get(reference)
            if network.predefined:
                raise Forbidden(f"{network.name} is a pre-defined network and cannot be removed")
            if self.containers(network.id):
                raise Forbidden(
                    f"error while removing network: network {network.name} id {network.id} has active endpoints"
                )
            self._forget(network)
            self._apply_filter()
            return network

    # -- containers --------------------------------------------------------------------------------

    def prepare(
        self,
        container_id: str,
        mode: str,
        endpoints: Mapping[str, EndpointConfig] | None = None,
        *,
        name: str = "",
        port_bindings: Mapping[str, Sequence[PortBinding]] | None = None,
        exposed: Sequence[str] = (),
        publish_all: bool = False,
    ) -> Attachment:
        """Make a container's network before it starts.

        ``mode``: HostConfig.NetworkMode, with ``container:`` followed by a full id. ``endpoints``: by network, as
        in NetworkingConfig, for fixed addresses, aliases and further networks. ``name``: the container's, which
        user-defined networks resolve. What is left of an earlier start of the same container is removed first.
        """
        with self._lock:
            self.release(container_id)
            draft = Attachment(container_id, mode, None, name.lstrip("/"), exposed=tuple(exposed))
            if mode == "host":
                return self._keep(draft)
            if mode.startswith("container:"):
                return self._keep(replace(draft, netns_path=self._joined(mode.removeprefix("container:"))))
            draft = replace(draft, netns_path=self._namespaces / container_id)
            try:
                if mode != "none":
                    draft = self._plan(draft, endpoints or {})
                    wanted = wanted_bindings(port_bindings or {}, exposed, publish_all)
                    draft = self._reserve(draft, wanted)
                self._keep(draft)  # before the kernel objects: a successor knows what to remove
                self._kernel(lambda links: self._build(links, draft))
                self._filter.add(draft.forwards())
            except Exception:
                self._attachments.setdefault(container_id, draft)
                self.release(container_id)
                raise
            return draft

    def release(self, container_id: str) -> None:
        """Take a container's network away; nothing happens if it has none."""
        with self._lock:
            attachment = self._attachments.get(container_id)
            if attachment is None:
                return
            self._kernel(lambda links: self._tear_down(links, attachment))
            for endpoint in attachment.endpoints:
                self._give_back(endpoint)
            del self._attachments[container_id]
            self._ports.release(attachment.ports)
            if attachment.ports:
                self._stop_forwarding(attachment.forwards())
            self._record(container_id).unlink(missing_ok=True)

    def attachment(self, container_id: str) -> Attachment | None:
        """What ``prepare`` and ``connect`` made, or None."""
        with self._lock:
            return self._attachments.get(container_id)

    def connect(self, container_id: str, reference: str, config: EndpointConfig | None = None) -> Endpoint:
        """Give a running container an interface on one more network. Raises NotFound, Forbidden."""
        with self._lock:
            network = self.get(reference)
            attachment = self._running(container_id)
            self._check_connectable(attachment, network)
            if any(endpoint.network_id == network.id for endpoint in attachment.endpoints):
                raise Forbidden(
                    f"endpoint with name {attachment.container_name or container_id} "
                    f"already exists in network {network.name}"
                )
            endpoint = self._plan_endpoint(attachment, network, config or EndpointConfig())
            grown = self._keep(replace(attachment, endpoints=(*attachment.endpoints, endpoint)))
            try:
                self._kernel(lambda links: self._plug(links, grown, endpoint))
            except Exception:
                self._unplug(grown, endpoint)
                raise
            return endpoint

    def disconnect(self, container_id: str, reference: str) -> None:
        """Take a running container's interface on a network away. Raises NotFound, Forbidden."""
        with self._lock:
            network = self.get(reference)
            attachment = self._running(container_id)
            self._check_connectable(attachment, network)
            for endpoint in attachment.endpoints:
                if endpoint.network_id == network.id:
                    self._unplug(attachment, endpoint)
                    return
            raise Forbidden(f"container {container_id} is not connected to network {network.name}")

    # -- inside ------------------------------------------------------------------------------------

    def _kernel(self, action: Callable[[Interfaces], T]) -> T:
        links = self._interfaces
        if links is None:
            raise RuntimeError("Networks.start was not called")
        return self._worker.submit(action, links).result()

    def _delete_interface(self, name: str) -> None:
        self._kernel(lambda links: links.delete(name))

    def _bridges(self) -> Sequence[Network]:
        return [network for network in self._networks.values() if network.driver == "bridge"]

    def _load(self) -> None:
        for path in self._definitions.glob("*.json"):
            network = Network.from_json(json.loads(path.read_bytes()))
            self._register(network)
        for path in self._records.glob("*.json"):
            attachment = Attachment.from_json(json.loads(path.read_bytes()))
            self._attachments[attachment.container_id] = attachment
            for endpoint in attachment.endpoints:
                if endpoint.network_id in self._pools:
                    self._pools[endpoint.network_id].restore(IPv4Address(endpoint.ip))
            for item in attachment.ports:
                if problem := self._ports.hold(item):
                    log.warning(
                        "hold port of running container %s: %s", attachment.container_id[:12], problem
                    )

    def _add_predefined(self) -> None:
        names = {network.name for network in self._networks.values()}
        for name, driver in (("host", "host"), ("none", "null")):
            if name not in names:
                self._save(Network(_random_id(name), name, driver, _now()))
        if "bridge" not in names:
            request = NetworkRequest("bridge", subnet=self._subnet, options=_default_options(self._bridge))
            self._save(self._define(request, default=True))

    def _define(self, request: NetworkRequest, default: bool = False) -> Network:
        in_use = self._kernel(lambda links: links.subnets_in_use())
        network_id = _random_id(request.name)
        bridge = bridge_name(request, network_id)
        taken = [IPv4Network(network.subnet) for network in self._bridges()]
        routed = [subnet for subnet, interface in in_use if interface != bridge]
        if request.subnet:
            subnet = parse_subnet(request.subnet)
            if overlapping(subnet, [*taken, *routed]):
                raise Forbidden("Pool overlaps with other one on this address space")
        else:
            if request.gateway or request.ip_range:
                raise BadRequest("IPAM.Config: a gateway or IP range needs a subnet")
            subnet = free_subnet([*taken, *routed], default)
        gateway = parse_address(request.gateway, "gateway") if request.gateway else subnet.network_address + 1
        if gateway not in subnet:
            raise BadRequest(f"no matching subnet for gateway {gateway}")
        if request.ip_range and not parse_subnet(request.ip_range).subnet_of(subnet):
            raise BadRequest(f"no matching subnet for range {request.ip_range}")
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
            configured_subnet=bool(request.subnet) and not default,
            internal=request.internal,
            attachable=request.attachable,
            options=dict(request.options),
            labels=dict(request.labels),
        )

    def _register(self, network: Network) -> None:
        self._networks[network.id] = network
        if network.driver == "bridge":
            reserved = [network.gateway_address]
            reserved += [parse_address(text, "auxiliary address") for text in network.auxiliary.values()]
            ip_range = IPv4Network(network.ip_range) if network.ip_range else None
            self._pools[network.id] = AddressPool(IPv4Network(network.subnet), reserved, ip_range)

    def _save(self, network: Network) -> None:
        self._register(network)
        write_atomically(self._definitions / f"{network.id}.json", json.dumps(network.to_json()).encode())

    def _forget(self, network: Network) -> None:
        self._delete_interface(network.bridge)
        (self._definitions / f"{network.id}.json").unlink(missing_ok=True)
        self._networks.pop(network.id, None)
        self._pools.pop(network.id, None)

    def _make_bridge(self, network: Network) -> None:
        self._kernel(
            lambda links: links.ensure_bridge(
                network.bridge, network.gateway_address, IPv4Network(network.subnet), network.mtu
            )
        )
        route_loopback(network.bridge)

    def _apply_filter(self) -> None:
        forwards = [item for attachment in self._attachments.values() for item in attachment.forwards()]
        self._filter.replace([network.rules for network in self._bridges()], forwards)

    def _stop_forwarding(self, forwards: Sequence[Forward]) -> None:
        try:
            self._filter.remove(forwards)
        except Exception:
            log.warning("remove published ports one by one failed: make the table anew", exc_info=True)
            self._apply_filter()

    def _joined(self, target: str) -> Path | None:
        attachment = self._attachments.get(target)
        if attachment is None:
            raise Conflict(f"cannot join network of a non running container: {target}")
        return attachment.netns_path

    def _plan(self, draft: Attachment, endpoints: Mapping[str, EndpointConfig]) -> Attachment:
        """Choose addresses on the network of the mode, then on the further ones."""
        by_id = {self.get(reference).id: config for reference, config in endpoints.items()}
        first = self.get(draft.mode)
        for network_id in dict.fromkeys([first.id, *by_id]):
            network = self._networks[network_id]
            if network.driver != "bridge":
                raise BadRequest(f"conflicting options: cannot attach both {network.name} and other networks")
            endpoint = self._plan_endpoint(draft, network, by_id.get(network_id) or EndpointConfig())
            draft = replace(draft, endpoints=(*draft.endpoints, endpoint))
            self._attachments[draft.container_id] = draft  # so that a failure gives the addresses back
        return draft

    def _plan_endpoint(self, attachment: Attachment, network: Network, config: EndpointConfig) -> Endpoint:
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
        taken = {endpoint.interface for endpoint in attachment.endpoints}
        interface = next(f"eth{n}" for n in range(len(taken) + 1) if f"eth{n}" not in taken)
        endpoint_id = _stable_id(attachment.container_id, network.id)
        names = [attachment.container_name, *config.aliases, attachment.container_id[:12]]
        return Endpoint(
            id=endpoint_id,
            network_id=network.id,
            network_name=network.name,
            interface=interface,
            host_interface=f"veth{endpoint_id[:10]}",
            ip=str(address),
            prefix=IPv4Network(network.subnet).prefixlen,
            gateway=network.gateway,
            mac=config.mac_address or _mac(address),
            aliases=() if network.name == "bridge" else tuple(dict.fromkeys(n for n in names if n)),
            fixed_ip=config.ipv4_address,
        )

    def _reserve(self, draft: Attachment, wanted: Sequence[tuple[int, str, PortBinding]]) -> Attachment:
        if self._networks[draft.endpoints[0].network_id].internal:
            return draft  # Docker publishes nothing there either
        published: list[Published] = []
        try:
            for port, protocol, binding in wanted:
                published.append(self._ports.reserve(port, protocol, binding))
        except Exception:
            self._ports.release(published)
            raise
        return replace(draft, ports=tuple(published))

    def _keep(self, attachment: Attachment) -> Attachment:
        self._attachments[attachment.container_id] = attachment
        record = json.dumps(attachment.to_json()).encode()
        write_atomically(self._record(attachment.container_id), record, durable=False)
        return attachment

    def _record(self, container_id: str) -> Path:
        return self._records / f"{container_id}.json"

    def _build(self, links: Interfaces, attachment: Attachment) -> None:
        assert attachment.netns_path is not None
        with links.new_namespace(attachment.netns_path) as namespace:
            namespace.loopback_up()
            for position, endpoint in enumerate(attachment.endpoints):
                self._plug_into(links, namespace, endpoint, position == 0, bool(attachment.ports))

    def _plug(self, links: Interfaces, attachment: Attachment, endpoint: Endpoint) -> None:
        assert attachment.netns_path is not None
        with links.namespace(attachment.netns_path) as namespace:
            first = len(attachment.endpoints) == 1
            self._plug_into(links, namespace, endpoint, first, bool(attachment.ports))

    def _plug_into(
        self, links: Interfaces, namespace: Namespace, endpoint: Endpoint, gateway: bool, hairpin: bool
    ) -> None:
        network = self._networks[endpoint.network_id]
        links.delete(endpoint.host_interface)  # left by an attempt that did not end
        veth = VethSpec(
            bridge=network.bridge,
            host_interface=endpoint.host_interface,
            interface=endpoint.interface,
            mac=endpoint.mac,
            address=IPv4Address(endpoint.ip),
            subnet=IPv4Network(network.subnet),
            gateway=network.gateway_address if gateway and not network.internal else None,
            mtu=network.mtu,
            hairpin=hairpin,
        )
        links.plug(veth, namespace)

    def _tear_down(self, links: Interfaces, attachment: Attachment) -> None:
        for endpoint in attachment.endpoints:
            links.delete(endpoint.host_interface)
        own = self._namespaces / attachment.container_id
        if attachment.netns_path == own:
            links.remove_namespace(own)

    def _unplug(self, attachment: Attachment, endpoint: Endpoint) -> None:
        """Take one endpoint away; the next one takes over the default route."""
        self._delete_interface(endpoint.host_interface)
        self._give_back(endpoint)
        left = tuple(item for item in attachment.endpoints if item != endpoint)
        if attachment.endpoints[0] == endpoint and attachment.ports:
            self._stop_forwarding(attachment.forwards())
        smaller = self._keep(replace(attachment, endpoints=left))
        if attachment.endpoints[0] == endpoint and left:
            self._kernel(lambda links: self._reroute(links, smaller))
            self._filter.add(smaller.forwards())

    def _reroute(self, links: Interfaces, attachment: Attachment) -> None:
        assert attachment.netns_path is not None
        network = self._networks[attachment.endpoints[0].network_id]
        if not network.internal:
            with links.namespace(attachment.netns_path) as namespace:
                namespace.default_route(network.gateway_address)

    def _give_back(self, endpoint: Endpoint) -> None:
        pool = self._pools.get(endpoint.network_id)
        if pool is not None:
            pool.give_back(IPv4Address(endpoint.ip))

    def _running(self, container_id: str) -> Attachment:
        attachment = self._attachments.get(container_id)
        if attachment is None:
            raise NotFound(f"container {container_id} has no network: it is not running")
        return attachment

    @staticmethod
    def _check_connectable(attachment: Attachment, network: Network) -> None:
        if network.driver == "host" or attachment.mode == "host":
            raise Forbidden("container cannot be disconnected from host network or connected to host network")
        if attachment.mode.startswith("container:"):
            raise Forbidden(
                "container sharing network namespace with another container or host "
                "cannot be connected to any other network"
            )
        if network.driver == "null" or attachment.mode == "none":
            raise Forbidden(
                "container cannot be connected to multiple networks with one of the networks "
                "in private (none) mode"
            )


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
