"""``/containers``: create, start, stop, inspect, list and what else moves a container."""

from __future__ import annotations

import asyncio
import re

import orjson
from aiohttp import web

from runtime.api.inspect import inspect as render
from runtime.api.listing import listing, select
from runtime.api.routing import Call, Routes, json_response, no_content
from runtime.config import ContainerConfig
from runtime.container import Container
from runtime.errors import BadRequest, EngineError
from runtime.processes import processes
from runtime.waiters import wait_for

__all__ = ["routes"]

routes = Routes()


def _container(call: Call) -> Container:
    return call.engine.containers.get(call.params["name"])


@routes.get("/containers/json")
async def list_containers(call: Call) -> web.StreamResponse:
    """``docker ps``."""
    return json_response(
        listing(
            call.engine,
            call.filters(),
            everything=call.flag("all"),
            limit=call.integer("limit", 0) or 0,
            size=call.flag("size"),
        )
    )


@routes.post("/containers/create")
async def create(call: Call) -> web.StreamResponse:
    """``docker create``."""
    body = await call.json()
    if not body:
        raise BadRequest("Config cannot be empty in order to create a container")
    container, warnings = await call.engine.create(call.text("name"), ContainerConfig.from_api(body))
    return json_response({"Id": container.id, "Warnings": warnings}, status=201)


@routes.get("/containers/{name}/json")
async def inspect(call: Call) -> web.StreamResponse:
    """``docker inspect``."""
    container = _container(call)
    if call.flag("size"):
        return json_response(await asyncio.to_thread(render, call.engine, container, size=True))
    return json_response(render(call.engine, container))


@routes.post("/containers/{name}/start")
async def start(call: Call) -> web.StreamResponse:
    """``docker start``."""
    await _container(call).start()
    return no_content()


@routes.post("/containers/{name}/stop")
async def stop(call: Call) -> web.StreamResponse:
    """``docker stop``."""
    await _container(call).stop(_grace(call), call.text("signal"))
    return no_content()


@routes.post("/containers/{name}/restart")
async def restart(call: Call) -> web.StreamResponse:
    """``docker restart``."""
    await _container(call).restart(_grace(call), call.text("signal"))
    return no_content()


def _grace(call: Call) -> float | None:
    seconds = call.integer("t")
    return None if seconds is None else float(seconds)


@routes.post("/containers/{name}/kill")
async def kill(call: Call) -> web.StreamResponse:
    """``docker kill``."""
    await _container(call).kill(call.text("signal"))
    return no_content()


@routes.post("/containers/{name}/pause")
async def pause(call: Call) -> web.StreamResponse:
    """``docker pause``."""
    await _container(call).pause()
    return no_content()


@routes.post("/containers/{name}/unpause")
async def unpause(call: Call) -> web.StreamResponse:
    """``docker unpause``."""
    await _container(call).unpause()
    return no_content()


@routes.post("/containers/{name}/rename")
async def rename(call: Call) -> web.StreamResponse:
    """``docker rename``."""
    await call.engine.rename(_container(call), call.text("name"))
    return no_content()


@routes.post("/containers/{name}/resize")
async def resize(call: Call) -> web.StreamResponse:
    """Tell the terminal its size."""
    handle = _container(call).running_handle()
    await handle.resize(*size_of(call))
    return no_content()


def size_of(call: Call) -> tuple[int, int]:
    """Rows and columns (``h``, ``w``)."""
    rows, columns = call.integer("h"), call.integer("w")
    if rows is None or columns is None or not (0 <= rows <= 65535 and 0 <= columns <= 65535):
        raise BadRequest("invalid terminal size: parameters h and w are required, each from 0 to 65535")
    return rows, columns


@routes.delete("/containers/{name}")
async def remove(call: Call) -> web.StreamResponse:
    """``docker rm``."""
    if call.flag("link"):
        raise BadRequest("removing a link is not possible: links are a property of their container here")
    await call.engine.remove(_container(call), force=call.flag("force"), volumes=call.flag("v"))
    return no_content()


@routes.post("/containers/{name}/wait", cancellable=True)
async def wait(call: Call) -> web.StreamResponse:
    """``docker wait``. The head is sent before the wait: ``docker run`` starts the container only then."""
    container = _container(call)
    ended = wait_for(container, call.text("condition"))
    response = call.stream("application/json")
    await response.prepare(call.request)
    try:
        code = await ended
    finally:
        ended.cancel()
    await response.write(orjson.dumps({"StatusCode": code}, option=orjson.OPT_APPEND_NEWLINE))
    await response.write_eof()
    return response


@routes.get("/containers/{name}/top")
async def top(call: Call) -> web.StreamResponse:
    """``docker top``: the host's ps, cut down to the container's processes."""
    container = _container(call)
    container.running_handle()
    arguments = call.text("ps_args", "-ef")
    if not re.fullmatch(r"[-\w,=%:. ]*", arguments):
        raise BadRequest(f"invalid ps_args {arguments!r}: expected options of ps(1)")
    titles, rows = await processes(container.state.cgroup, container.state.pid, arguments.split())
    return json_response({"Titles": titles, "Processes": rows})


@routes.post("/containers/prune")
async def prune(call: Call) -> web.StreamResponse:
    """``docker container prune``."""
    engine = call.engine
    deleted: list[str] = []
    reclaimed = 0
    for container in select(engine, call.filters(), engine.containers.all()):
        if container.active:
            continue
        size = await asyncio.to_thread(engine.rootfs(container).size_rw_bytes)
        try:
            await engine.remove(container, force=False, volumes=False)
        except EngineError:
            continue  # started, or removed by somebody else, meanwhile
        deleted.append(container.id)
        reclaimed += size
    return json_response({"ContainersDeleted": deleted or None, "SpaceReclaimed": reclaimed})
