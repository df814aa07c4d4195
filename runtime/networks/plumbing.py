"""Making and taking away what a container's network is in the kernel: namespace, veth pairs, routes.

The netlink thread lives here: its sockets and the namespaces it enters are that thread's own. Which addresses
and names to use is decided by ``network``.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import TypeVar

from runtime.networks.definitions import Definitions, InUse
from runtime.networks.forwarding import route_loopback
from runtime.networks.model import Attachment, Endpoint, Network
from runtime.networks.netlink import Interfaces, Namespace, VethSpec

__all__ = ["Plumbing"]

T = TypeVar("T")


class Plumbing:
    """The kernel side of networks. Every call waits for the netlink thread."""

    def __init__(self, definitions: Definitions, namespaces: Path) -> None:
        self._definitions = definitions
        self._namespaces = namespaces
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="netlink")
        self._links: Interfaces | None = None

    def open(self) -> None:
        """Open the netlink socket."""
        self._links = self._worker.submit(Interfaces).result()

    def close(self) -> None:
        """Close it and end the thread; what was made stays."""
        if self._links is not None:
            self._worker.submit(self._links.close).result()
            self._links = None
        self._worker.shutdown()

    def subnets_in_use(self) -> InUse:
        """Subnets that the host routes, with the interfaces they lead to."""
        return self._run(lambda links: links.subnets_in_use())

    def exists(self, interface: str) -> bool:
        """Whether there is such an interface."""
        return self._run(lambda links: links.exists(interface))

    def make_bridge(self, network: Network) -> None:
        """Make a network's bridge, or bring the one that is there into its state."""
        subnet = IPv4Network(network.subnet)
        self._run(
            lambda links: links.ensure_bridge(network.bridge, network.gateway_address, subnet, network.mtu)
        )
        route_loopback(network.bridge)

    def delete(self, interface: str) -> None:
        """Delete an interface; nothing happens if it is not there."""
        self._run(lambda links: links.delete(interface))

    def namespace_path(self, container_id: str) -> Path:
        """Where a container's own namespace is kept."""
        return self._namespaces / container_id

    def build(self, attachment: Attachment) -> None:
        """Make the namespace and an interface per endpoint; the first one has the default route."""

        def work(links: Interfaces) -> None:
            with links.new_namespace(self.namespace_path(attachment.container_id)) as namespace:
                namespace.loopback_up()
                for position, endpoint in enumerate(attachment.endpoints):
                    self._plug(links, namespace, attachment, endpoint, position == 0)

        self._run(work)

    def tear_down(self, attachment: Attachment) -> None:
        """Take away what ``build`` and ``plug`` made, or a part of it."""

        def work(links: Interfaces) -> None:
            for endpoint in attachment.endpoints:
                links.delete(endpoint.host_interface)
            own = self.namespace_path(attachment.container_id)
            if attachment.netns_path == own:
                links.remove_namespace(own)

        self._run(work)

    def plug(self, attachment: Attachment, endpoint: Endpoint) -> None:
        """Add one endpoint to a namespace that exists."""

        def work(links: Interfaces) -> None:
            with links.namespace(self.namespace_path(attachment.container_id)) as namespace:
                self._plug(links, namespace, attachment, endpoint, len(attachment.endpoints) == 1)

        self._run(work)

    def reroute(self, attachment: Attachment) -> None:
        """Let the default route lead through the first endpoint."""
        network = self._definitions.get(attachment.endpoints[0].network_id)
        if network.internal:
            return

        def work(links: Interfaces) -> None:
            with links.namespace(self.namespace_path(attachment.container_id)) as namespace:
                namespace.default_route(network.gateway_address)

        self._run(work)

    def remove_strays(self, kept: Callable[[str], bool]) -> None:
        """Let go of namespaces whose container id is not ``kept``."""
        for path in self._namespaces.iterdir():
            if not kept(path.name):
                Interfaces.remove_namespace(path)

    def _plug(
        self,
        links: Interfaces,
        namespace: Namespace,
        attachment: Attachment,
        endpoint: Endpoint,
        gateway: bool,
    ) -> None:
        network = self._definitions.get(endpoint.network_id)
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
            hairpin=bool(attachment.ports),
        )
        links.plug(veth, namespace)

    def _run(self, action: Callable[[Interfaces], T]) -> T:
        links = self._links
        if links is None:
            raise RuntimeError("the netlink socket is not open: Networks.start was not called")
        return self._worker.submit(action, links).result()
