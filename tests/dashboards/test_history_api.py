"""The history over HTTP: answers' shape, and errors that name the parameter and what was expected."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from collector.container import Container
from collector.discovery.registry import Containers
from collector.history.archive import Archive
from collector.history.curves import COLUMNS
from collector.history.reader import HistoryReader
from collector.history.recorder import Recorder
from collector.roots import Roots
from collector.sampler import Sampler
from dashboards.web.history import HistoryApi


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[HistoryReader]:
    """A host sampled for real, twice, some seconds ago by its clock."""
    containers = Containers()
    sampler = Sampler(containers, Roots())
    archive = Archive(tmp_path / "history")
    recorder = Recorder(sampler, archive, "testhost")
    now = time.time_ns()
    for seconds in range(20, 0, -1):
        sampler.sample_all(now - seconds * 10**9)
    recorder.record(unfinished=True)
    containers.update(Container(id="a" * 64, name="never-ran", state="created"))
    yield HistoryReader(containers, sampler, archive, "testhost")
    archive.close()
    sampler.close()


def get(reader: HistoryReader, *paths: str) -> list[tuple[int, Any]]:
    async def scenario() -> list[tuple[int, Any]]:
        app = web.Application()
        HistoryApi(reader, "testhost").add_routes(app)
        async with TestClient(TestServer(app)) as client:
            answers = []
            for path in paths:
                async with client.get(path) as answer:
                    answers.append((answer.status, await answer.json()))
            return answers

    return asyncio.run(scenario())


def test_the_hosts_curves(reader: HistoryReader) -> None:
    [(status, answer)] = get(reader, "/api/v1/history?container=/&from=-120")
    assert status == 200
    assert (answer["id"], answer["name"], answer["step"], answer["resolution"]) == ("/", "testhost", 1, 1)
    assert list(answer["columns"]) == list(COLUMNS)
    assert {len(column) for column in answer["columns"].values()} == {len(answer["times"])}
    assert len(answer["times"]) in (120, 121)
    assert sum(value is not None for value in answer["columns"]["memory_bytes"]) == 20
    assert min(value for value in answer["columns"]["memory_bytes"] if value is not None) > 1 << 20


def test_a_container_without_samples_has_empty_curves(reader: HistoryReader) -> None:
    [(status, answer)] = get(reader, "/api/v1/history?container=never-ran&from=-7200&step=600")
    assert (status, answer["step"], answer["resolution"]) == (200, 600, 60)
    assert all(value is None for column in answer["columns"].values() for value in column)


def test_times_in_every_form(reader: HistoryReader) -> None:
    now = time.time()
    answers = get(
        reader,
        f"/api/v1/history?container=/&from={now - 60:.3f}&to={now:.3f}",
        f"/api/v1/history?container=/&from={int((now - 60) * 1e9)}&to={int(now * 1e9)}",
        "/api/v1/history?container=/&from=-60.5",
    )
    for status, answer in answers:
        assert status == 200
        assert now - 62 <= answer["from"] <= time.time() - 58


def test_a_moment(reader: HistoryReader) -> None:
    [(_, held)] = get(reader, "/api/v1/history/containers")
    moment = held[0]["last_us"] * 1000 - 9 * 10**9
    (_, answer), (_, early) = get(
        reader, f"/api/v1/history/at?time={moment}", "/api/v1/history/at?time=-9000"
    )
    assert answer["time_ns"] == moment
    [row] = answer["containers"]
    assert (row["id"], row["name"], row["state"], row["host"]) == ("/", "testhost", "running", "testhost")
    assert abs(row["time_ns"] - answer["time_ns"]) <= 1.1e9
    assert row["memory_usage_bytes"] > 1 << 20
    assert row["memory_limit_bytes"] > row["memory_usage_bytes"]
    assert early["containers"] == []


def test_who_has_history(reader: HistoryReader) -> None:
    (_, now), (_, before) = get(
        reader, "/api/v1/history/containers", "/api/v1/history/containers?from=-9000&to=-8000"
    )
    assert [(one["id"], one["name"]) for one in now] == [("/", "testhost")]
    assert 18e6 < now[0]["last_us"] - now[0]["first_us"] < 20e6
    assert before == []


TIME = "expected Unix seconds, nanoseconds, or seconds before now, like -3600"


@pytest.mark.parametrize(
    ("query", "status", "message"),
    [
        (
            "history",
            404,
            "container='': expected the name or id of a container with history, or / for the host",
        ),
        (
            "history?container=nix",
            404,
            "container='nix': expected the name or id of a container with history",
        ),
        ("history?container=/&from=yesterday", 400, f"from='yesterday': {TIME}"),
        ("history?container=/&to=1e9", 400, f"to='1e9': {TIME}"),
        ("history?container=/&from=-99999999999999", 400, f"from='-99999999999999': {TIME}"),
        ("history?container=/&from=99999999999999999999", 400, f"from='99999999999999999999': {TIME}"),
        ("history/at?time=x", 400, f"time='x': {TIME}"),
        ("history?container=/&step=0", 400, "step='0': expected whole seconds between 1 and 604800"),
        ("history?container=/&step=1.5", 400, "step='1.5': expected whole seconds between 1 and 604800"),
        (
            "history?container=/&step=604801",
            400,
            "step='604801': expected whole seconds between 1 and 604800",
        ),
        ("history?container=/&from=2000&to=1000", 400, "to=1000: expected a time after from=2000"),
        ("history?container=/&from=0&step=60", 400, "step=60: expected at least"),
    ],
)
def test_errors_name_the_input(reader: HistoryReader, query: str, status: int, message: str) -> None:
    [(found, answer)] = get(reader, f"/api/v1/{query}")
    assert found == status
    assert answer["message"].startswith(message)
