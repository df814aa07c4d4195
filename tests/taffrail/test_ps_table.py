"""The tables of ``taffrail ps``."""

from __future__ import annotations

import json

import pytest

from taffrail.ps_table import container_rows, container_table, json_lines, process_table, status_text

NOW = 10_000 * 10**9


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"state": "running", "started_ns": NOW - 5 * 10**9}, "Up 5 seconds"),
        (
            {"state": "running", "started_ns": NOW - 90 * 10**9, "health": "healthy"},
            "Up About a minute (healthy)",
        ),
        (
            {"state": "running", "started_ns": NOW, "health": "starting"},
            "Up Less than a second (health: starting)",
        ),
        ({"state": "paused", "started_ns": NOW - 7200 * 10**9}, "Up 2 hours (Paused)"),
        ({"state": "running", "started_ns": 0}, "Up"),
        (
            {"state": "exited", "exit_code": 137, "finished_ns": NOW - 120 * 10**9},
            "Exited (137) 2 minutes ago",
        ),
        ({"state": "exited", "exit_code": None, "finished_ns": 0}, "Exited (?)"),
        (
            {"state": "restarting", "exit_code": 1, "finished_ns": NOW - 3 * 10**9},
            "Restarting (1) 3 seconds ago",
        ),
        ({"state": "created"}, "Created"),
        ({"state": "dead"}, "Dead"),
        ({"state": "removing"}, "Removal In Progress"),
    ],
)
def test_status_in_dockers_words(row: dict[str, object], text: str) -> None:
    assert status_text(row, NOW) == text


CONTAINERS = [
    {
        "id": "b" * 64,
        "name": "web",
        "image": "nginx",
        "engine": "docker",
        "state": "running",
        "started_ns": NOW,
    },
    {"id": "a" * 64, "name": "db\x1b[2J", "image": "", "engine": "", "state": "exited", "log_driver": "gelf"},
]
STATS = [
    {"id": "b" * 64, "cpu_percent": 12.345, "memory_usage_bytes": 3 << 20, "time_ns": 1, "state": "running"}
]


def test_containers_of_all_engines() -> None:
    rows = container_rows(CONTAINERS, STATS, every=True, now_ns=NOW)
    heading, db, web = container_table(rows).splitlines()
    assert heading.split() == ["ID", "NAME", "IMAGE", "STATUS", "ENGINE", "CPU", "%", "MEM", "LOG"]
    assert web.split("   ")[0] == "b" * 12
    assert "docker   12.35%   3MiB" in web
    assert "3MiB" in web
    assert "db\\x1b[2J" in db
    assert "\x1b" not in db
    assert len(container_rows(CONTAINERS, STATS, every=False, now_ns=NOW)) == 1
    assert json.loads(json_lines(rows).splitlines()[1])["status"] == "Up Less than a second"


PROCESS = {
    "pid": 7,
    "parent": 1,
    "user": "root",
    "state": "S",
    "threads": 2,
    "cpu_percent": 1.0,
    "resident_bytes": 1 << 20,
    "read_bytes_per_second": None,
    "write_bytes_per_second": 10.0,
    "command": "sh -c \x1b[31mred",
    "container": "web",
}


def test_processes() -> None:
    heading, line = process_table([PROCESS]).splitlines()
    assert "CONTAINER" not in heading
    assert line.split() == ["7", "1", "root", "S", "2", "1.0", "1MiB", "-", "10B", "sh", "-c", "\\x1b[31mred"]
    heading, *_ = process_table([PROCESS, {**PROCESS, "container": ""}]).splitlines()
    assert "CONTAINER" in heading, "of the host's processes it says whose they are"
    assert process_table([]).startswith("PID")
