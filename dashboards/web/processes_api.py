"""The API of what runs inside: processes, threads, open files, connections. Read when asked, in a thread.

``GET /api/v1/processes?container=``, ``threads?pid=``, ``files?pid=``, ``connections?container=``, and
``connections`` alone for the map. ``container=/`` is the host. Errors are ``{"message": …}``.
"""

from __future__ import annotations

import asyncio
import functools
import re
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import TypeVar

from aiohttp import web

from collector.container import Container
from collector.discovery.registry import Containers
from collector.processes.connections import Connections
from collector.processes.files import read_files
from collector.processes.graph import ConnectionGraph
from collector.processes.members import NotRunning
from collector.processes.spaces import HOST_NODE
from collector.processes.tree import Listing, Process, Processes, Thread
from collector.roots import Roots
from dashboards.web.answers import json_answer, refusal
from dashboards.web.queries import number_of

__all__ = ["ProcessesApi"]

#: Between the two looks of one who asks for the first time: rates need two.
_FIRST_LOOK_SECONDS = 0.25

_T = TypeVar("_T")


class ProcessesApi:
    """The handlers."""

    def __init__(
        self,
        containers: Containers,
        roots: Roots,
        host: str,
        *,
        keep_map: bool = True,
        files_over_tcp: bool = False,
    ) -> None:
        """``keep_map``: keep a map of connections. ``files_over_tcp``: who asks over TCP has shown a token.

        Raises OSError or ValueError where the cgroups cannot be read.
        """
        self._files_over_tcp = files_over_tcp
        self._containers = containers
        self._roots = roots
        self._host = host
        self._processes = Processes(containers, roots)
        self._connections = Connections(containers, self._processes.members, roots.proc)
        #: for whoever runs it; None where it is switched off
        self.graph = ConnectionGraph(containers, self._processes.members, roots.proc) if keep_map else None

    def add_routes(self, app: web.Application) -> None:
        """Put the handlers under ``/api/v1``."""
        app.router.add_get("/api/v1/processes", self._list_processes)
        app.router.add_get("/api/v1/threads", self._list_threads)
        app.router.add_get("/api/v1/files", self._list_files)
        app.router.add_get("/api/v1/connections", self._list_connections)

    async def _list_processes(self, request: web.Request) -> web.Response:
        container = self._container(request)
        if container is None:
            listing = await _twice(self._processes.of_host)
        else:
            listing = await _twice(functools.partial(self._processes.of_container, container))
        return self._answer(container, {"processes": list(map(asdict, listing.rows))} | _about(listing))

    async def _list_threads(self, request: web.Request) -> web.Response:
        pid, start = _pid(request), number_of(request, "start")
        listing = await _twice(functools.partial(self._processes.threads, pid, start))
        return json_answer({"pid": pid, "threads": list(map(asdict, listing.rows))} | _about(listing))

    async def _list_files(self, request: web.Request) -> web.Response:
        """Procfs shows files to a process's own user and to root only: so not to everybody on loopback."""
        if _over_tcp(request) and not self._files_over_tcp:
            raise refusal(
                web.HTTPForbidden,
                "open files are told on the agent's socket, or over TCP to those who show a token: set "
                "http.token_file",
            )
        pid, start = _pid(request), number_of(request, "start")
        found = await _in_thread(functools.partial(read_files, self._roots.proc, pid, start))
        return json_answer({"pid": pid, **asdict(found)})

    async def _list_connections(self, request: web.Request) -> web.Response:
        if "container" not in request.query:
            return await self._map(request)
        container = self._container(request)
        if container is None:
            rows = await _in_thread(self._connections.of_host)
        else:
            rows = await _in_thread(functools.partial(self._connections.of_container, container))
        return self._answer(container, {"connections": list(map(asdict, rows))})

    async def _map(self, request: web.Request) -> web.Response:
        if self.graph is None:
            raise refusal(
                web.HTTPNotFound, "the map of connections is switched off: set collector.connections = true"
            )
        shape = request.query.get("format", "json")
        if shape not in ("json", "node-graph"):
            raise refusal(web.HTTPBadRequest, f"format={shape!r}: expected json or node-graph")
        since = number_of(request, "since") or 0
        picture = self.graph.picture(since)
        if shape == "node-graph":
            return json_answer(picture.node_graph())
        return json_answer({"time_ns": time.time_ns(), "host": self._host, **asdict(picture)})

    def _container(self, request: web.Request) -> Container | None:
        """The container asked for; None for the host."""
        word = request.query.get("container", "")
        if not word:
            raise refusal(
                web.HTTPBadRequest, "container is missing: expected a name, an id, or / for the host"
            )
        if word == HOST_NODE:
            return None
        container = self._containers.get(word)
        if container is None:
            raise refusal(web.HTTPNotFound, f"No such container: {word}")
        return container

    def _answer(self, container: Container | None, body: dict[str, object]) -> web.Response:
        return json_answer(
            {
                "time_ns": time.time_ns(),
                "host": self._host,
                "id": container.id if container else HOST_NODE,
                "name": container.name if container else self._host,
                **body,
            }
        )


async def _twice(look: Callable[[], Listing[_T]]) -> Listing[_T]:
    """A look; where it is the first in a while, a second one so that there are rates."""
    listing = await _in_thread(look)
    if listing.interval_seconds is None:
        await asyncio.sleep(_FIRST_LOOK_SECONDS)
        listing = await _in_thread(look)
    return listing


async def _in_thread(read: Callable[[], _T]) -> _T:
    """Read off the event loop; what is gone is 404, what is not allowed 403."""
    try:
        return await asyncio.to_thread(read)
    except NotRunning as error:
        raise refusal(web.HTTPConflict, str(error)) from error
    except (FileNotFoundError, ProcessLookupError) as error:
        gone = re.search(r"/(\d+)(/|$)", str(error.filename or ""))  # /proc/PID/…
        raise refusal(web.HTTPNotFound, f"no such process: {gone[1] if gone else error}") from error
    except PermissionError as error:
        raise refusal(web.HTTPForbidden, f"the agent may not look there: {error}") from error
    except (OSError, ValueError) as error:
        raise refusal(web.HTTPInternalServerError, f"cannot read: {error}") from error


def _about(listing: Listing[Process] | Listing[Thread]) -> dict[str, object]:
    return {
        "interval_seconds": listing.interval_seconds,
        "vanished": listing.vanished,
        "left_out": listing.left_out,
        "read_cpu_seconds": listing.read_cpu_seconds,
    }


def _over_tcp(request: web.Request) -> bool:
    name = request.transport.get_extra_info("sockname") if request.transport else None
    return not isinstance(name, str | bytes)


def _pid(request: web.Request) -> int:
    pid = number_of(request, "pid")
    if not pid:
        raise refusal(web.HTTPBadRequest, "pid is missing: expected the number of a process")
    return pid
