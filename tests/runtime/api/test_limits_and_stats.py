"""Limits, their counters in ``docker stats``, and the end for want of memory."""

from __future__ import annotations

import json
from collections.abc import Callable

from engine_process import IMAGE, EngineProcess, Events, until

Names = Callable[[], str]


def stats(engine: EngineProcess, name: str) -> dict[str, str]:
    found: dict[str, str] = json.loads(
        engine.docker("stats", "--no-stream", "--format", "{{json .}}", name).out
    )
    return found


def percent(row: dict[str, str]) -> float:
    return float(row["CPUPerc"].rstrip("%"))


def working(engine: EngineProcess, name: str) -> dict[str, str] | None:
    row = stats(engine, name)
    return row if 0 < percent(row) < 75 else None


def test_a_busy_container_shows_its_share_and_its_limit(engine: EngineProcess, names: Names) -> None:
    name = names()
    burn = ("sh", "-c", "while true; do :; done")
    engine.docker("run", "-d", "--name", name, "-m", "200m", "--cpus", "0.5", IMAGE, *burn)
    # How much of its half it gets is for the machine to say; that it is no more, in a second without delay.
    row = until(lambda: working(engine, name), "its CPU time")
    assert row["Name"] == name
    assert row["MemUsage"].endswith("/ 200MiB")
    assert row["PIDs"] == "1"


def test_a_stopped_container_shows_zeros(engine: EngineProcess, names: Names) -> None:
    name = names()
    engine.docker("run", "--name", name, IMAGE, "true")
    row = stats(engine, name)
    assert (row["CPUPerc"], row["PIDs"]) == ("0.00%", "0")


def test_more_memory_than_the_limit_ends_it_and_says_why(engine: EngineProcess, names: Names) -> None:
    name = names()
    events = Events(engine, "--filter", "type=container")
    try:
        limits = ("-m", "32m", "--memory-swap", "32m", "--shm-size", "500m")
        fill = ("sh", "-c", "head -c 200000000 /dev/zero | tail")
        engine.docker("run", "-d", "--name", name, *limits, IMAGE, *fill)
        engine.docker("wait", name)
        assert engine.inspect(name, "{{.State.OOMKilled}}") == "true"
        until(lambda: "die" in events.actions(name), "the last event")
        assert events.actions(name) == ["create", "start", "oom", "die"]
    finally:
        events.close()


def test_memory_alone_limits_swap_to_twice_that(engine: EngineProcess, names: Names) -> None:
    name = names()
    engine.docker("create", "--name", name, "-m", "200m", IMAGE)
    assert engine.inspect(name, "{{.HostConfig.MemorySwap}}") == str(400 << 20)
