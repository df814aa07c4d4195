"""Several hosts in one list: those that answer, one that is slow, one that is down and comes back."""

from __future__ import annotations

import threading
import time

import pytest

from taffrail.errors import CommandError
from taffrail.top.layout import draw
from taffrail.top.model import Model, Subject
from taffrail.top.source import Source

SECOND = 1_000_000_000
#: Seconds that hosts which answer may take on a busy machine.
PATIENCE = 60.0


class Agent:
    """A host that answers, fails or hangs, with a clock of its own."""

    def __init__(self, name: str) -> None:
        self.failure: Exception | None = None
        self.hangs: threading.Event | None = None
        self.asked: list[tuple[str, dict[str, str]]] = []
        self._name, self.ahead = name, 0

    def json(self, path: str, query: dict[str, str] | None = None) -> object:
        self.asked.append((path, query or {}))
        if self.hangs is not None:
            self.hangs.wait(100)
        if self.failure is not None:
            raise self.failure
        now = time.time_ns() + self.ahead * SECOND
        rows = [{"id": "/", "name": self._name}, {"id": "c" * 64, "name": "web", "state": "running"}]
        return {
            "time_ns": now,
            "host": self._name,
            "containers": [{**row, "host": self._name} for row in rows],
            "processes": [{"pid": 1}],
            "to": 1.0,
        }


def summary(frame_rows: object) -> list[tuple[object, object, object]]:
    assert isinstance(frame_rows, list)
    return [(row["host"], row["name"], row.get("state")) for row in frame_rows]


@pytest.fixture
def agents() -> dict[str, Agent]:
    return {"one": Agent("vm-1"), "two": Agent("vm-2")}


@pytest.fixture
def source(agents: dict[str, Agent], monkeypatch: pytest.MonkeyPatch) -> Source:
    monkeypatch.setattr("taffrail.top.fleet._WAIT_SECONDS", PATIENCE)
    return Source(agents, lambda subject, frame: None, interval=PATIENCE)


def test_rows_have_the_names_given_to_their_hosts(source: Source) -> None:
    frame = source.fetch(Subject("containers"), None)
    assert summary(frame.rows) == [
        ("one", "one", None),
        ("one", "web", "running"),
        ("two", "two", None),
        ("two", "web", "running"),
    ]
    assert (frame.problem, frame.host) == ("", "2 hosts")


def test_a_host_that_is_down_is_a_row_that_says_so_and_comes_back(
    source: Source, agents: dict[str, Agent]
) -> None:
    agents["two"].failure = ConnectionRefusedError("refused")
    frame = source.fetch(Subject("containers"), None)
    assert summary(frame.rows)[2:] == [("two", "two", "down")]
    assert frame.problem == "two: the agent does not answer: refused"
    agents["one"].failure = CommandError("no")
    assert source.fetch(Subject("containers"), None).problem == "one: no (and 1 more)"
    agents["one"].failure = agents["two"].failure = None
    assert len(source.fetch(Subject("containers"), None).rows) == 4


def test_a_host_that_hangs_holds_nobody_up(
    source: Source, agents: dict[str, Agent], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taffrail.top.fleet._STALE_NS", 1000 * SECOND)
    source.fetch(Subject("containers"), None)
    agents["two"].hangs = threading.Event()
    monkeypatch.setattr("taffrail.top.fleet._WAIT_SECONDS", 0.3)
    frame = source.fetch(Subject("containers"), None)
    assert summary(frame.rows)[2:] == [("two", "two", None), ("two", "web", "running")], "as it was"
    monkeypatch.setattr("taffrail.top.fleet._STALE_NS", 0)
    frame = source.fetch(Subject("containers"), None)
    assert summary(frame.rows)[2:] == [("two", "two", "down")]
    assert frame.problem == "two: does not answer"
    assert [path for path, _ in agents["two"].asked] == ["/api/v1/stats"] * 2, "not asked again meanwhile"
    agents["two"].hangs.set()
    monkeypatch.setattr("taffrail.top.fleet._WAIT_SECONDS", PATIENCE)
    assert len(source.fetch(Subject("containers"), None).rows) == 4


def test_into_a_container_asks_its_host_by_its_clock(source: Source, agents: dict[str, Agent]) -> None:
    agents["two"].ahead = 120
    model = Model(several=True)
    frame = source.fetch(Subject("containers"), None)
    assert frame.problem == "two: its clock is 120 s ahead"
    model.take(Subject("containers"), frame)
    text = "\n".join(draw(model, 80, 24, colours=False))
    assert "HOST" in text.splitlines()[2]
    model.handle("end")
    model.handle("enter")
    assert model.level.subject == Subject("processes", "c" * 64, host="two")
    assert model.level.title == "web on two"
    source.fetch(model.level.subject, 1000 * SECOND)
    path, query = agents["two"].asked[-1]
    assert path == "/api/v1/history/processes"
    assert abs(int(query["time"]) - 1120 * SECOND) < SECOND
    assert agents["one"].asked == [("/api/v1/stats", {"with_host": "1"})]
    model.take(model.level.subject, source.fetch(model.level.subject, None))
    model.handle("enter")
    assert model.level.subject == Subject("threads", "1", host="two")
    model.handle("c")
    assert model.level.subject == Subject("connections", "c" * 64, host="two")
