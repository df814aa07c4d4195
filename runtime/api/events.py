"""``GET /events``: the engine's events as a stream of JSON objects."""

from __future__ import annotations

import asyncio
import contextlib
import time

import orjson
from aiohttp import web

from runtime.api.routing import Call, Routes
from runtime.api.times import parse_time
from runtime.events import Event, Filters

__all__ = ["routes"]

routes = Routes()


@routes.get("/events")
async def events(call: Call) -> web.StreamResponse:
    """Remembered events from ``since`` on, then new ones until ``until`` (or until the client leaves)."""
    since_ns = parse_time(call.text("since"), "since")
    until_ns = parse_time(call.text("until"), "until")
    filters = Filters(call.filters())
    bus = call.engine.events
    with bus.subscribe(filters) as subscription:
        # Subscribed first: nothing falls between the history and the stream.
        past = bus.history(since_ns, until_ns, filters) if since_ns or until_ns else []
        response = call.stream("application/json")
        await response.prepare(call.request)
        if past:
            await response.write(b"".join(map(_line, past)))
        with contextlib.suppress(TimeoutError):
            left = None if not until_ns else until_ns / 1e9 - time.time()
            async with asyncio.timeout(None if left is None else max(left, 0.0)):
                seen = past[-1].time_ns if past else 0
                async for event in subscription:
                    if event.time_ns > seen:
                        await response.write(_line(event))
    await response.write_eof()
    return response


def _line(event: Event) -> bytes:
    return orjson.dumps(event.render(), option=orjson.OPT_APPEND_NEWLINE)
