"""Networks of containers: the default bridge and user-defined ones, and a namespace per container.

``Networks.prepare`` makes a container's namespace, interfaces, addresses and published ports before the OCI
runtime starts; ``release`` takes them away. Definitions are kept in the state directory, attachments in the run
directory (written before the kernel objects are made), so an engine that died goes on or cleans up.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from runtime.config import EndpointConfig, PortBinding
from runtime.errors import BadRequest, Conflict, EngineError, Forbidden, NotFound
from runtime.files import write_atomically
from runtime.networks.definitions import Definitions
from runtime.networks.dns import NameServers
from runtime.networks.forwarding import enable_forwarding
from runtime.networks.iptables import ForwardChain
from runtime.networks.model import Attachment, Endpoint, Network, NetworkRequest
from runtime.networks.names import NetworkDirectory
from runtime.networks.nat import Forward, Nftables
from runtime.networks.plumbing import Plumbing
from runtime.networks.ports import Published, Reservations, wanted_bindings

__all__ = ["Attachment", "Endpoint", "Network", "NetworkRequest", "Networks"]

log = logging.getLogger(__name__)


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
        self._records = run_dir / "attachments"
        namespaces = run_dir / "netns"
        for directory in (self._records, namespaces):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._bridge = bridge
        self._subnet = subnet
        self._definitions = Definitions(state_dir / "networks")
        self._plumbing = Plumbing(self._definitions, namespaces)
        self._filter = Nftables(table)
        self._forward_chain = ForwardChain(table)
        self._ports = Reservations()
        self._attachments: dict[str, Attachment] = {}
        self._names = NameServers(NetworkDirectory(self.attachments))
        self._lock = threading.RLock()

    # -- life cycle --------------------------------------------------------------------------------

    def start(self) -> None:
        """Read the records and bring the kernel into their state. Call once, before anything else."""
        with self._lock:
            self._plumbing.open()
            self._definitions.load()
            self._definitions.add_predefined(self._bridge, self._subnet, self._plumbing.subnets_in_use())
            self._load_attachments()
            for network in self._definitions.bridges():
                self._plumbing.make_bridge(network)
            enable_forwarding()
            self._apply_filter()
            self._serve_names()

    def reconcile(self, alive: Collection[str]) -> Sequence[str]:
        """After a restart: release the attachments of containers that run no more; their ids."""
        with self._lock:
            gone = [container_id for container_id in self._attachments if container_id not in alive]
            for container_id in gone:
                self.release(container_id)
            self._plumbing.remove_strays(self._attachments.__contains__)
            return gone

    def close(self) -> None:
        """Let go of sockets and threads; networks and attachments stay in the kernel for the next start."""
        self._names.close()
        with self._lock:
            self._plumbing.close()
            self._ports.close()

    def destroy(self) -> None:
        """Take everything out of the kernel: attachments, bridges, rules; then close. Definitions stay."""
        with self._lock:
            for container_id in list(self._attachments):
                self.release(container_id)
            for network in self._definitions.bridges():
                self._plumbing.delete(network.bridge)
            self._filter.destroy()
            self._forward_chain.remove()
        self.close()

    # -- networks ----------------------------------------------------------------------------------

    def list(self) -> Sequence[Network]:
        """All networks, by name."""
        with self._lock:
            return self._definitions.all()

    def get(self, reference: str) -> Network:
        """By name, id or unique id prefix. Raises NotFound, BadRequest."""
        with self._lock:
            return self._definitions.get(reference)

    def containers(self, network_id: str) -> dict[str, dict[str, str]]:
        """The ``Containers`` object of ``network inspect``."""
        return {
            attachment.container_id: {
                "Name": attachment.container_name,
                "EndpointID": endpoint.id,
                "MacAddress": endpoint.mac,
                "IPv4Address": f"{endpoint.ip}/{endpoint.prefix}",
                "IPv6Address": "",
            }
            for attachment in self.attachments()
            for endpoint in attachment.endpoints
            if endpoint.network_id == network_id
        }

    def create(self, request: NetworkRequest) -> Network:
        """Make a user-defined bridge network. Raises Conflict, BadRequest, Forbidden with Docker's words."""
        with self._lock:
            if request.name in ("bridge", "host", "none", "default"):
                raise Forbidden(f"operation is not permitted on predefined {request.name} network ")
            network = self._definitions.define(request, self._plumbing.subnets_in_use())
            if self._plumbing.exists(network.bridge):
                raise Conflict(f"bridge device {network.bridge} exists already")
            self._definitions.save(network)
            try:
                self._plumbing.make_bridge(network)
                self._apply_filter()
                self._serve_names()
            except Exception:
                self._remove(network)
                raise
            return network

    def remove(self, reference: str) -> Network:
        """Remove a user-defined network. Raises NotFound, Forbidden with Docker's words."""
        with self._lock:
            network = self._definitions.get(reference)
            if network.predefined:
                raise Forbidden(f"{network.name} is a pre-defined network and cannot be removed")
            if self.containers(network.id):
                raise Forbidden(
                    f"error while removing network: network {network.name} id {network.id} has active endpoints"
                )
            self._remove(network)
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
        dns: Sequence[str] = (),
    ) -> Attachment:
        """Make a container's network before it starts.

        ``mode``: HostConfig.NetworkMode, with ``container:`` followed by a full id. ``endpoints``: by network,
        as in NetworkingConfig, for fixed addresses, aliases and further networks. ``name``: the container's,
        which user-defined networks resolve. ``dns``: its own servers for all other names. What is left of an
        earlier start of the same container is removed first. A failure leaves nothing behind.
        """
        with self._lock:
            self.release(container_id)
            draft = Attachment(
                container_id, mode, None, name.lstrip("/"), exposed=tuple(exposed), dns=tuple(dns)
            )
            if mode == "host":
                return self._keep(draft)
            if mode.startswith("container:"):
                return self._keep(replace(draft, netns_path=self._joined(mode.removeprefix("container:"))))
            draft = replace(draft, netns_path=self._plumbing.namespace_path(container_id))
            try:
                if mode != "none":
                    draft = self._plan(draft, endpoints or {})
                    draft = self._reserve(draft, wanted_bindings(port_bindings or {}, exposed, publish_all))
                self._keep(draft)  # before the kernel objects: a successor knows what to remove
                self._plumbing.build(draft)
                self._filter.add(draft.forwards())
            except Exception:
                self.release(container_id)
                raise
            return draft

    def release(self, container_id: str) -> None:
        """Take a container's network away; nothing happens if it has none."""
        with self._lock:
            attachment = self._attachments.get(container_id)
            if attachment is None:
                return
            self._plumbing.tear_down(attachment)
            del self._attachments[container_id]
            for endpoint in attachment.endpoints:
                self._definitions.give_back(endpoint)
            self._ports.release(attachment.ports)
            self._stop_forwarding(attachment.forwards())
            self._record(container_id).unlink(missing_ok=True)

    def attachment(self, container_id: str) -> Attachment | None:
        """What ``prepare`` and ``connect`` made, or None."""
        return self._attachments.get(container_id)

    def attachments(self) -> Sequence[Attachment]:
        """Those of all running containers, at this moment; does not wait for what is being made."""
        return [*self._attachments.values()]

    def connect(self, container_id: str, reference: str, config: EndpointConfig | None = None) -> Endpoint:
        """Give a running container an interface on one more network. Raises NotFound, Forbidden."""
        with self._lock:
            network = self._definitions.get(reference)
            attachment = self._connectable(container_id, network)
            if any(endpoint.network_id == network.id for endpoint in attachment.endpoints):
                name = attachment.container_name or container_id
                raise Forbidden(f"endpoint with name {name} already exists in network {network.name}")
            endpoint = self._definitions.new_endpoint(attachment, network, config or EndpointConfig())
            grown = self._keep(replace(attachment, endpoints=(*attachment.endpoints, endpoint)))
            try:
                self._plumbing.plug(grown, endpoint)
            except Exception:
                self._unplug(grown, endpoint)
                raise
            return endpoint

    def disconnect(self, container_id: str, reference: str) -> None:
        """Take a running container's interface on a network away. Raises NotFound, Forbidden."""
        with self._lock:
            network = self._definitions.get(reference)
            attachment = self._connectable(container_id, network)
            for endpoint in attachment.endpoints:
                if endpoint.network_id == network.id:
                    self._unplug(attachment, endpoint)
                    return
            raise Forbidden(f"container {container_id} is not connected to network {network.name}")

    # -- inside ------------------------------------------------------------------------------------

    def _load_attachments(self) -> None:
        for path in self._records.glob("*.json"):
            attachment = Attachment.from_json(json.loads(path.read_bytes()))
            self._attachments[attachment.container_id] = attachment
            for endpoint in attachment.endpoints:
                self._definitions.restore(endpoint)
            for item in attachment.ports:
                if problem := self._ports.hold(item):
                    log.warning("hold a port for container %s: %s", attachment.container_id[:12], problem)

    def _remove(self, network: Network) -> None:
        self._plumbing.delete(network.bridge)
        self._definitions.forget(network)
        self._serve_names()

    def _apply_filter(self) -> None:
        forwards = [item for attachment in self.attachments() for item in attachment.forwards()]
        bridges = self._definitions.bridges()
        self._filter.replace([network.rules for network in bridges], forwards)
        self._forward_chain.accept([network.bridge for network in bridges])

    def _serve_names(self) -> None:
        user_defined = [network for network in self._definitions.bridges() if not network.predefined]
        self._names.serve({network.id: network.gateway for network in user_defined})

    def _stop_forwarding(self, forwards: Sequence[Forward]) -> None:
        if not forwards:
            return
        try:
            self._filter.remove(forwards)
        except EngineError as error:  # a start that failed half-way had not added them all
            log.info("make the packet filter anew, as single ports could not be taken away: %s", error)
            self._apply_filter()

    def _joined(self, target: str) -> Path | None:
        attachment = self._attachments.get(target)
        if attachment is None:
            raise Conflict(f"cannot join network of a non running container: {target}")
        return attachment.netns_path

    def _plan(self, draft: Attachment, endpoints: Mapping[str, EndpointConfig]) -> Attachment:
        """Choose addresses on the network of the mode, then on the further ones."""
        by_id = {self._definitions.get(reference).id: config for reference, config in endpoints.items()}
        for network_id in dict.fromkeys([self._definitions.get(draft.mode).id, *by_id]):
            network = self._definitions.get(network_id)
            if network.driver != "bridge":
                raise BadRequest(f"conflicting options: cannot attach both {network.name} and other networks")
            config = by_id.get(network_id) or EndpointConfig()
            endpoint = self._definitions.new_endpoint(draft, network, config)
            draft = replace(draft, endpoints=(*draft.endpoints, endpoint))
            self._attachments[draft.container_id] = draft  # so that a failure gives the addresses back
        return draft

    def _reserve(self, draft: Attachment, wanted: Sequence[tuple[int, str, PortBinding]]) -> Attachment:
        if self._definitions.get(draft.endpoints[0].network_id).internal:
            return draft  # Docker publishes nothing there either
        published: list[Published] = []
        try:
            for port, protocol, binding in wanted:
                published.append(self._ports.reserve(port, protocol, binding))
        except EngineError:
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

    def _unplug(self, attachment: Attachment, endpoint: Endpoint) -> None:
        """Take one endpoint away; the next one takes over the default route and the published ports."""
        self._plumbing.delete(endpoint.host_interface)
        self._definitions.give_back(endpoint)
        left = tuple(item for item in attachment.endpoints if item != endpoint)
        smaller = self._keep(replace(attachment, endpoints=left))
        if attachment.endpoints[0] == endpoint:
            self._stop_forwarding(attachment.forwards())
            if left:
                self._plumbing.reroute(smaller)
                self._filter.add(smaller.forwards())

    def _connectable(self, container_id: str, network: Network) -> Attachment:
        attachment = self._attachments.get(container_id)
        if attachment is None:
            raise NotFound(f"container {container_id} has no network: it is not running")
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
        return attachment
