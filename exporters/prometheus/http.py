"""``GET /metrics``: container, host and own series, fresh, compressed, and filtered where asked.

Rendering runs in a thread so that a large page does not hold up whoever else shares the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp import web

from collector.sampler import Sampler
from exporters.prometheus.exposition import CONTENT_TYPE, Exposition
from exporters.prometheus.node_page import NodePage
from exporters.prometheus.page import Only, Page, SharedPage
from exporters.prometheus.self_metrics import SelfMetrics

__all__ = ["page_of", "routes"]


def page_of(
    exposition: Exposition,
    sampler: Sampler,
    self_metrics: SelfMetrics | None = None,
    max_age: float = 1.0,
    node: NodePage | None = None,
) -> Callable[[], bytes]:
    """The whole page as ``GET /metrics`` has it, for whoever sends it elsewhere. To be called in a thread."""
    return Page(exposition, sampler, self_metrics, max_age, node).plain


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
    cgroup path), ``?collect[]=`` only those groups of host counters, as Node Exporter has it; a group that
    does not exist is answered with 400. A sampling pass is made when the newest is older than ``max_age``
    seconds; who asks for the whole page within ``max_age`` of another gets the same one.
    """
    page = Page(exposition, sampler, self_metrics, max_age, node)
    shared = SharedPage(page, max_age)

    async def metrics(request: web.Request) -> web.Response:
        only = Only(*(_all(request, key) for key in ("name", "id", "collect")))
        unknown = sorted(only.groups - set(page.groups))
        if unknown:
            known = ", ".join(page.groups) or "none"
            text = f"collect[]={unknown[0]}: no such group of host counters; there are {known}\n"
            raise web.HTTPBadRequest(text=text)
        compress = _accepts_gzip(request.headers.get("Accept-Encoding", ""))
        if only.everything:
            body = await shared.get(compress)
        else:
            body = await asyncio.to_thread(page.gzip if compress else page.plain, only)
        headers = {"Content-Type": CONTENT_TYPE, "Vary": "Accept-Encoding"}
        if compress:
            headers["Content-Encoding"] = "gzip"
        return web.Response(body=body, headers=headers)

    app.router.add_get("/metrics", metrics)


def _all(request: web.Request, key: str) -> frozenset[str]:
    """Every value of a key of the query, in PHP's way of writing it, too."""
    return frozenset(request.query.getall(key, []) + request.query.getall(f"{key}[]", []))


def _accepts_gzip(header: str) -> bool:
    """Whether an Accept-Encoding header allows gzip (RFC 9110, 12.5.3)."""
    for item in header.lower().split(","):
        coding, _, parameters = item.partition(";")
        if coding.strip() in ("gzip", "x-gzip", "*"):
            quality = parameters.replace(" ", "")
            return quality not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
