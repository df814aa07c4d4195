"""Containers of a real Docker Engine: what its stats say lies between what our page says before and after."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

MIB = 1 << 20
# dd has read all of its block when it writes the first byte, and the pipe is never read.
HOLD = "mkfifo /full; sleep 9999 <>/full & exec dd if=/dev/zero of=/full bs=100M count=1"
LOADS = {
    "burner": ("--cpus", "0.5", "test/busybox", "sh", "-c", "while :; do :; done"),
    "holder": ("-m", "200m", "--pids-limit", "50", "test/busybox", "sh", "-c", HOLD),
}


class _Stats(http.client.HTTPConnection):
    """The Engine API's statistics of one moment."""

    def __init__(self, path: str) -> None:
        super().__init__("engine", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)

    def of(self, name: str) -> Any:
        self.request("GET", f"/v1.41/containers/{name}/stats?stream=false&one-shot=true")
        return json.loads(self.getresponse().read())


@pytest.fixture(scope="module")
def beside(make_taffrail: Callable[[], Any], docker_engine: Any) -> Iterator[tuple[Any, Any]]:
    """A Taffrail that follows a real Docker Engine with known loads."""
    running = make_taffrail()
    running.settings.append(f"collector.engines={docker_engine.root}/s")
    running.up()
    try:
        for name, words in LOADS.items():
            docker_engine.run("run", "-d", "--network", "none", "--name", name, *words)
        yield running, docker_engine
    finally:
        docker_engine.run("rm", "-f", *LOADS, check=False)


def ours(taffrail: Any, name: str, family: str) -> float:
    return float(sum(taffrail.metrics().values(family, f'name="{name}"')))


def test_cpu_time_lies_between_our_scrapes(beside: tuple[Any, Any], eventually: Callable[..., None]) -> None:
    taffrail, docker = beside
    family = "container_cpu_usage_seconds_total"
    eventually(lambda: ours(taffrail, "burner", family) > 0.2, "the burner at /metrics")
    stats = _Stats(str(docker.root / "s"))
    before = ours(taffrail, "burner", family)
    theirs = stats.of("burner")["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9
    stats.close()
    assert before <= theirs
    eventually(lambda: ours(taffrail, "burner", family) >= theirs, "as much CPU time as docker saw")
    assert ours(taffrail, "burner", "container_spec_cpu_quota") == 50_000


def test_memory_and_tasks_are_the_same(beside: tuple[Any, Any], eventually: Callable[..., None]) -> None:
    taffrail, docker = beside
    eventually(lambda: ours(taffrail, "holder", "container_memory_rss") >= 100 * MIB, "100 MiB")
    stats = _Stats(str(docker.root / "s"))
    theirs = stats.of("holder")
    stats.close()
    memory = theirs["memory_stats"]
    inactive = memory["stats"].get("total_inactive_file", memory["stats"].get("inactive_file"))
    usage, working_set = memory["usage"], memory["usage"] - inactive
    # The page may be of the second before.
    for family, bytes_ in (("usage_bytes", usage), ("working_set_bytes", working_set)):
        eventually(
            lambda family=family, bytes_=bytes_: (
                ours(taffrail, "holder", f"container_memory_{family}") == pytest.approx(bytes_, abs=MIB)
            ),
            f"the same {family}",
        )
    assert ours(taffrail, "holder", "container_spec_memory_limit_bytes") == memory["limit"] == 200 * MIB
    tasks = theirs["pids_stats"]["current"]
    eventually(lambda: ours(taffrail, "holder", "container_threads") == tasks, "as many tasks")
    assert ours(taffrail, "holder", "container_threads_max") == theirs["pids_stats"]["limit"] == 50


def test_the_two_commands_print_the_same(beside: tuple[Any, Any], eventually: Callable[..., None]) -> None:
    taffrail, docker = beside
    eventually(lambda: ours(taffrail, "holder", "container_memory_rss") >= 100 * MIB, "100 MiB")
    shown = docker.run(
        "stats", "--no-stream", "--format", "{{.MemUsage}} {{.PIDs}}", "holder"
    ).stdout.decode()
    row = next(line for line in taffrail.taffrail("stats", "--no-stream").splitlines() if "holder" in line)
    usage, slash, limit, tasks = shown.split()
    assert float(usage.removesuffix("MiB")) == pytest.approx(
        102, abs=3
    )  # its own and what the kernel needs for it
    assert f"{slash} {limit}" in row
    assert row.split()[-1] == tasks
