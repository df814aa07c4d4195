"""``GET /api/v1/sd``: targets for Prometheus' HTTP service discovery, the agent itself and labelled containers.

A container that says ``taffrail.scrape=true`` or ``prometheus.io/scrape=true`` in its labels becomes a
target with ``__meta_taffrail_*`` labels for relabelling. Whether to scrape it is Prometheus' decision.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import orjson
from aiohttp import web

from collector.addresses import local_addresses
from collector.container import Container
from collector.discovery.registry import RUNNING, Containers

__all__ = ["Discovery", "add_service_discovery"]

logger = logging.getLogger(__name__)

#: Where a container says how to scrape it; the first one that has a key decides.
_PREFIXES = ("taffrail.", "prometheus.io/", "prometheus.io.")
_META = "__meta_taffrail_"
_NOT_LABEL = re.compile(r"[^a-zA-Z0-9_]")
Group = dict[str, object]


class Discovery:
    """Makes the answer. ``reach`` is the name Prometheus reached this agent by, without a port."""

    def __init__(self, containers: Containers, proc: Path, host: str) -> None:
        self._containers = containers
        self._proc = proc
        self._host = host
        self._told: dict[str, str] = {}

    def groups(self, reach: str, port: int | None, scheme: str) -> list[Group]:
        """The target groups (prometheus/http_sd), the agent first."""
        own = f"{_bracketed(reach)}:{port}" if port else _bracketed(reach)
        labels = {
            "__scheme__": scheme,
            "__metrics_path__": "/metrics",
            f"{_META}kind": "agent",
            f"{_META}host": self._host,
        }
        found: list[Group] = [{"targets": [own], "labels": labels}]
        wanting = [
            container
            for container in self._containers.all()
            if container.state in RUNNING and _asked(container.labels, "scrape").lower() == "true"
        ]
        for container in sorted(wanting, key=lambda container: container.name):
            found += self._of(container, reach)
        for gone in self._told.keys() - {container.id for container in wanting}:
            del self._told[gone]
        return found

    def _of(self, container: Container, reach: str) -> Iterable[Group]:
        target = _asked(container.labels, "address")
        port = _asked(container.labels, "port")
        if not target:
            if not port.isdigit() or not 0 < int(port) < 65536:
                what = f"label {port!r} as its port" if port else "no label with its port"
                self._tell(
                    container, f"it has {what}: expected taffrail.port or prometheus.io/port, 1 to 65535"
                )
                return
            address = self._address(container, reach)
            if not address:
                self._tell(container, f"no address of its network {container.network_mode!r} is known")
                return
            target = f"{_bracketed(address)}:{port}"
        self._told.pop(container.id, None)
        path = _asked(container.labels, "path") or "/metrics"
        yield {
            "targets": [target],
            "labels": {
                "__scheme__": _asked(container.labels, "scheme") or "http",
                "__metrics_path__": path if path.startswith("/") else f"/{path}",
                **_meta(container, self._host),
            },
        }

    def _address(self, container: Container, reach: str) -> str:
        if container.network_mode == "host":
            return reach
        try:
            return next(iter(local_addresses(self._proc, container.pid)), "")
        except OSError as error:
            logger.debug("cannot read the addresses of container %s: %s", container.name, error)
            return ""

    def _tell(self, container: Container, why: str) -> None:
        if self._told.get(container.id) != why:
            self._told[container.id] = why
            logger.warning("container %s asks to be scraped and is no target: %s", container.name, why)


def add_service_discovery(app: web.Application, discovery: Discovery) -> None:
    """Serve the target groups at ``/api/v1/sd``."""

    async def answer(request: web.Request) -> web.Response:
        reach, port = _host_and_port(request.host)
        groups = await asyncio.to_thread(discovery.groups, reach, port, request.scheme)
        return web.Response(body=orjson.dumps(groups), content_type="application/json")

    app.router.add_get("/api/v1/sd", answer)


def _asked(labels: Mapping[str, str], key: str) -> str:
    return next((labels[prefix + key].strip() for prefix in _PREFIXES if labels.get(prefix + key)), "")


def _meta(container: Container, host: str) -> dict[str, str]:
    labels = {
        "kind": "container",
        "host": host,
        "container_id": container.id,
        "container_name": container.name,
        "container_image": container.image,
        "container_engine": container.engine,
        "container_network_mode": container.network_mode,
        **{f"container_label_{_NOT_LABEL.sub('_', key)}": value for key, value in container.labels.items()},
    }
    return {_META + key: value for key, value in labels.items() if value}


def _host_and_port(header: str) -> tuple[str, int | None]:
    """Of a Host header (RFC 9110, 7.2): ``name``, ``name:port``, ``[::1]:port``."""
    host, colon, port = header.rpartition(":")
    if colon and port.isdigit() and not host.endswith(":") and (host.startswith("[") or ":" not in host):
        return host.strip("[]"), int(port)
    return header.strip("[]"), None


def _bracketed(host: str) -> str:
    try:
        return f"[{host}]" if ipaddress.ip_address(host).version == 6 else host
    except ValueError:
        return host
