"""``GET /api/v1/moment``: the host and its containers as they were at a moment of the last ten minutes, or now.

Rows are those of ``stats``, the host's first, so that ``taffrail top`` shows the past as it shows the
present. Older times are ``history``'s.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import asdict

import orjson
from aiohttp import web

from collector.container import Container
from collector.discovery.registry import RUNNING, Containers
from collector.history import Point
from collector.sampler import HOST, Sampler
from collector.stats import Stats

__all__ = ["MomentApi", "stats_at"]

#: A sample is a moment's if it is not older than so many intervals.
_INTERVALS = 2.5


def stats_at(
    history: Sequence[Point], time_ns: int, longest_ns: int, limit_bytes: int, cpus: int
) -> Stats | None:
    """A row from recorded points; None where the newest by then is older than ``longest_ns``.

    Memory is the working set: the recorded points do not know whether Docker would count all of it.
    """
    index = bisect_right(history, time_ns, key=lambda point: point.time_ns) - 1
    if index < 0:
        return None
    now = history[index]
    if time_ns - now.time_ns > longest_ns:
        return None
    before = history[index - 1] if index else now
    seconds = (now.time_ns - before.time_ns) / 1e9

    def rate(key: str) -> float:
        grown = float(getattr(now, key) - getattr(before, key))
        return max(0.0, grown) / seconds if seconds > 0 else 0.0

    return Stats(
        time_ns=now.time_ns,
        cpu_percent=rate("cpu_seconds") * 100,
        online_cpus=cpus,
        memory_usage_bytes=now.working_set_bytes,
        memory_limit_bytes=limit_bytes,
        memory_percent=now.working_set_bytes / limit_bytes * 100 if limit_bytes else 0.0,
        net_rx_bytes=now.rx_bytes,
        net_tx_bytes=now.tx_bytes,
        block_read_bytes=now.read_bytes,
        block_write_bytes=now.write_bytes,
        pids=now.pids,
        net_rx_bytes_per_second=rate("rx_bytes"),
        net_tx_bytes_per_second=rate("tx_bytes"),
        block_read_bytes_per_second=rate("read_bytes"),
        block_write_bytes_per_second=rate("write_bytes"),
    )


class MomentApi:
    """The handler."""

    def __init__(self, containers: Containers, sampler: Sampler, host: str) -> None:
        self._containers = containers
        self._sampler = sampler
        self._host = host

    def add_routes(self, app: web.Application) -> None:
        """Put the handler under ``/api/v1``."""
        app.router.add_get("/api/v1/moment", self._moment)

    async def _moment(self, request: web.Request) -> web.Response:
        text = request.query.get("time", "")
        if not text:
            return self._answer(time.time_ns(), self._now(request.query.get("all") in ("1", "true")))
        if not (text.isascii() and text.isdigit()) or len(text) > 20:
            message = f"time={text[:40]!r}: expected nanoseconds since 1970"
            raise web.HTTPBadRequest(body=orjson.dumps({"message": message}), content_type="application/json")
        return self._answer(int(text), self._then(int(text)))

    def _now(self, every: bool) -> list[dict[str, object]]:
        rows = [self._row(self._host_container(), self._sampler.stats(HOST))]
        for container in sorted(self._containers.all(), key=lambda known: known.name):
            if container.id != HOST and (every or container.state in RUNNING):
                rows.append(self._row(container, self._sampler.stats(container.id)))
        return rows

    def _then(self, time_ns: int) -> list[dict[str, object]]:
        """Whoever has a sample of that moment, those that have ended since too."""
        known = {container.id: container for container in self._containers.all()}
        known |= {
            stone.container.id: stone.container
            for stone in self._containers.tombstones()
            if stone.container.id not in known
        }
        known.pop(HOST, None)
        chosen = [self._host_container(), *sorted(known.values(), key=lambda container: container.name)]
        longest = int(self._sampler.interval * _INTERVALS * 1e9)
        memory = self._sampler.machine.memory.total_bytes
        cpus = self._sampler.machine.topology.cores
        rows = []
        for container in chosen:
            limit = min(container.memory_limit_bytes or memory, memory)
            found = stats_at(self._sampler.history(container.id), time_ns, longest, limit, cpus)
            if found is not None:
                rows.append(self._row(container, found) | {"state": "running"})
        return rows

    def _host_container(self) -> Container:
        return Container(HOST, self._host)

    def _row(self, container: Container, stats: Stats) -> dict[str, object]:
        return {
            "id": container.id,
            "name": container.name,
            "image": container.image,
            "engine": container.engine,
            "state": container.state,
            "health": container.health,
            "host": self._host,
        } | asdict(stats)

    def _answer(self, time_ns: int, rows: list[dict[str, object]]) -> web.Response:
        oldest = self._sampler.history(HOST)
        body = {
            "time_ns": time_ns,
            "host": self._host,
            "oldest_ns": oldest[0].time_ns if oldest else time_ns,
            "containers": rows,
        }
        return web.Response(body=orjson.dumps(body), content_type="application/json")
