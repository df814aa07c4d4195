"""``/exec``: further processes in running containers."""

from __future__ import annotations

import asyncio
import logging

from aiohttp import web

from runtime.api.attach import DEFAULT_DETACH_KEYS, EscapeKeys, connect_streams
from runtime.api.containers import size_of
from runtime.api.hijack import MULTIPLEXED, RAW, frame, hijack
from runtime.api.routing import Call, Routes, json_response
from runtime.errors import Conflict, EngineError
from runtime.exec_process import run_exec
from runtime.execs import Exec, ExecConfig
from runtime.fields import Fields
from runtime.shim.shims import ExecSession

__all__ = ["routes"]

log = logging.getLogger(__name__)
routes = Routes()

_detached: set[asyncio.Task[None]] = set()


@routes.post("/containers/{name}/exec")
async def create(call: Call) -> web.StreamResponse:
    """``docker exec``, first half."""
    container = call.engine.containers.get(call.params["name"])
    instance = call.engine.execs.create(container, ExecConfig.from_api(await call.json()))
    return json_response({"Id": instance.id}, status=201)


@routes.post("/exec/{id}/start", cancellable=True)
async def start(call: Call) -> web.StreamResponse:
    """``docker exec``, second half: 200 at once for a detached one, the raw stream for the others."""
    instance = call.engine.execs.get(call.params["id"])
    body = Fields(await call.json())
    if instance.running or instance.exit_code is not None:
        raise Conflict(f"exec {instance.id} has already run")
    config = instance.config
    if body.boolean("Detach"):
        session = await run_exec(instance, stdin=False)
        task = asyncio.ensure_future(_drain(instance, session))
        _detached.add(task)
        task.add_done_callback(_detached.discard)
        return web.Response(status=200)
    keys = EscapeKeys(config.detach_keys or DEFAULT_DETACH_KEYS) if config.tty else None
    media = MULTIPLEXED if not config.tty and call.version >= (1, 42) else RAW
    instance.container.running_handle()
    async with hijack(call.request, call.headers, media) as (raw, response):
        try:
            session = await run_exec(instance, stdin=config.stdin)
        except EngineError as error:
            # As Docker: the client reads the reason from the stream and the code from inspect.
            text = f"{error.message}\r\n".encode()
            await raw.write(text if config.tty else frame(1, text))
            return response
        try:
            await connect_streams(session, raw, framed=not config.tty, stdin=config.stdin, keys=keys)
        except ConnectionError:
            log.debug("the client of exec %s has gone", instance.id[:12])
        finally:
            # Known before the connection closes: the CLI asks for the code the moment it does.
            instance.finished(session.exit_code)
    return response


async def _drain(instance: Exec, session: ExecSession) -> None:
    async for _ in session:
        pass
    instance.finished(session.exit_code)
    await session.close()


@routes.get("/exec/{id}/json")
async def inspect(call: Call) -> web.StreamResponse:
    """What became of it."""
    return json_response(call.engine.execs.get(call.params["id"]).render())


@routes.post("/exec/{id}/resize")
async def resize(call: Call) -> web.StreamResponse:
    """Tell its terminal its size."""
    instance = call.engine.execs.get(call.params["id"])
    rows, columns = size_of(call)
    await instance.container.running_handle().exec_resize(instance.id, rows, columns)
    return web.Response(status=200)
