"""Answers of an agent as frames, their failures as words, and the past of what was looked at."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from taffrail.errors import CommandError
from taffrail.top.model import Frame, Subject
from taffrail.top.source import Source


class Client:
    """Answers what the test says, and keeps what was asked."""

    def __init__(self, answer: Callable[[str, dict[str, str]], object]) -> None:
        self.asked: list[tuple[str, dict[str, str]]] = []
        self._answer = answer

    def json(self, path: str, query: dict[str, str] | None = None) -> object:
        self.asked.append((path, query or {}))
        return self._answer(path, query or {})


def source(client: Client) -> Source:
    return Source({"": client}, lambda subject, frame: None)


def test_what_is_asked_for_each_list() -> None:
    client = Client(lambda path, query: {path.rsplit("/", 1)[-1]: [], "containers": [], "time_ns": 5})
    made = source(client)
    for subject, when in (
        (Subject("containers"), None),
        (Subject("containers"), 7),
        (Subject("processes", "/"), None),
        (Subject("threads", "42", 99), None),
        (Subject("files", "42"), None),
        (Subject("connections", "abc"), None),
    ):
        assert made.fetch(subject, when).problem == ""
    assert client.asked == [
        ("/api/v1/stats", {"with_host": "1"}),
        ("/api/v1/history/at", {"time": "7"}),
        ("/api/v1/processes", {"container": "/"}),
        ("/api/v1/threads", {"pid": "42", "start": "99"}),
        ("/api/v1/files", {"pid": "42"}),
        ("/api/v1/connections", {"container": "abc"}),
    ]


@pytest.mark.parametrize(
    ("failure", "problem"),
    [
        (CommandError("No such container: web"), "No such container: web"),
        (ConnectionRefusedError("refused"), "the agent does not answer: refused"),
        (KeyError("x"), "the agent's answer is not what was expected"),
    ],
)
def test_a_failure_is_shown_not_raised(failure: Exception, problem: str) -> None:
    def answer(path: str, query: dict[str, str]) -> object:
        raise failure

    assert source(Client(answer)).fetch(Subject("processes", "web"), None).problem.startswith(problem)
    assert (
        "not what was expected" in source(Client(lambda p, q: [1])).fetch(Subject("containers"), None).problem
    )
    assert (
        "not what was expected" in source(Client(lambda p, q: {})).fetch(Subject("files", "1"), None).problem
    )


def test_the_past_is_what_was_looked_at_and_else_what_the_agent_recorded() -> None:
    moments = iter([10_000_000_000, 11_000_000_000])

    def answer(path: str, query: dict[str, str]) -> object:
        if path == "/api/v1/history/processes":
            assert query["container"] == "web"
            return {
                "processes": [{"pid": 2}],
                "to": 9.0,
                "interval_seconds": 10.0,
                "left_out": 3,
                "left_out_cpu_percent": 0.5,
            }
        return {"processes": [{"pid": 1}], "time_ns": next(moments)}

    made = source(Client(answer))
    subject = Subject("processes", "web")
    for _ in range(2):
        made.fetch(subject, None)
    assert made.fetch(subject, 10_500_000_000).time_ns == 10_000_000_000
    assert made.fetch(subject, 12_000_000_000).time_ns == 11_000_000_000
    for when in (9_999_999_999, 60_000_000_000):
        frame = made.fetch(subject, when)
        assert frame.rows == [{"pid": 2}]
        assert "the busiest of the 10 s" in frame.problem
        assert "3 others used 0.5 %" in frame.problem
    assert made.fetch(Subject("files", "2"), 9).problem.startswith("no files were looked at then")


def test_the_past_of_connections_is_the_map_seen_from_the_container() -> None:
    edge = {"protocol": "tcp", "port": 80, "connections": 2, "bytes_sent": 10, "bytes_received": 5}
    answer = {
        "to": 60.0,
        "nodes": [{"id": "web", "name": "web-1"}, {"id": "1.2.3.4", "name": "1.2.3.4"}],
        "edges": [
            edge | {"client": "1.2.3.4", "server": "web"},
            edge | {"client": "web", "server": "1.2.3.4"},
        ],
    }
    rows = source(Client(lambda path, query: answer)).fetch(Subject("connections", "web"), 7).rows
    ends = [(r["local"], r["local_port"], r["remote"], r["remote_port"], r["bytes_sent"]) for r in rows]
    assert ends == [("web-1", 80, "1.2.3.4", 0, 5), ("web-1", 0, "1.2.3.4", 80, 10)]
    assert rows[0]["state"] == "2 open"


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taffrail.top.source._BYTES", 200)
    moments = iter(range(10_000_000_000, 12_000_000_000, 100_000_000))
    made = source(Client(lambda path, query: {"processes": [{"pid": 1}], "time_ns": next(moments, None)}))
    subject = Subject("processes", "web")
    for _ in range(20):
        newest = made.fetch(subject, None).time_ns
    assert made.fetch(subject, newest).rows == [{"pid": 1}]
    made.fetch(subject, 10_000_000_000)
    assert sum(len(kept.rows) for kept in made._kept[subject]) <= 200


def test_what_is_wanted_now_is_what_comes() -> None:
    came: list[tuple[Subject, Frame]] = []
    arrived = threading.Event()

    def deliver(subject: Subject, frame: Frame) -> None:
        came.append((subject, frame))
        if subject.kind == "processes":
            arrived.set()

    client = Client(lambda path, query: {path.rsplit("/", 1)[-1]: [], "containers": [], "time_ns": 1})
    made = Source({"": client}, deliver, interval=3600)
    made.start()
    made.show(Subject("processes", "/"), None)
    assert arrived.wait(30)
    made.stop()
    made._thread.join(30)
    assert not made._thread.is_alive()
    assert came[-1][0] == Subject("processes", "/")


@pytest.mark.parametrize("rows", [["x"], [None], {"id": "/"}, "rows"])
def test_a_host_whose_rows_are_none_is_down_and_the_others_are_shown(rows: object) -> None:
    good = Client(
        lambda _path, _query: {"containers": [{"id": "a", "name": "web"}], "time_ns": time.time_ns()}
    )
    bad = Client(lambda _path, _query: {"containers": rows, "time_ns": time.time_ns()})
    several = Source({"one": good, "two": bad}, lambda subject, frame: None)
    frame = several.fetch(Subject("containers"), None)
    assert [(row["host"], row.get("state")) for row in frame.rows] == [("one", None), ("two", "down")]
    assert "two: the agent's answer is not what was expected" in frame.problem
