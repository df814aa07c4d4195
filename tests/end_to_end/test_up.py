"""What a person sees: start, look, Ctrl-C, start again with everything still running."""

import contextlib
import json
import os
import re
import signal
from pathlib import Path

import pytest


def numbers(text: str) -> list[int]:
    return [int(n) for n in re.findall(r"tick (\d+)", text)]


@pytest.fixture
def ticking(taffrail, image: str) -> None:
    taffrail.up()
    taffrail.import_image(image)
    script = "i=0; while true; do i=$((i+1)); echo tick $i; sleep 0.05; done"
    taffrail.docker("run", "-d", "--name", "clock", image, "sh", "-c", script)


@pytest.mark.usefixtures("ticking")
def test_containers_outlive_ctrl_c_and_the_next_up_goes_on_without_a_gap(taffrail, eventually) -> None:
    eventually(lambda: len(numbers(taffrail.docker("logs", "clock"))) > 10, "ten ticks")
    pid = taffrail.docker("inspect", "-f", "{{.State.Pid}}", "clock")
    assert taffrail.interrupt() == 0
    os.kill(int(pid), 0)  # still there
    taffrail.up()
    assert taffrail.docker("inspect", "-f", "{{.State.Pid}}", "clock") == pid
    seen = len(numbers(taffrail.docker("logs", "clock")))
    eventually(lambda: len(numbers(taffrail.docker("logs", "clock"))) > seen + 10, "more ticks")
    taffrail.docker("stop", "-t", "1", "clock")
    logged = numbers(taffrail.docker("logs", "clock"))
    assert logged == list(range(1, len(logged) + 1))

    def found() -> list[int]:
        lines = taffrail.taffrail("search", "container:clock", "-n", "100000", check=False)
        return numbers(lines)

    eventually(lambda: len(found()) >= len(logged), "every tick in the store")
    assert found() == logged


@pytest.mark.usefixtures("ticking")
def test_a_part_that_is_killed_comes_back_and_nothing_is_lost(taffrail, eventually) -> None:
    def pid_of(part: str) -> int:
        assert taffrail.process is not None
        supervisor = Path(f"/proc/{taffrail.process.pid}/task/{taffrail.process.pid}/children")
        for pid in map(int, supervisor.read_text().split()):
            with contextlib.suppress(OSError):  # it has ended since
                if Path(f"/proc/{pid}/cmdline").read_text().endswith(f"\0{part}\0"):
                    return pid
        return 0

    for part in ("engine", "agent"):
        before = pid_of(part)
        os.kill(before, signal.SIGKILL)
        eventually(lambda part=part, before=before: pid_of(part) not in (0, before), f"a new {part}")
    eventually(lambda: taffrail.docker("ps", "-q", check=False), "the engine's answer")
    count = len(numbers(taffrail.docker("logs", "clock")))
    eventually(lambda: len(numbers(taffrail.docker("logs", "clock"))) > count + 5, "more ticks")
    taffrail.docker("kill", "clock")
    logged = numbers(taffrail.docker("logs", "clock"))
    assert logged == list(range(1, len(logged) + 1))
    eventually(
        lambda: (
            numbers(taffrail.taffrail("search", "container:clock", "-n", "100000", check=False)) == logged
        ),
        "the same ticks in the store",
    )


@pytest.mark.usefixtures("ticking")
def test_stats_shows_names_first_with_docker_stats_columns(taffrail, eventually) -> None:
    eventually(lambda: "--" not in taffrail.taffrail("stats", "--no-stream"), "a sample")
    heading, row = taffrail.taffrail("stats", "--no-stream").splitlines()
    assert re.split(r" {2,}", heading) == [
        "NAME", "CONTAINER ID", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS",
    ]  # fmt: skip
    assert row.startswith("clock ")
    ours = json.loads(taffrail.taffrail("stats", "--no-stream", "--format", "json"))
    assert ours["Name"] == "clock"
    assert ours["pids"] >= 1
    assert taffrail.docker("stats", "--no-stream", "--format", "{{.Name}}").strip() == "clock"


def test_the_demo_is_seen_through_every_driver(taffrail, eventually, page_in_chromium) -> None:
    printed = taffrail.up("--demo")
    assert f"http://{taffrail.address('http')}/metrics" in printed
    names = taffrail.docker("ps", "--format", "{{.Names}}").split()
    assert sorted(names) == ["demo-queue", "demo-web", "demo-worker"]
    for name, driver in {"demo-web": "json-file", "demo-worker": "gelf", "demo-queue": "fluentd"}.items():
        assert taffrail.docker("inspect", "-f", "{{.HostConfig.LogConfig.Type}}", name).strip() == driver
        eventually(
            lambda name=name: taffrail.taffrail("search", f"container:{name}", check=False), f"{name}'s lines"
        )
        assert taffrail.docker("logs", name)
    labels = 'container_label_com_docker_compose_project="demo"'
    eventually(
        lambda: len(taffrail.metrics().values("container_memory_usage_bytes", labels)) == 3,
        "all three at /metrics",
    )
    rows = page_in_chromium(f"http://{taffrail.address('http')}/")
    for name in ("demo-web", "demo-worker", "demo-queue"):
        assert re.search(rf'<td class="name">{name}</td><td>running</td>', rows), name
        assert re.search(rf"<b>{name}</b>", rows), f"no log line of {name} on the page"
    assert "level" in rows
