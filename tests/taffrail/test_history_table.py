"""How history looks on a terminal, and what is wrong usage."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from collector.history.curves import COLUMNS
from taffrail.__main__ import main
from taffrail.agent_client import AgentClient
from taffrail.history_table import containers_table, history_table, sparkline


@pytest.mark.parametrize(
    ("values", "drawn"),
    [
        ([0.0, 1.0, 2.0, 3.5, 7.0], "▁▂▃▅█"),
        ([None, 5.0, None], " █ "),
        ([0.0, 0.0], "▁▁"),
        ([], ""),
        ([-1.0, 1.0], "▁█"),
    ],
)
def test_sparklines(values: list[float | None], drawn: str) -> None:
    assert sparkline(values) == drawn


def columns(*values: float | None) -> dict[str, list[float | None]]:
    return {key: list(values) for key in COLUMNS}


def test_a_row_a_step_that_something_is_known_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    try:
        rows, overview = columns(1500.0, None, 2048.0), columns(0.0, 2048.0)
        averages = {"cpu_percent": 1024.0, "working_set_bytes": 1024.0}
        text = history_table("web\x1b[2J", [0, 10, 20], rows, overview, averages)
    finally:
        monkeypatch.undo()
        time.tzset()
    lines = text.splitlines()
    assert lines[0] == "web\\x1b[2J"
    assert lines[1] == "CPU  ▁█  average 1024.00%, highest 2048.00%"
    assert lines[2] == "MEM  ▁█  average 1KiB, highest 2KiB"
    headings = "TIME CPU % MAX THROTTLED MEM MAX NET RX/S NET TX/S READ/S WRITE/S PIDS"
    assert " ".join(lines[4].split()) == headings
    row = "00:00:00 1500.00% 1500.00% 1500.00% 1.465KiB 1.465KiB 1.5kB 1.5kB 1.5kB 1.5kB 1500"
    assert " ".join(lines[5].split()) == row
    assert lines[6].startswith("00:00:20 ")
    assert len(lines) == 7
    assert len({len(line) for line in lines[4:]}) == 1


def test_tasks_that_nobody_counts_are_not_none() -> None:
    """The host's cgroup has no number of them."""
    rows = columns(1.0) | {"pids": [0.0], "pids_max": [0.0]}
    overview = columns(1.0)
    text = history_table("/", [0], rows, overview, {"cpu_percent": 1.0, "working_set_bytes": 1.0})
    assert text.splitlines()[-1].split()[-1] == "--"


@pytest.mark.parametrize(("words", "seconds"), [([], 7 * 86400), (["--since", "1h"], 3600)])
def test_the_list_of_who_has_history_is_of_all_there_is(
    words: list[str], seconds: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[dict[str, str]] = []

    def get(_client: AgentClient, path: str, query: dict[str, str]) -> bytes:
        assert path == "/api/v1/history/containers"
        asked.append(query)
        return b"[]"

    monkeypatch.setattr(AgentClient, "get", get)
    assert main(["--set", f"paths.run={tmp_path}", "history", *words]) == 1
    assert int(asked[0]["to"]) - int(asked[0]["from"]) == pytest.approx(seconds * 1e9, abs=1e6)


def test_nothing_known() -> None:
    assert (
        history_table(
            "web",
            [0, 10],
            columns(None, None),
            columns(None),
            {"cpu_percent": None, "working_set_bytes": None},
        )
        == "web\nnothing is known of this time\n"
    )


def test_who_has_history() -> None:
    row = {"name": "a\nb", "id": "f" * 64, "image": "i:1", "first_us": 0, "last_us": 10**6}
    heading, line = containers_table([row]).splitlines()
    assert heading.split() == ["NAME", "CONTAINER", "ID", "IMAGE", "FROM", "TO"]
    assert line.startswith("a\\x0ab   ffffffffffff   i:1     ")


@pytest.mark.parametrize(
    ("words", "message", "status"),
    [
        (["--since", "soon"], "'soon' is not a time: expected a time of day like 03:00, a duration", 2),
        (["--step", "x"], "'x' is not a duration: expected something like 30s", 2),
        (["--step", "0.5"], "--step 0.5: expected whole seconds", 2),
        (["--since", "1h", "--until", "2h"], "--since 1h: expected a time before 2h", 2),
        (["-p", "-n", "-1"], "--limit -1: expected a number", 2),
        (["-p", "-c"], "--processes and --connections: expected one of them", 2),
        ([], "start one with 'taffrail up'", 1),
    ],
)
def test_wrong_usage(
    words: list[str], message: str, status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--set", f"paths.run={tmp_path}", "history", "web", *words]) == status
    assert message in capsys.readouterr().err
