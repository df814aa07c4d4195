"""``GET /metrics``: container, host and own series, fresh, compressed, and filtered where asked.

Rendering runs in a thread so that a large page does not hold up whoever else shares the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp import web
from isal import igzip

from collector.sampler import Sampler
from exporters.prometheus.exposition import CONTENT_TYPE, Exposition
from exporters.prometheus.node_page import NodePage
from exporters.prometheus.self_metrics import SelfMetrics

__all__ = ["page_of", "routes"]

#: Below this a compressed answer saves nothing.
_COMPRESS_FROM = 1400


def page_of(
    exposition: Exposition,
    sampler: Sampler,
    self_metrics: SelfMetrics | None = None,
    max_age: float = 1.0,
    node: NodePage | None = None,
) -> Callable[[], bytes]:
    """The whole page as ``GET /metrics`` has it, for whoever sends it elsewhere. To be called in a thread."""

    def page() -> bytes:
        sampler.sample_if_older(max_age)
        body = exposition.render()
        if node is not None:
            body += node.render()
        return body if self_metrics is None else body + self_metrics.text()

    return page


def routes(
    app: web.Application,
    exposition: Exposition,
    sampler: Sampler,
    self_metrics: SelfMetrics | None = None,
    max_age: float = 1.0,
    node: NodePage | None = None,
) -> None:
    """Add ``GET /metrics`` to an application.

    ``?name=FAMILY`` (or ``name[]``, any number of times) leaves only those families of container and
    host series and none of our own, ``?id=`` only those containers (by id, name, beginning of an id, or
    cgroup path). A sampling pass is made when the newest is older than ``max_age``.
    """

    def page(names: frozenset[str], ids: frozenset[str], compress: bool) -> bytes:
        sampler.sample_if_older(max_age)
        body = exposition.render(names=names, ids=ids)
        if node is not None and not ids:
            body += node.render(names)
        if self_metrics is not None and not names and not ids:
            body += self_metrics.text()
        if compress and len(body) >= _COMPRESS_FROM:
            compressed: bytes = igzip.compress(body, 1)
            return compressed
        return body

    async def metrics(request: web.Request) -> web.Response:
        names = frozenset(request.query.getall("name", []) + request.query.getall("name[]", []))
        ids = frozenset(request.query.getall("id", []) + request.query.getall("id[]", []))
        compress = _accepts_gzip(request.headers.get("Accept-Encoding", ""))
        body = await asyncio.to_thread(page, names, ids, compress)
        headers = {"Content-Type": CONTENT_TYPE, "Vary": "Accept-Encoding"}
        if compress and body[:2] == b"\x1f\x8b":
            headers["Content-Encoding"] = "gzip"
        return web.Response(body=body, headers=headers)

    app.router.add_get("/metrics", metrics)


def _accepts_gzip(header: str) -> bool:
    """Whether an Accept-Encoding header allows gzip (RFC 9110, 12.5.3)."""
    for item in header.lower().split(","):
        coding, _, parameters = item.partition(";")
        if coding.strip() in ("gzip", "x-gzip", "*"):
            quality = parameters.replace(" ", "")
            return quality not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
