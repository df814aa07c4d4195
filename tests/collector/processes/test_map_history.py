"""The map of connections in the past: what each step says, what ranges add up to, what a restart leaves."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from collector.processes.graph import Edge, Node, Picture
from collector.processes.map_history import MapHistory, MapRecorder, decode_map, encode_map

SECOND = 1_000_000
BASE = 1_760_004_000 // 3600 * 3600 * SECOND
WEB, DB, OUT = (
    Node("w" * 64, "web", "container"),
    Node("d" * 64, "db", "container"),
    Node("1.2.3.4", "1.2.3.4", "outside"),
)


class Graph:
    """A map that says what the test says."""

    def __init__(self) -> None:
        self.edges: list[Edge] = []
        self.passes = 0

    def seen(self, *edges: Edge) -> None:
        self.edges = list(edges)
        self.passes += 1

    def picture(self) -> Picture:
        return Picture(
            [WEB, DB, OUT], [replace(edge) for edge in self.edges], self.passes, 0.0, 15.0, 0, 0, 0
        )


def edge(server: Node, total: int, sent: int, first: int, last: int, client: Node = WEB) -> Edge:
    times = (BASE + first * SECOND) * 1000, (BASE + last * SECOND) * 1000
    return Edge(client.id, server.id, "tcp", 5432, 1, total, sent, sent * 2, *times)


@pytest.fixture
def graph() -> Graph:
    return Graph()


@pytest.fixture
def history(tmp_path: Path) -> MapHistory:
    return MapHistory(tmp_path, 1 << 20)


@pytest.fixture
def record(graph: Any, history: MapHistory) -> Any:
    keeper = SimpleNamespace(recorder=MapRecorder(graph, history))

    def at(second: int) -> None:
        keeper.recorder.record((BASE + second * SECOND) * 1000)

    return SimpleNamespace(at=at, keeper=keeper)


def totals(history: MapHistory, since: int, until: int) -> dict[str, tuple[int, int, int]]:
    found = history.between(BASE + since * SECOND, BASE + until * SECOND)
    names = {node.id: node.name for node in found.nodes}
    return {names[one.server]: (one.total, one.bytes_sent, one.bytes_received) for one in found.edges}


def test_a_step_has_what_edges_grew_by_and_ranges_add_up(
    graph: Graph, history: MapHistory, record: Any
) -> None:
    graph.seen(edge(DB, 3, 100, 0, 50))
    record.at(60)
    graph.seen(edge(DB, 5, 150, 0, 110), edge(OUT, 1, 7, 100, 110))
    record.at(120)
    graph.seen(edge(DB, 5, 150, 0, 110), edge(OUT, 4, 20, 100, 170))
    record.at(180)
    assert totals(history, 0, 60) == {"db": (3, 100, 200)}
    assert totals(history, 61, 120) == {"db": (2, 50, 100), "1.2.3.4": (1, 7, 14)}
    assert totals(history, 121, 180) == {"1.2.3.4": (3, 13, 26)}, "db was not seen since"
    assert totals(history, 0, 600) == {"db": (5, 150, 300), "1.2.3.4": (4, 20, 40)}
    whole = history.between(BASE, BASE + 600 * SECOND)
    assert (whole.steps, whole.from_us, whole.to_us) == (3, BASE + 60 * SECOND, BASE + 180 * SECOND)
    db = next(one for one in whole.edges if one.server == DB.id)
    assert (db.first_seen_ns, db.last_seen_ns) == (BASE * 1000, (BASE + 110 * SECOND) * 1000)
    for second, names in (
        (30, {DB.id}),
        (90, {DB.id, OUT.id}),
        (170, {OUT.id}),
        (200, {OUT.id}),
        (900, set()),
    ):
        assert {one.server for one in history.at(BASE + second * SECOND).edges} == names, second


def test_an_edge_that_was_forgotten_and_an_agent_that_ended_begin_anew(
    graph: Any, history: MapHistory, record: Any, tmp_path: Path
) -> None:
    graph.seen(edge(DB, 9, 900, 0, 50))
    record.at(60)
    graph.seen(edge(DB, 1, 10, 100, 110))
    record.at(120)
    assert totals(history, 61, 120) == {"db": (1, 10, 20)}
    history.close()
    again = MapHistory(tmp_path, 1 << 20)
    graph.seen(edge(DB, 2, 5, 150, 160))
    MapRecorder(graph, again).record((BASE + 180 * SECOND) * 1000)
    assert totals(again, 0, 600) == {"db": (12, 915, 1830)}
    again.close()


def test_without_a_pass_nothing_is_written(graph: Graph, history: MapHistory, record: Any) -> None:
    graph.seen(edge(DB, 1, 1, 0, 50))
    for second in (60, 120, 180):
        record.at(second)
    assert history.steps.steps == 1


def test_an_answer_is_bounded_and_says_so(
    graph: Graph, history: MapHistory, record: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("collector.processes.map_history._MOST_EDGES", 10)
    for minute in range(1, 4):
        crowd = [replace(edge(DB, 1, 1, 0, minute * 60), port=minute * 100 + n) for n in range(8)]
        graph.seen(*crowd)
        record.at(minute * 60)
    found = history.between(BASE, BASE + 600 * SECOND)
    assert (len(found.edges), found.left_out) == (10, 14)
    assert {one.port for one in found.edges} >= {300 + n for n in range(8)}, "those seen last"


def test_names_of_those_that_are_left_out_do_not_gather(
    history: MapHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("collector.processes.map_history._MOST_EDGES", 10)
    monkeypatch.setattr("collector.processes.map_history._MOST_NODES", 40)
    alive = []

    def decoded(data: bytes) -> tuple[list[Node], list[Edge]]:
        gc.collect()
        alive.append(sum(type(one) is Node and one.name == "passing" for one in gc.get_objects()))
        return decode_map(data)

    for minute in range(1, 16):
        data = encode_map(
            [Node(f"{minute}-{n}", "passing", "container") for n in range(16)],
            [
                Edge(f"{minute}-{n}", f"{minute}-{n + 8}", "tcp", n, 1, 1, 1, 1, minute, minute)
                for n in range(8)
            ],
        )
        time_us = BASE + minute * 60 * SECOND
        history.steps.append(time_us, data, time_us * 1000)
    monkeypatch.setattr("collector.processes.map_history.decode_map", decoded)
    found = history.between(0, 1 << 60)
    assert len(alive) == 15
    assert max(alive) <= 40 + 16
    assert (len(found.edges), len(found.nodes), found.left_out) == (10, 20, 110)


def test_maps_as_bytes_and_back_and_bytes_that_are_none() -> None:
    edges = [edge(DB, 1, 2, 3, 4), edge(OUT, 5, 6, 7, 8)]
    data = encode_map([WEB, DB, OUT], edges)
    assert decode_map(data) == ([WEB, DB, OUT], edges)
    for wrong in (b"", data[:-5], b"[2,[],[]]", b"[1,[],[[0,1]]]"):
        with pytest.raises(ValueError, match="cannot be read"):
            decode_map(wrong)
