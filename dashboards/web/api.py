"""The agent's HTTP API: what the page and the command line ask.

``GET /api/v1/health``, ``containers``, ``stats`` (once, or newline-delimited JSON a second), ``search``
(newline-delimited JSON, newest first). The past is in ``history.py``. Errors are ``{"message": …}`` with an
HTTP status.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial

import orjson
from aiohttp import web

from collector.container import Container
from collector.discovery.registry import Containers
from collector.hits import Hit, SearchError
from collector.sampler import HOST, Sampler
from collector.store import Store
from dashboards.web.answers import json_answer, json_bytes, refusal

__all__ = ["Api"]

log = logging.getLogger(__name__)

_MAX_LIMIT = 100_000
_CHUNK_HITS = 500


class Api:
    """The handlers, over the parts of a running collector."""

    def __init__(self, containers: Containers, sampler: Sampler, store: Store, host: str) -> None:
        self._containers = containers
        self._sampler = sampler
        self._store = store
        self._host = host

    def add_routes(self, app: web.Application) -> None:
        """Put the handlers under ``/api/v1``."""
        app.router.add_get("/api/v1/health", self._health)
        app.router.add_get("/api/v1/containers", self._list)
        app.router.add_get("/api/v1/stats", self._stats)
        app.router.add_get("/api/v1/search", self._search)

    async def _health(self, request: web.Request) -> web.Response:
        return json_answer({"status": "ok", "host": self._host, "time_ns": time.time_ns()})

    async def _list(self, request: web.Request) -> web.Response:
        chosen = self._containers.all()
        if request.query.get("all") in ("1", "true"):
            chosen += self._containers.cgroups()
        return json_answer([_container(container) for container in chosen])

    async def _stats(self, request: web.Request) -> web.StreamResponse:
        if request.query.get("stream") not in ("1", "true"):
            return json_answer(self._stats_now(request))
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        try:
            while True:
                await response.write(json_bytes(self._stats_now(request)) + b"\n")
                await asyncio.sleep(1.0)
        except ConnectionResetError:
            return response

    def _stats_now(self, request: web.Request) -> dict[str, object]:
        """Every container asked for (or all that run), by name, with its latest numbers; the host first if wanted."""
        wanted = [word for word in request.query.get("containers", "").split(",") if word]
        if wanted:
            chosen = [self._named(word) for word in wanted]
        else:
            every = request.query.get("all") in ("1", "true")
            chosen = [c for c in self._containers.all() if every or c.state in ("running", "paused")]
            chosen += self._containers.cgroups() if every else ()
        labels = request.query.get("labels") in ("1", "true")
        rows = [self._row(container, labels) for container in sorted(chosen, key=lambda c: c.name)]
        if request.query.get("with_host") in ("1", "true"):
            rows.insert(0, self._row(Container(HOST, self._host), labels=False))
        return {"time_ns": time.time_ns(), "host": self._host, "containers": rows}

    def _row(self, container: Container, labels: bool) -> dict[str, object]:
        row: dict[str, object] = {
            "id": container.id,
            "name": container.name or container.cgroup,
            "image": container.image,
            "engine": container.engine,
            "state": container.state,
            "health": container.health,
            "host": self._host,
        }
        if labels:
            row["labels"] = dict(container.labels)
        return row | asdict(self._sampler.stats(container.id))

    def _named(self, word: str) -> Container:
        container = self._containers.get(word)
        if container is None:
            raise refusal(web.HTTPNotFound, f"No such container: {word}")
        return container

    async def _search(self, request: web.Request) -> web.StreamResponse:
        from collector.query import QueryError, parse  # memory that is spared while nobody searches

        text = request.query.get("query", "")
        now = time.time_ns()
        since = _whole(request, "since", now - 3600 * 1_000_000_000)
        until = _whole(request, "until", now + 1_000_000_000)
        limit = min(_whole(request, "limit", 1000), _MAX_LIMIT)
        try:
            query = parse(text)
        except QueryError as error:
            raise refusal(web.HTTPBadRequest, str(error)) from error
        hits = iter(self._store.search(query, since, until, limit, newest_first=True))
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        response.enable_compression()
        await response.prepare(request)
        loop = asyncio.get_running_loop()
        try:
            while chunk := await loop.run_in_executor(None, partial(_take, hits, _CHUNK_HITS)):
                await response.write(b"".join(map(_hit_line, chunk)))
        except SearchError as error:
            await response.write(orjson.dumps({"error": str(error)}) + b"\n")
        except ConnectionResetError:
            log.debug("search %r: the client went away", text)
        return response


def _take(hits: Iterator[Hit], count: int) -> Sequence[Hit]:
    taken = []
    for hit in hits:
        taken.append(hit)
        if len(taken) == count:
            break
    return taken


def _hit_line(hit: Hit) -> bytes:
    return (
        orjson.dumps(
            {
                "time_ns": hit.time_ns,
                "container": hit.source.container_name,
                "container_id": hit.source.container_id,
                "image": hit.source.image,
                "host": hit.source.host,
                "input": hit.source.input,
                "stream": hit.stream.text,
                "line": hit.line.decode("utf-8", "replace"),
            }
        )
        + b"\n"
    )


def _container(container: Container) -> dict[str, object]:
    return {
        "id": container.id,
        "name": container.name,
        "image": container.image,
        "engine": container.engine,
        "state": container.state,
        "exit_code": container.exit_code,
        "oom_killed": container.oom_killed,
        "restarts": container.restarts,
        "started_ns": container.started_ns,
        "finished_ns": container.finished_ns,
        "networks": list(container.networks),
        "log_driver": container.log.driver,
        "health": container.health,
        "labels": dict(container.labels),
    }


def _whole(request: web.Request, key: str, default: int) -> int:
    text = request.query.get(key, "")
    if not text:
        return default
    if not text.isdigit():
        raise refusal(web.HTTPBadRequest, f"{key}={text!r}: expected a whole number")
    return int(text)
