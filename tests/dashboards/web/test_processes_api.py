"""The API of processes, over real ones."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from collector.container import Container
from collector.discovery.registry import Containers
from collector.roots import Roots
from dashboards.web.processes_api import ProcessesApi

Ask = Callable[..., tuple[int, Any]]


@pytest.fixture
def containers() -> Containers:
    known = Containers()
    known.update(Container("c" * 64, "stopped", state="exited"))
    return known


@pytest.fixture
def ask(containers: Containers) -> Ask:
    """Status and JSON of one GET, or of the answers of several."""

    def get(path: str, keep_map: bool = True, tokens: bool = True, **query: str) -> tuple[int, Any]:
        async def once() -> tuple[int, Any]:
            api = ProcessesApi(containers, Roots(), "thishost", keep_map=keep_map, files_over_tcp=tokens)
            if api.graph is not None:
                await asyncio.to_thread(api.graph.look)
            app = web.Application()
            api.add_routes(app)
            async with TestClient(TestServer(app)) as client:
                answer = await client.get(f"/api/v1/{path}", params=query)
                return answer.status, await answer.json()

        return asyncio.run(once())

    return get


def test_the_hosts_processes_have_rates_at_the_first_look(ask: Ask) -> None:
    status, body = ask("processes", container="/")
    assert (status, body["name"], body["id"], body["host"]) == (200, "thishost", "/", "thishost")
    own = next(process for process in body["processes"] if process["pid"] == os.getpid())
    assert own["cpu_percent"] is not None
    assert 0.2 < body["interval_seconds"] < 30
    assert body["read_cpu_seconds"] > 0
    status, body = ask("threads", pid=str(os.getpid()), start=str(own["start_ticks"]))
    assert status == 200
    assert os.getpid() in [thread["tid"] for thread in body["threads"]]
    assert ask("threads", pid=str(os.getpid()), start="1")[0] == 404


def test_files_and_connections(ask: Ask) -> None:
    status, body = ask("files", pid=str(os.getpid()))
    assert (status, body["pid"]) == (200, os.getpid())
    assert {"fd", "kind", "path", "position", "flags", "inode"} <= body["files"][0].keys()
    status, body = ask("connections", container="/")
    assert status == 200
    own = [row for row in body["connections"] if row["pid"] == os.getpid() and row["state"] == "LISTEN"]
    assert own, "the server that answers"
    status, body = ask("connections")
    assert (status, body["passes"]) == (200, 1)
    assert {"nodes", "edges", "interval_seconds", "forgotten"} <= body.keys()
    status, body = ask("connections", format="node-graph")
    assert (status, set(body)) == (200, {"nodes", "edges"})


def test_open_files_are_not_for_everybody_on_loopback(ask: Ask) -> None:
    status, body = ask("files", tokens=False, pid=str(os.getpid()))
    assert status == 403
    assert body["message"].endswith("set http.token_file")
    assert ask("threads", tokens=False, pid=str(os.getpid()))[0] == 200


@pytest.mark.parametrize(
    ("path", "query", "status", "message"),
    [
        ("processes", {}, 400, "container is missing: expected a name, an id, or / for the host"),
        ("processes", {"container": "nobody"}, 404, "No such container: nobody"),
        ("processes", {"container": "stopped"}, 409, "container stopped is exited: it has no processes"),
        ("connections", {"container": "stopped"}, 409, "container stopped is exited: it has no processes"),
        ("connections", {"format": "png"}, 400, "format='png': expected json or node-graph"),
        ("connections", {"since": "-1"}, 400, "since='-1': expected a whole number"),
        ("threads", {}, 400, "pid is missing: expected the number of a process"),
        ("threads", {"pid": "one"}, 400, "pid='one': expected a whole number"),
        ("files", {"pid": "\u0663"}, 400, "pid='\u0663': expected a whole number"),
        ("files", {"pid": "4194305"}, 404, "no such process: 4194305"),
        ("threads", {"pid": "4194305"}, 404, "no such process: 4194305"),
    ],
)
def test_errors_say_what_was_expected(
    ask: Ask, path: str, query: dict[str, str], status: int, message: str
) -> None:
    got, body = ask(path, **query)
    assert got == status
    assert body["message"].startswith(message)


def test_the_map_can_be_switched_off(ask: Ask) -> None:
    status, body = ask("connections", keep_map=False)
    assert status == 404
    assert "collector.connections = true" in body["message"]
    assert ask("connections", keep_map=False, container="/")[0] == 200
