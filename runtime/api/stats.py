"""``GET /containers/{name}/stats``: one container's counters, once a second or once."""

from __future__ import annotations

import asyncio

import orjson
from aiohttp import web

from runtime.api.routing import Call, Routes, json_response
from runtime.container import Container
from runtime.engine import Engine
from runtime.stats import Moment, render, render_stopped

__all__ = ["routes"]

routes = Routes()

INTERVAL_S = 1.0


@routes.get("/containers/{name}/stats")
async def stats(call: Call) -> web.StreamResponse:
    """A stream of samples; ``stream=false`` takes two a second apart, ``one-shot`` a single one."""
    container = call.engine.containers.get(call.params["name"])
    if call.flag("stream", True):
        return await _stream(call, container)
    if not container.state.running:
        return json_response(render_stopped(container.id, container.name))
    before: Moment | None = None
    if not call.flag("one-shot"):
        before = call.engine.measure(container)
        if before is not None:
            await asyncio.sleep(INTERVAL_S)
    return json_response(_object(call.engine, container, before)[0])


async def _stream(call: Call, container: Container) -> web.StreamResponse:
    response = call.stream("application/json")
    await response.prepare(call.request)
    before: Moment | None = None
    loop = asyncio.get_running_loop()
    next_at = loop.time()
    while container.exists:
        body, before = _object(call.engine, container, before)
        await response.write(orjson.dumps(body, option=orjson.OPT_APPEND_NEWLINE))
        # On a fixed beat, so that a slow client does not stretch the interval.
        next_at = max(next_at + INTERVAL_S, loop.time())
        await container.gone_or(next_at - loop.time())
    await response.write_eof()
    return response


def _object(
    engine: Engine, container: Container, before: Moment | None
) -> tuple[dict[str, object], Moment | None]:
    now = engine.measure(container)
    if now is None:
        return render_stopped(container.id, container.name), None
    return render(container.id, container.name, now, before, engine.machine_memory), now
