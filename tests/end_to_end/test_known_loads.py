"""Loads whose numbers are known beforehand, on this machine's kernel, through our engine and at ``/metrics``."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

BURN = ("sh", "-c", "while :; do :; done")
MIB = 1 << 20


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("engine", timeout=30)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


def api(taffrail: Any, path: str) -> Any:
    """What the Engine API answers."""
    connection = _UnixConnection(taffrail.root / "run" / "engine.sock")
    try:
        connection.request("GET", path)
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


@pytest.fixture
def run(shared_taffrail: Any, image: str, eventually: Any) -> Iterator[Callable[..., None]]:
    """Start a container, ``run("name", "--option", …, command=(…))``, and see it; it is gone at the end."""
    names: list[str] = []

    def start(name: str, *options: str, command: tuple[str, ...]) -> None:
        names.append(name)
        shared_taffrail.docker("run", "-d", "--name", name, *options, image, *command)
        eventually(
            lambda: shared_taffrail.metrics().values("container_last_seen", f'name="{name}"'),
            f"{name} at /metrics",
        )

    yield start
    shared_taffrail.docker("rm", "-f", *names, check=False)


@pytest.fixture
def value(shared_taffrail: Any, eventually: Any) -> Callable[..., float]:
    """The sum over a container's series of a family, on the first page that has some; fails when none comes."""

    def read(name: str, family: str, *labels: str) -> float:
        found: list[float] = []

        def is_there() -> bool:
            found[:] = shared_taffrail.metrics().values(family, f'name="{name}"', *labels)
            return bool(found)

        eventually(is_there, f"{family} of {name}")
        return sum(found)

    return read


def cpu(taffrail: Any, *names: str) -> list[float]:
    """CPU seconds of containers on one page."""
    page = taffrail.metrics()
    return [sum(page.values("container_cpu_usage_seconds_total", f'name="{name}"')) for name in names]


@pytest.mark.timeout(900)
def test_cpu_shares_divide_one_core_two_to_one_until_one_is_paused(shared_taffrail, run, eventually) -> None:
    names = ("double", "single")
    for name, shares in zip(names, ("1024", "512"), strict=True):
        run(name, "--cpuset-cpus", "0", "--cpu-shares", shares, command=BURN)
    eventually(lambda: min(cpu(shared_taffrail, *names)) > 0.2, "both burning")
    before = cpu(shared_taffrail, *names)
    # The containers of a pass are read one after the other: the longer the time, the less that matters.
    eventually(lambda: cpu(shared_taffrail, "single")[0] > before[1] + 2, "2 s of CPU", 400)
    after = cpu(shared_taffrail, *names)
    double, single = (b - a for a, b in zip(before, after, strict=True))
    assert double / single == pytest.approx(2.0, rel=0.2)

    shared_taffrail.docker("pause", "double")
    eventually(
        lambda: shared_taffrail.metrics().values("container_state", 'name="double"', 'state="paused"'),
        "the pause at /metrics",
    )
    # The newest pass may still be one from before the pause: count from the next on.
    passed = cpu(shared_taffrail, *names)
    eventually(lambda: cpu(shared_taffrail, "single")[0] > passed[1], "another pass")
    before = cpu(shared_taffrail, *names)
    eventually(lambda: cpu(shared_taffrail, "single")[0] > before[1] + 0.5, "0.5 s of CPU")
    assert cpu(shared_taffrail, "double")[0] == before[0]
    rows = shared_taffrail.docker("stats", "--no-stream", "--format", "{{.Name}} {{.CPUPerc}}", *names)
    shares = dict(row.split() for row in rows.splitlines())
    assert shares["double"] == "0.00%"
    assert float(shares["single"].rstrip("%")) > 0
    # How much it gets is for the host to say; what is told is what the kernel counted then.
    earlier = shared_taffrail.cpu_seconds("single")
    told = api(shared_taffrail, "/v1.41/containers/single/stats?stream=false")
    used, then = (told[key]["cpu_usage"]["total_usage"] / 1e9 for key in ("cpu_stats", "precpu_stats"))
    assert earlier <= used <= shared_taffrail.cpu_seconds("single")
    assert then < used


@pytest.fixture
def loop_device(tmp_path: Path) -> Iterator[str]:
    backing = tmp_path / "disk"
    with backing.open("wb") as file:
        file.truncate(64 * MIB)
    made = subprocess.run(
        ["losetup", "--show", "-f", backing], capture_output=True, text=True, check=True, timeout=30
    )
    device = made.stdout.strip()
    yield device
    subprocess.run(["losetup", "-d", device], check=True, timeout=30)


def bytes_at(device: str) -> int:
    """What a device has taken since it was there, by its own count (Documentation/block/stat.rst)."""
    return int(Path(f"/sys/block/{Path(device).name}/stat").read_text().split()[6]) * 512


def test_a_write_limit_holds_in_stats_and_at_metrics(
    shared_taffrail, run, value, eventually, loop_device: str
) -> None:
    limit = 4 * MIB
    already = bytes_at(loop_device)
    writer = "while :; do dd if=/dev/zero of=/dev/target bs=64k count=512 oflag=direct 2>/dev/null; done"
    run(
        "writer", "--device", f"{loop_device}:/dev/target", "--device-write-bps", f"{loop_device}:{limit}",
        command=("sh", "-c", writer),
    )  # fmt: skip

    def written() -> tuple[float, int]:
        stats = api(shared_taffrail, "/v1.41/containers/writer/stats?stream=false&one-shot=true")
        tables = stats["blkio_stats"]["io_service_bytes_recursive"] or []
        amount = sum(row["value"] for row in tables if row["op"].lower() == "write")
        return datetime.fromisoformat(
            re.sub(r"\.(\d{6})\d*Z", r".\1+00:00", stats["read"])
        ).timestamp(), amount

    eventually(lambda: written()[1] > limit // 4, "the first writes")
    first_at, first = written()
    eventually(lambda: written()[1] >= first + 5 * limit, "five seconds' worth of writes")
    least = bytes_at(loop_device) - already
    second_at, second = written()
    assert least <= second <= bytes_at(loop_device) - already + MIB  # one may be counted and not yet there
    # A slow disk takes less. What was read a moment after its time was, or before, makes a difference.
    assert second - first <= 1.1 * limit * (second_at - first_at) + limit / 2
    device = f'device="{loop_device}"'
    eventually(lambda: value("writer", "container_fs_writes_bytes_total", device) >= second, "the same bytes")
    assert value("writer", "container_fs_reads_bytes_total", device) == 0
    shown = shared_taffrail.docker("stats", "--no-stream", "--format", "{{.BlockIO}}", "writer")
    assert shown.startswith("0B / ")
    assert shown.strip().endswith("MB")


def test_too_much_memory_is_a_kill_an_event_and_a_counter(shared_taffrail, run, value, eventually) -> None:
    since = str(int(time.time()) - 1)
    fill = ("dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1")
    run("hungry", "-m", "64m", "--memory-swap", "64m", command=fill)
    assert shared_taffrail.docker("wait", "hungry").strip() == "137"
    state = shared_taffrail.docker("inspect", "-f", "{{.State.OOMKilled}} {{.State.Status}}", "hungry")
    assert state.split() == ["true", "exited"]
    until = str(int(time.time()) + 1)
    events = shared_taffrail.docker(
        "events",
        "--since",
        since,
        "--until",
        until,
        "--filter",
        "container=hungry",
        "--format",
        "{{.Action}}",
    )
    assert events.split() == ["create", "start", "oom", "die"]
    eventually(
        lambda: shared_taffrail.metrics().values("container_exit_code", 'name="hungry"'),
        "its end at /metrics",
    )
    assert value("hungry", "container_exit_code") == 137
    eventually(lambda: value("hungry", "container_oom_events_total") == 1, "one kill")
    query = ("search", "container:hungry event:oom_kill", "--format", "json")
    eventually(lambda: shared_taffrail.taffrail(*query, check=False), "the line about whom the kernel killed")
    killed = json.loads(json.loads(shared_taffrail.taffrail(*query))["line"])
    assert (killed["command"], killed["limit_bytes"]) == ("dd", 64 << 20)
    assert killed["usage_bytes"] <= 64 << 20


def test_held_memory_is_anonymous_memory(run, value, eventually) -> None:
    # dd has read all of its block when it writes the first byte, and the pipe is never read.
    hold = "mkfifo /full; sleep 9999 <>/full & exec dd if=/dev/zero of=/full bs=100M count=1"
    run("holder", "-m", "200m", command=("sh", "-c", hold))
    eventually(lambda: value("holder", "container_memory_rss") >= 100 * MIB, "100 MiB")
    assert value("holder", "container_memory_rss") < 104 * MIB
    assert 100 * MIB <= value("holder", "container_memory_working_set_bytes") < 108 * MIB
    assert value("holder", "container_spec_memory_limit_bytes") == 200 * MIB
    assert value("holder", "container_oom_events_total") == 0


def packets(value: Callable[..., float], name: str) -> tuple[float, float]:
    return tuple(value(name, f"container_network_{way}_packets_total") for way in ("receive", "transmit"))


def test_pings_and_ten_megabytes_count_on_both_sides(shared_taffrail, run, value, eventually) -> None:
    listen = "sleep 9999 | nc -l -p 9000 >/dev/null"  # an end of its input would be passed on to the client
    run("server", command=("sh", "-c", listen))
    run("client", command=("sleep", "9999"))
    address = shared_taffrail.docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "server").strip()
    before = {name: packets(value, name) for name in ("server", "client")}
    printed = shared_taffrail.docker("exec", "client", "ping", "-c", "2", "-i", "0.2", address)
    assert "2 packets received" in printed

    def risen(name: str) -> bool:
        return all(now >= then + 2 for now, then in zip(packets(value, name), before[name], strict=True))

    for name in before:
        eventually(lambda name=name: risen(name), f"{name}'s packets, both ways")

    def carried(name: str, way: str) -> float:
        return value(name, f"container_network_{way}_bytes_total")

    eventually(lambda: ":9000" in shared_taffrail.docker("exec", "server", "netstat", "-ltn"), "the listener")
    sent, received = carried("client", "transmit"), carried("server", "receive")
    send = f"head -c {10 * MIB} /dev/zero | nc {address} 9000"
    shared_taffrail.docker("exec", "client", "sh", "-c", send)
    eventually(lambda: carried("client", "transmit") >= sent + 10 * MIB, "10 MiB sent")
    eventually(lambda: carried("server", "receive") >= received + 10 * MIB, "10 MiB received")
    assert (
        carried("client", "transmit") - sent < 15 * MIB
    )  # with headers, and what was sent again on a busy host
    assert carried("client", "receive") < 1 * MIB  # acknowledgements: the direction is right


@pytest.mark.parametrize("removed", [False, True], ids=["kept", "removed"])
def test_two_hundred_milliseconds_leave_their_cpu_time_and_exit_code(
    shared_taffrail, image: str, value, eventually, removed: bool
) -> None:
    name = f"short-{'removed' if removed else 'kept'}"
    # What the host gives it in that time the kernel tells the shell: the shell's own, then its child's.
    script = "(while :; do :; done) & usleep 200000; kill $!; wait $!; times; exit 3"
    options = ("--rm",) if removed else ()
    printed = shared_taffrail.docker("run", *options, "--name", name, image, "sh", "-c", script, check=False)
    counted = sum(
        60 * int(minutes) + float(seconds) for minutes, seconds in re.findall(r"(\d+)m([\d.]+)s", printed)
    )
    eventually(
        lambda: shared_taffrail.metrics().values("container_exit_code", f'name="{name}"') == [3],
        "the exit code",
    )
    # The shell is told in hundredths, by the tick; the runtime's start in the container is in our count alone.
    assert printed.count("m") == 4
    told = value(name, "container_cpu_usage_seconds_total")
    assert told > 0
    assert counted - 0.05 <= told < counted + 2
    assert not shared_taffrail.metrics().values("container_memory_usage_bytes", f'name="{name}"')


def test_kills_add_up_over_restarts_of_the_container_and_of_the_agent(
    shared_taffrail, run, value, eventually
) -> None:
    fill = "usleep 300000; exec dd if=/dev/zero of=/dev/null bs=200M count=1"
    limits = ("-m", "32m", "--memory-swap", "32m")
    run("again", *limits, "--restart", "on-failure:2", command=("sh", "-c", fill))
    state = ("inspect", "-f", "{{.State.Status}} {{.RestartCount}}", "again")
    eventually(lambda: shared_taffrail.docker(*state).split() == ["exited", "2"], "its third end")
    eventually(lambda: value("again", "container_oom_events_total") == 3, "three kills")
    assert value("again", "container_restarts_total") == 2
    agent = shared_taffrail.agent_pid()
    os.kill(agent, signal.SIGKILL)
    eventually(lambda: shared_taffrail.agent_pid() not in (0, agent), "another agent")
    eventually(lambda: _answers(shared_taffrail, "again"), "its page")
    assert value("again", "container_oom_events_total") == 3
    assert value("again", "container_oom_kills_total") == 3


def _answers(taffrail: Any, name: str) -> bool:
    try:
        return bool(taffrail.metrics().values("container_exit_code", f'name="{name}"'))
    except OSError:
        return False
