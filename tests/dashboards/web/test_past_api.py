"""The API of the past of processes and connections: what it answers, and what it refuses."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from collector.history.archive import Held
from collector.history.reader import HistoryError
from collector.processes.busiest import BusyProcess, BusyThread, Group, Step
from collector.processes.graph import Edge, Node
from collector.processes.map_history import MapHistory, encode_map
from collector.processes.past import Past
from collector.processes.recorder import ProcessArchive
from dashboards.web.past_api import PastApi

Ask = Callable[..., tuple[int, Any]]
SECOND = 1_000_000
NOW = time.time_ns() // 1000
WEB = "w" * 64


@pytest.fixture(autouse=True)
def _now() -> None:
    """What is now when the test runs, not when it was found."""
    global NOW
    NOW = time.time_ns() // 1000


class Reader:
    """Knows one removed container."""

    def find(self, key: str) -> Held:
        if key in ("web", WEB):
            return Held(WEB, "web", "nginx", "docker", 0, 0)
        if key == "/":
            return Held("/", "thishost", "", "", 0, 0)
        raise HistoryError(f"container={key!r}: expected the name or id of a container with history")

    def held(self, since_us: int, until_us: int) -> list[Held]:
        return [self.find("web")]


def process(pid: int, cpu_us: int, *threads: BusyThread) -> BusyProcess:
    return BusyProcess(
        pid, 7, 5, 1, f"p{pid}", f"p{pid} -x", 0, "S", 4, cpu_us, 10 * cpu_us, 1 << 20, 1000, 2000, threads
    )


@pytest.fixture
def past(tmp_path: Path) -> Iterator[Past]:
    archive = ProcessArchive(tmp_path / "processes", 1 << 20)
    for ago in (20, 10):
        groups = (
            Group(WEB, "web", (process(1, 5 * SECOND, BusyThread(9, 7, "burner", 4 * SECOND)),), 3, SECOND),
            Group("/", "", (process(2, SECOND),)),
        )
        time_us = NOW - ago * SECOND
        archive.append(time_us, Step(10 * SECOND, ago == 20, groups), NOW * 1000)
    yield Past(archive)
    archive.close()


@pytest.fixture
def connections(tmp_path: Path) -> Iterator[MapHistory]:
    history = MapHistory(tmp_path / "connections", 1 << 20)
    nodes = [Node(WEB, "web", "container"), Node("/", "host", "host"), Node("1.2.3.4", "1.2.3.4", "outside")]
    edges = [Edge(WEB, "1.2.3.4", "tcp", 443, 1, 2, 30, 40), Edge("/", "1.2.3.4", "udp", 53, 1, 1, 5, 6)]
    history.steps.append(NOW - 30 * SECOND, encode_map(nodes, edges), NOW * 1000)
    yield history
    history.close()


@pytest.fixture
def ask(past: Past, connections: MapHistory) -> Ask:
    def get(path: str, kept: bool = True, **query: str) -> tuple[int, Any]:
        async def once() -> tuple[int, Any]:
            api = PastApi(past if kept else None, connections if kept else None, Reader(), "thishost")  # type: ignore[arg-type]
            app = web.Application()
            api.add_routes(app)
            async with TestClient(TestServer(app)) as client:
                answer = await client.get(f"/api/v1/history/{path}", params=query)
                return answer.status, await answer.json()

        return asyncio.run(once())

    return get


def seconds(ago: int) -> str:
    return str((NOW - ago * SECOND) * 1000)


def test_a_moment_of_one_container_and_of_all(ask: Ask) -> None:
    status, body = ask("processes", container="web", time=seconds(12))
    assert (status, body["id"], body["host"], body["interval_seconds"]) == (200, WEB, "thishost", 10)
    (row,) = body["processes"]
    assert (row["pid"], row["cpu_percent"], row["read_bytes_per_second"], row["user"]) == (
        1,
        50.0,
        100.0,
        "root",
    )
    assert (row["container"], row["cpu_seconds"], row["virtual_bytes"]) == ("web", 50.0, None)
    assert (body["left_out"], body["left_out_cpu_percent"]) == (3, 10.0)
    status, body = ask("processes", container="/", time=seconds(12))
    assert sorted(row["pid"] for row in body["processes"]) == [1, 2]
    assert (body["left_out"], body["left_out_cpu_percent"]) == (3, 10.0)


def test_the_threads_of_a_process_of_then(ask: Ask) -> None:
    status, body = ask("threads", pid="1", start="7", time=seconds(12))
    assert status == 200
    assert [(row["name"], row["cpu_percent"]) for row in body["threads"]] == [("burner", 40.0)]
    assert body["left_out"] == 3
    assert ask("threads", pid="1", start="8", time=seconds(12))[0] == 404
    assert ask("threads", time=seconds(12)) == (
        400,
        {"message": "pid is missing: expected the number of a process"},
    )


def test_who_used_most_in_a_range(ask: Ask) -> None:
    status, body = ask("busiest", **{"from": seconds(60)})
    assert status == 200
    assert [(row["pid"], row["cpu_seconds"], row["container"]) for row in body["processes"]] == [
        (1, 10.0, "web"),
        (2, 2.0, "thishost"),
    ]
    assert body["processes"][0]["cpu_percent_max"] == 50.0
    assert body["processes"][0]["threads"] == [{"tid": 9, "name": "burner", "cpu_seconds": 8.0}]
    status, body = ask("busiest", container="web", limit="1", **{"from": seconds(60)})
    assert [row["pid"] for row in body["processes"]] == [1]
    assert len(ask("busiest", limit="1", **{"from": seconds(60)})[1]["processes"]) == 1
    assert ask("busiest", limit="1", **{"from": seconds(60)})[1]["left_out"] == 1
    assert ask("busiest", to="-60", **{"from": "-30"})[0] == 400


def test_the_map_of_a_range_and_of_a_moment(ask: Ask) -> None:
    status, body = ask("connections")
    assert (status, len(body["edges"]), body["steps"]) == (200, 2, 1)
    status, body = ask("connections", container="web", time=seconds(30))
    assert [(edge["client"], edge["server"], edge["port"]) for edge in body["edges"]] == [
        (WEB, "1.2.3.4", 443)
    ]
    assert sorted(node["name"] for node in body["nodes"]) == ["1.2.3.4", "web"]
    assert ask("connections", time=seconds(3600))[1]["edges"] == []


def test_what_is_not_known_and_what_cannot_be_read(ask: Ask) -> None:
    status, body = ask("processes", container="web", time=seconds(3600))
    assert (status, "no processes were recorded" in body["message"]) == (404, True)
    status, body = ask("processes", container="nobody", time=seconds(12))
    assert (status, body["message"][:20]) == (404, "container='nobody': ")
    assert ask("processes", container="web", time="soon")[0] == 400
    assert ask("busiest", limit="x")[0] == 400
    for path, key in (("processes", "process_history"), ("connections", "connection_history")):
        status, body = ask(path, kept=False, container="web")
        assert (status, f"collector.{key}_max_size" in body["message"]) == (404, True)
