"""The HTTP server of the Engine API: a unix socket, one dispatcher, Docker's headers and error bodies.

The dispatcher asks ``routing`` for the handler and turns what it raises into ``{"message": …}``. An
operation that changes something runs to its end even when its client hangs up; a stream ends with its client.
"""

from __future__ import annotations

import asyncio
import grp
import logging
import os
import socket
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web

from runtime.api import (
    absent,
    attach,
    containers,
    events,
    exec,
    images,
    logs,
    networks,
    stats,
    system,
    volumes,
)
from runtime.api.routing import API_VERSION, Call, Router
from runtime.errors import BadRequest, EngineError
from runtime.fields import FieldError

if TYPE_CHECKING:
    from runtime.engine import Engine

__all__ = ["ApiServer", "SocketInUse"]

log = logging.getLogger(__name__)

SOCKET_GROUP = "taffrail"
#: Exact paths win over patterns whatever the order; ``absent`` comes last.
RESOURCES = (system, containers, attach, logs, stats, exec, images, networks, volumes, events, absent)


class SocketInUse(Exception):
    """Somebody answers on the socket path already."""


class ApiServer:
    """Serves one engine on one unix socket."""

    def __init__(self, engine: Engine, socket_path: Path) -> None:
        self._engine = engine
        self._path = socket_path
        self._router = Router(module.routes for module in RESOURCES)
        self._running: set[asyncio.Task[web.StreamResponse]] = set()
        self._runner: web.ServerRunner | None = None
        self._headers = {
            "Api-Version": str(API_VERSION),
            "Docker-Experimental": "false",
            "Ostype": "linux",
            "Server": f"Taffrail/{engine.options.version} (linux)",
        }
        self.requests = 0
        self.failures = 0  #: answers of 500 and above

    async def start(self) -> None:
        """Listen; SocketInUse if another engine answers there. The socket is 0660, group taffrail."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        _clear_stale(self._path)
        listener = _listen(self._path)
        server = web.Server(self._serve, handler_cancellation=True, access_log=None)
        self._runner = web.ServerRunner(server, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.SockSite(self._runner, listener).start()
        log.info("Engine API %s listens on %s", API_VERSION, self._path)

    async def stop(self) -> None:
        """Stop listening, let operations in progress come to their end, close streams."""
        if self._running:
            await asyncio.wait(self._running, timeout=15)
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
            self._path.unlink(missing_ok=True)

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests += 1
        try:
            response = await self._dispatch(request)
        except (EngineError, FieldError) as error:
            failed = error if isinstance(error, EngineError) else BadRequest(str(error))
            response = self._error(request, failed.status, failed.message)
        except ConnectionError as error:
            log.debug("%s %s: the client has gone: %s", request.method, request.path, error)
            response = web.Response()  # nobody to answer
            response.force_close()
        except Exception as error:
            log.exception("%s %s failed", request.method, request.path)
            response = self._error(request, 500, f"{type(error).__name__}: {error}")
        if not response.prepared:
            response.headers.update(self._headers)
        return response

    async def _dispatch(self, request: web.BaseRequest) -> web.StreamResponse:
        route, params, version = self._router.resolve(request.method, request.path)
        call = Call(self._engine, request, version, params, self._headers)
        if route.cancellable:
            return await route.handler(call)
        return await self._carried_through(_coroutine(route.handler(call)))

    async def _carried_through(self, work: Coroutine[Any, Any, web.StreamResponse]) -> web.StreamResponse:
        task = asyncio.ensure_future(work)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[web.StreamResponse]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # has been answered, or its client has gone

    def _error(self, request: web.BaseRequest, status: int, message: str) -> web.Response:
        if status >= 500:
            self.failures += 1
            log.warning("%s %s answered %d: %s", request.method, request.path, status, message)
        if status == 304 or request.method == "HEAD":
            return web.Response(status=status)
        body = orjson.dumps({"message": message}, option=orjson.OPT_APPEND_NEWLINE)
        return web.Response(status=status, body=body, content_type="application/json")


async def _coroutine(awaitable: Any) -> web.StreamResponse:
    response: web.StreamResponse = await awaitable
    return response


def _clear_stale(path: Path) -> None:
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            path.unlink(missing_ok=True)
            return
    raise SocketInUse(f"another engine answers on {path}; stop it, or choose another run directory")


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    before = os.umask(0o117)  # the socket is never open to everybody, not even for a moment
    try:
        listener.bind(str(path))
    except OSError as error:
        listener.close()
        raise OSError(
            error.errno, f"cannot listen on {path} (at most 107 bytes): {error.strerror}"
        ) from error
    finally:
        os.umask(before)
    try:
        os.chown(path, -1, grp.getgrnam(SOCKET_GROUP).gr_gid)
    except KeyError:
        log.debug("no group %s: %s stays with root's group", SOCKET_GROUP, path)
    except PermissionError as error:
        log.warning("cannot give %s to group %s: %s", path, SOCKET_GROUP, error)
    listener.listen(128)
    listener.setblocking(False)
    return listener
