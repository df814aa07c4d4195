"""``taffrail history --processes`` and ``--connections`` as text."""

from __future__ import annotations

from taffrail.past_table import connections_table, processes_table

PROCESS = {
    "pid": 42,
    "container": "web",
    "user": "root",
    "cpu_seconds": 12.345,
    "cpu_percent_max": 99.96,
    "cpu_max_at": 0,
    "resident_bytes_max": 1 << 20,
    "read_bytes": 0,
    "write_bytes": 2048,
    "threads": [{"tid": 1, "name": "bur\x1bner", "cpu_seconds": 11.0}],
    "command": "burn\n" + "x" * 100,
}


def test_processes() -> None:
    head, row = processes_table([PROCESS], several=True).splitlines()
    assert head.split()[:3] == ["PID", "CONTAINER", "USER"]
    assert row.startswith("42    web         root   12.35 s    100.0       ")
    assert "1MiB" in row
    assert "2KiB" in row
    assert "bur\\x1bner (11.0 s)" in row, "what a program chose is shown, not obeyed"
    assert row.endswith("burn\\x0a" + "x" * 55)
    assert "CONTAINER" not in processes_table([PROCESS | {"threads": []}], several=False)
    assert processes_table([], several=False) == "no processes are known of this time\n"


def test_connections() -> None:
    nodes = [{"id": "w", "name": "web"}, {"id": "d", "name": "db"}]
    edge = {"client": "w", "server": "d", "protocol": "tcp", "port": 5432, "total": 3}
    edges = [edge | {"bytes_sent": 1, "bytes_received": 1}, edge | {"client": "1.2.3.4", "bytes_sent": 4096}]
    lines = connections_table(nodes, edges).splitlines()
    assert lines[1].startswith("1.2.3.4   db       5432/tcp   3             4KiB"), (
        "what carried most is first"
    )
    assert lines[2].startswith("web       db       5432/tcp")
    assert connections_table([], []) == "no connections are known of this time\n"


def test_rows_beyond_the_limit_are_counted() -> None:
    rows = [PROCESS | {"pid": pid} for pid in range(5)]
    lines = processes_table(rows, 2, 7, several=False).splitlines()
    assert [line.split()[0] for line in lines[1:3]] == ["0", "1"]
    assert lines[3:] == [
        "and 3 more: --limit 0 shows them",
        "and 7 that the agent left out: choose a container or a shorter time",
    ]
    edge = {"client": "w", "server": "d", "protocol": "tcp", "port": 1, "total": 1}
    edges = [edge, edge | {"total": 9}, edge | {"total": 5}]
    lines = connections_table([], edges, 2).splitlines()
    assert [line.split()[3] for line in lines[1:3]] == ["9", "5"], "of those without bytes, most connections"
    assert lines[3:] == ["and 1 more: --limit 0 shows them"]
