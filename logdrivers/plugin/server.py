"""Docker's log plugin protocol on a unix socket: Activate, Capabilities, StartLogging, StopLogging, ReadLogs.

Bytes and JSON only; what a request does is ``plugin/service.py``. An error's text is what the user of docker
reads, so it names what was wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import orjson
from aiohttp import web

from logdrivers.driver import OptionError
from logdrivers.plugin.engine import EngineWatch
from logdrivers.plugin.reading import read_logs
from logdrivers.plugin.requests import ReadConfig, RequestError, parse_body
from logdrivers.plugin.service import InUse, PluginService

__all__ = ["PluginServer"]

log = logging.getLogger(__name__)

_CONTENT_TYPE = "application/vnd.docker.plugins.v1.2+json"
_LONGEST_REQUEST = 16 << 20  #: environment and labels are in it
_NO_READING = "configured logging driver does not support reading"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class PluginServer:
    """Serves a PluginService on ``path``, where a Docker Engine looks for ``NAME.sock``."""

    def __init__(self, service: PluginService, path: Path, watch: EngineWatch | None = None) -> None:
        """``watch`` is what hears of removed containers, if something does."""
        self._service = service
        self._path = path
        self._watch = watch
        self._runner: web.AppRunner | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Take up the containers, then listen. Raises InUse, OSError."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._remove_stale()
        await asyncio.to_thread(self._service.start)
        app = web.Application(client_max_size=_LONGEST_REQUEST, middlewares=[_errors])
        app.router.add_post("/Plugin.Activate", self._activate)
        app.router.add_post("/LogDriver.Capabilities", self._capabilities)
        app.router.add_post("/LogDriver.StartLogging", self._start_logging)
        app.router.add_post("/LogDriver.StopLogging", self._stop_logging)
        app.router.add_post("/LogDriver.ReadLogs", self._read_logs)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        await web.UnixSite(self._runner, str(self._path)).start()
        self._path.chmod(0o600)
        self._tasks.append(asyncio.create_task(self._service.tidy(self._watch)))
        if self._watch is not None:
            self._tasks.append(asyncio.create_task(self._watch.run()))

    async def stop(self) -> None:
        """Stop listening and leave the containers to a successor."""
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if self._runner is not None:
            await self._runner.cleanup()
            self._path.unlink(missing_ok=True)
            await asyncio.to_thread(self._service.stop)

    def _remove_stale(self) -> None:
        """Remove a socket that nobody serves any more."""
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self._path))
            except FileNotFoundError:
                return
            except ConnectionRefusedError:
                self._path.unlink(missing_ok=True)
                return
        raise InUse(f"another plugin listens on {self._path}")

    # --- the protocol

    async def _activate(self, _request: web.Request) -> web.Response:
        return _answer({"Implements": ["LogDriver"]})

    async def _capabilities(self, _request: web.Request) -> web.Response:
        return _answer({"Cap": {"ReadLogs": True}})

    async def _start_logging(self, request: web.Request) -> web.Response:
        body = parse_body(await request.read())
        await asyncio.to_thread(self._service.start_logging, body.get("Info"), str(body.get("File", "")))
        return _answer({"Err": ""})

    async def _stop_logging(self, request: web.Request) -> web.Response:
        data = await request.read()
        if data:
            await asyncio.to_thread(self._service.stop_logging, str(parse_body(data).get("File", "")))
        else:
            # Docker Engine repeats a request after a connection error without its body (20.10, measured).
            # Whichever it was: everything written so far is on disk before it closes its FIFO.
            await asyncio.to_thread(self._service.drain)
        return _answer({"Err": ""})

    async def _read_logs(self, request: web.Request) -> web.StreamResponse:
        body = parse_body(await request.read())
        config = ReadConfig.parse(body.get("Config"))
        container = self._service.find(body.get("Info"))
        reader = await asyncio.to_thread(container.reader)
        if reader is None:
            raise RequestError(_NO_READING)
        try:
            response = web.StreamResponse(headers={"Content-Type": "application/x-json-stream"})
            await response.prepare(request)
            async with contextlib.aclosing(read_logs(container, reader, config)) as frames:
                async for data in frames:
                    await response.write(data)
            await response.write_eof()
            return response
        except ConnectionResetError:
            return response  # the engine has seen enough
        finally:
            reader.close()


def _answer(value: dict[str, object], status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(value), status=status, content_type=_CONTENT_TYPE)


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Errors as the protocol has them."""
    try:
        return await handler(request)
    except (OptionError, RequestError) as error:
        log.info("%s: refused: %s", request.path, error)
        return _answer({"Err": str(error)}, 200 if request.path != "/LogDriver.ReadLogs" else 500)
    except (OSError, ValueError) as error:
        log.error("%s: %s", request.path, error)
        return _answer({"Err": str(error)}, 500)
    except web.HTTPException:
        raise
    except Exception as error:  # the user of docker is to read what went wrong, not that something did
        log.exception("%s failed", request.path)
        return _answer({"Err": f"{type(error).__name__}: {error}"}, 500)
