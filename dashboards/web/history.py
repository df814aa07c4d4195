"""The HTTP API of the past: curves of one container, and every container's numbers at one moment.

``GET /api/v1/history?container=NAME&from=&to=&step=``: one container (a removed one too, by name or id; ``/`` is
the host) as JSON columns: ``{"id", "name", "image", "engine", "from", "to", "step", "resolution", "times": […],
"columns": {"cpu_percent": […], …}, "totals": {"cpu_seconds": …, …}}``. ``times`` are where the steps begin, in Unix
seconds; a value is null where nothing is known; the columns are those of ``collector.history.curves.COLUMNS``.
``step`` is in seconds and rounded up to what the range's resolution (1, 10 or 60 seconds) allows; without it one
is chosen. Default range: the last ten minutes.

``GET /api/v1/history/at?time=``: back in time, ``{"time_ns", "resolution", "host", "containers": [row, …]}`` with
the host (id ``/``) first and every container that ran at that moment, by name. A row has the keys of a row of
``/api/v1/stats`` (``id``, ``name``, ``image``, ``engine``, ``state``, ``host``, ``time_ns``, ``cpu_percent``,
``memory_usage_bytes``, ``memory_limit_bytes``, ``memory_percent``, ``net_rx_bytes``, ``net_tx_bytes``,
``block_read_bytes``, ``block_write_bytes``, ``pids``) and rates beside the totals
(``net_rx_bytes_per_second``, …, ``throttled_percent``).

``GET /api/v1/history/containers?from=&to=``: which containers there is history of, removed ones included.

Times are Unix seconds (``1767225600.5``), nanoseconds (16 digits or more), or seconds before now (``-3600``).
Errors are ``{"message": …}`` with status 400, or 404 for a container without history.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import TypeVar

from aiohttp import web

from collector.history.reader import Answer, HistoryError, HistoryReader
from dashboards.web.answers import json_answer, refusal
from dashboards.web.queries import time_of

__all__ = ["HistoryApi"]

log = logging.getLogger(__name__)

_MOST_STEP = 7 * 86400

T = TypeVar("T")


class HistoryApi:
    """The handlers; questions are answered in a thread, since they read files."""

    def __init__(self, reader: HistoryReader, host: str) -> None:
        self._reader = reader
        self._host = host

    def add_routes(self, app: web.Application) -> None:
        """Put the handlers under ``/api/v1/history``."""
        app.router.add_get("/api/v1/history", self._curves)
        app.router.add_get("/api/v1/history/at", self._at)
        app.router.add_get("/api/v1/history/containers", self._containers)

    async def _curves(self, request: web.Request) -> web.Response:
        now_us = time.time_ns() // 1000
        until_us = time_of(request, "to", now_us, now_us)
        since_us = time_of(request, "from", now_us, until_us - 600 * 1_000_000)
        step = _step(request)
        key = request.query.get("container", "")
        answer = await _answered(lambda: self._reader.curves(key, since_us, until_us, step))
        return json_answer(_curves_json(answer, since_us, until_us))

    async def _at(self, request: web.Request) -> web.Response:
        now_us = time.time_ns() // 1000
        time_us = time_of(request, "time", now_us, now_us)
        resolution, moments = await _answered(lambda: self._reader.at(time_us))
        rows = [{**asdict(one), "state": "running", "host": self._host} for one in moments]
        return json_answer(
            {"time_ns": time_us * 1000, "resolution": resolution, "host": self._host, "containers": rows}
        )

    async def _containers(self, request: web.Request) -> web.Response:
        now_us = time.time_ns() // 1000
        until_us = time_of(request, "to", now_us, now_us)
        since_us = time_of(request, "from", now_us, until_us - 7 * 86400 * 1_000_000)
        found = await _answered(lambda: self._reader.held(since_us, until_us))
        return json_answer([asdict(one) for one in found])


async def _answered(question: Callable[[], T]) -> T:
    try:
        return await asyncio.to_thread(question)
    except HistoryError as error:
        kind = web.HTTPNotFound if str(error).startswith("container=") else web.HTTPBadRequest
        raise refusal(kind, str(error)) from error


def _curves_json(answer: Answer, since_us: int, until_us: int) -> dict[str, object]:
    held, found = answer.container, answer.curves
    return {
        "id": held.id,
        "name": held.name,
        "image": held.image,
        "engine": held.engine,
        "from": since_us / 1e6,
        "to": until_us / 1e6,
        "step": answer.step,
        "resolution": answer.resolution,
        "times": list(found.times),
        "columns": found.columns,
        "totals": found.totals,
        "averages": found.averages,
    }


def _step(request: web.Request) -> int:
    text = request.query.get("step", "")
    if not text:
        return 0
    if not re.fullmatch(r"\d{1,7}", text) or not 1 <= int(text) <= _MOST_STEP:
        raise refusal(web.HTTPBadRequest, f"step={text!r}: expected whole seconds between 1 and {_MOST_STEP}")
    return int(text)
