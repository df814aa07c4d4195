"""The API of what ran inside and who talked to whom in the past, from what was recorded.

``GET /api/v1/history/processes?container=&time=``, ``history/threads?pid=&start=&time=``,
``history/busiest?container=&from=&to=`` and ``history/connections`` with ``time=`` or ``from=`` and ``to=``.
Times are as in ``history.py``. Errors are ``{"message": …}``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TypeVar

from aiohttp import web

from collector.history.reader import HistoryError, HistoryReader
from collector.processes.busiest import BusyProcess, Group
from collector.processes.map_history import MapHistory
from collector.processes.past import Moment, NothingKnown, Past, Used
from collector.processes.spaces import HOST_NODE
from collector.processes.tree import user_name
from dashboards.web.answers import json_answer, refusal
from dashboards.web.queries import number_of, time_of

__all__ = ["PastApi"]

_MOST_ROWS = 1000

_T = TypeVar("_T")


class PastApi:
    """The handlers; questions are answered in a thread, since they read files."""

    def __init__(
        self, past: Past | None, connections: MapHistory | None, reader: HistoryReader, host: str
    ) -> None:
        """None where nothing is recorded. ``reader`` knows containers by name, removed ones too."""
        self._past = past
        self._connections = connections
        self._reader = reader
        self._host = host

    def add_routes(self, app: web.Application) -> None:
        """Put the handlers under ``/api/v1/history``."""
        app.router.add_get("/api/v1/history/processes", self._processes)
        app.router.add_get("/api/v1/history/threads", self._threads)
        app.router.add_get("/api/v1/history/busiest", self._busiest)
        app.router.add_get("/api/v1/history/connections", self._map)

    async def _processes(self, request: web.Request) -> web.Response:
        """A container's busiest processes at a moment; the host's are those of all containers, too."""
        past, time_us, container_id = self._recorded(), self._moment(request), await self._id(request)
        moment = await _answered(lambda: past.at(time_us))
        groups = (
            moment.groups.values()
            if container_id == HOST_NODE
            else [group for key, group in moment.groups.items() if key == container_id]
        )
        # In a thread as well: users' names may come over the network.
        rows = await asyncio.to_thread(
            lambda: [self._row(process, group, moment) for group in groups for process in group.processes]
        )
        left_us = sum(group.others_cpu_us for group in groups)
        return json_answer(
            {
                **_about(moment, time_us, self._host),
                "id": container_id,
                "processes": rows,
                "left_out": sum(group.others for group in groups),
                "left_out_cpu_percent": _percent(left_us, moment.seconds),
            }
        )

    async def _threads(self, request: web.Request) -> web.Response:
        past, time_us = self._recorded(), self._moment(request)
        pid, start = number_of(request, "pid"), number_of(request, "start")
        if not pid:
            raise refusal(web.HTTPBadRequest, "pid is missing: expected the number of a process")
        moment, process = await _answered(lambda: past.threads_at(time_us, pid, start))
        rows = [
            {
                "tid": one.tid,
                "name": one.name,
                "state": "",
                "cpu_percent": _percent(one.cpu_us, moment.seconds),
                "cpu_seconds": None,
            }
            for one in process.busiest
        ]
        left_out = max(0, process.threads - len(rows))
        return json_answer(
            {**_about(moment, time_us, self._host), "pid": pid, "threads": rows, "left_out": left_out}
        )

    async def _busiest(self, request: web.Request) -> web.Response:
        """Who used most over a range, in one container or (without ``container=``) in all."""
        past = self._recorded()
        container_id = await self._id(request) if request.query.get("container") else None
        now_us = time.time_ns() // 1000
        until_us = time_of(request, "to", now_us, now_us)
        since_us = time_of(request, "from", now_us, until_us - 600 * 1_000_000)
        limit = number_of(request, "limit") or 100
        if until_us <= since_us:
            raise refusal(web.HTTPBadRequest, f"to={until_us // 1_000_000}: expected a time after from=")
        found, left_out = await _answered(lambda: past.busiest(since_us, until_us, container_id))
        held = await asyncio.to_thread(self._reader.held, since_us, until_us)
        names = {one.id: one.name for one in held} | {HOST_NODE: self._host}
        shown = found[: min(limit, _MOST_ROWS)]
        rows = await asyncio.to_thread(lambda: [_used_row(used, names) for used in shown])
        return json_answer(
            {
                "host": self._host,
                "from": since_us / 1e6,
                "to": until_us / 1e6,
                "processes": rows,
                "left_out": left_out + len(found) - len(rows),
            }
        )

    async def _map(self, request: web.Request) -> web.Response:
        kept = self._connections
        if kept is None:
            raise refusal(
                web.HTTPNotFound,
                "no history of connections is kept: set collector.connections = true and "
                "collector.connection_history_max_size",
            )
        now_us = time.time_ns() // 1000
        if "time" in request.query:
            moment_us = time_of(request, "time", now_us, now_us)
            picture = await asyncio.to_thread(kept.at, moment_us)
        else:
            until_us = time_of(request, "to", now_us, now_us)
            since_us = time_of(request, "from", now_us, until_us - 3600 * 1_000_000)
            picture = await asyncio.to_thread(kept.between, since_us, until_us)
        container_id = await self._id(request) if request.query.get("container") else None
        edges = [
            edge
            for edge in picture.edges
            if container_id is None or container_id in (edge.client, edge.server)
        ]
        ids = {node for edge in edges for node in (edge.client, edge.server)}
        return json_answer(
            {
                "host": self._host,
                "from": picture.from_us / 1e6,
                "to": picture.to_us / 1e6,
                "steps": picture.steps,
                "nodes": [asdict(node) for node in picture.nodes if node.id in ids],
                "edges": list(map(asdict, edges)),
                "left_out": picture.left_out,
            }
        )

    # --- what is asked for ---------------------------------------------------------------------------

    def _recorded(self) -> Past:
        if self._past is None:
            raise refusal(
                web.HTTPNotFound,
                "no history of processes is kept: set collector.process_history_max_size",
            )
        return self._past

    def _moment(self, request: web.Request) -> int:
        now_us = time.time_ns() // 1000
        return time_of(request, "time", now_us, now_us)

    async def _id(self, request: web.Request) -> str:
        word = request.query.get("container", "")
        try:
            return (await asyncio.to_thread(self._reader.find, word)).id
        except HistoryError as error:
            raise refusal(web.HTTPNotFound, str(error)) from error

    def _row(self, process: BusyProcess, group: Group, moment: Moment) -> dict[str, object]:
        """With the keys of a process of the present; None for what is not recorded."""
        return {
            "pid": process.pid,
            "parent": process.parent,
            "name": process.name,
            "command": process.command,
            "state": process.state,
            "uid": process.uid,
            "user": user_name(process.uid),
            "threads": process.threads,
            "started_ns": process.started_ns,
            "start_ticks": process.start_ticks,
            "cpu_seconds": process.cpu_total_us / 1e6,
            "cpu_percent": _percent(process.cpu_us, moment.seconds),
            "resident_bytes": process.resident_bytes,
            "virtual_bytes": None,
            "shared_bytes": None,
            "read_bytes": None,
            "write_bytes": None,
            "read_bytes_per_second": _rate(process.read_bytes, moment.seconds),
            "write_bytes_per_second": _rate(process.write_bytes, moment.seconds),
            "container": group.name,
            "container_id": "" if group.id == HOST_NODE else group.id,
        }


def _about(moment: Moment, time_us: int, host: str) -> dict[str, object]:
    return {
        "time_ns": time_us * 1000,
        "from": moment.from_us / 1e6,
        "to": moment.to_us / 1e6,
        "interval_seconds": moment.seconds or None,
        "host": host,
    }


def _used_row(used: Used, names: Mapping[str, str]) -> dict[str, object]:
    process = used.process
    return {
        "pid": process.pid,
        "start_ticks": process.start_ticks,
        "started_ns": process.started_ns,
        "name": process.name,
        "command": process.command,
        "user": user_name(process.uid),
        "container": names.get(used.container_id, used.container_id[:12]),
        "container_id": used.container_id,
        "cpu_seconds": process.cpu_us / 1e6,
        "cpu_percent_max": round(used.most_cpu_percent, 3),
        "cpu_max_at": used.most_cpu_us / 1e6,
        "resident_bytes_max": used.most_resident_bytes,
        "read_bytes": process.read_bytes,
        "write_bytes": process.write_bytes,
        "first": used.first_us / 1e6,
        "last": used.last_us / 1e6,
        "threads": [
            {"tid": one.tid, "name": one.name, "cpu_seconds": one.cpu_us / 1e6} for one in process.busiest[:3]
        ],
    }


async def _answered(question: Callable[[], _T]) -> _T:
    try:
        return await asyncio.to_thread(question)
    except NothingKnown as error:
        raise refusal(web.HTTPNotFound, str(error)) from error


def _percent(cpu_us: int, seconds: float) -> float | None:
    return round(cpu_us / seconds / 1e4, 3) if seconds else None


def _rate(count: int, seconds: float) -> float | None:
    return round(count / seconds, 3) if seconds else None
