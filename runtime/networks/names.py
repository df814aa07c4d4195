"""Who is where on user-defined networks, as the resolver asks it: over the attachments of running containers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from runtime.networks.model import Attachment

__all__ = ["NetworkDirectory"]


class NetworkDirectory:
    """Who is where, for the resolver: over a copy of the attachments, without waiting for the lock."""

    def __init__(self, attachments: Callable[[], Sequence[Attachment]]) -> None:
        self._attachments = attachments

    def addresses(self, network_id: str, asker: str, name: str) -> Sequence[str]:
        """Addresses behind a name on the networks of the asking container."""
        shared = self._shared(network_id, asker)
        return [
            endpoint.ip
            for attachment in self._attachments()
            for endpoint in attachment.endpoints
            if endpoint.network_id in shared and name in (alias.lower() for alias in endpoint.aliases)
        ]

    def names(self, network_id: str, asker: str, address: str) -> Sequence[str]:
        """The name of the container with this address, as ``container.network``."""
        shared = self._shared(network_id, asker)
        return [
            f"{attachment.container_name or attachment.container_id[:12]}.{endpoint.network_name}"
            for attachment in self._attachments()
            for endpoint in attachment.endpoints
            if endpoint.network_id in shared and endpoint.ip == address
        ]

    def upstream(self, network_id: str, asker: str) -> Sequence[str]:
        """The asking container's own DNS servers."""
        found = self._asker(network_id, asker)
        return found.dns if found else ()

    def _shared(self, network_id: str, asker: str) -> set[str]:
        found = self._asker(network_id, asker)
        endpoints = found.endpoints if found else ()
        return {network_id, *(item.network_id for item in endpoints if item.network_name != "bridge")}

    def _asker(self, network_id: str, address: str) -> Attachment | None:
        for attachment in self._attachments():
            for endpoint in attachment.endpoints:
                if endpoint.network_id == network_id and endpoint.ip == address:
                    return attachment
        return None
