"""Loads whose numbers are known beforehand, through the whole of Taffrail on a machine with cgroup v2.

All of them run at once, since the machine is slow; ``test_known_loads.py`` has more of them for this host's kernel.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_server import Prometheus

from taffrail.demo import busybox_rootfs

CHECKOUT = Path(__file__).resolve().parents[2]
MIB = 1 << 20
HOLD = "mkfifo /full; sleep 9999 <>/full & exec dd if=/dev/zero of=/full bs=100M count=1"
#: Options and command by name.
LOADS = {
    "hungry": "-m 32m --memory-swap 32m --restart on-failure:1 test/b dd if=/dev/zero of=/dev/null bs=200M count=1",
    "holder": f"-m 200m --pids-limit 12 test/b sh -c '{HOLD}'",
    "cacher": "test/b sh -c 'dd if=/dev/zero of=/file bs=1M count=100 conv=fsync; exec sleep 9999'",
    "pager": "--privileged test/b "
    "sh -c 'mkdir /h; mount -t hugetlbfs h /h; fallocate -l 4194304 /h/x; exec sleep 9999'",
    "server": "--network net test/b sh -c 'sleep 9999 | nc -l -p 9000 >/dev/null'",
    "client": "--network net test/b sleep 9999",
    "burner": "--cpus 0.5 test/b sh -c 'while :; do :; done'",
}
SOCKET = "/run/taffrail/engine.sock"
#: Both ends stay open, so that there are sockets to be counted.
SEND = f"(head -c {10 * MIB} /dev/zero; sleep 9999) | nc server 9000"
#: A second, since everything but time is slower there.
SHORT = "(while :; do :; done) & sleep 1; kill $!; exit 3"
#: The slow groups that are looked at, oftener than in real life; the lane's budget makes them wait all the same.
GROUPS = ("tcp", "netstat", "sockstat", "process", "hugetlb", "disk")


#: What is waited for comes slowly there, and slower still where this host is busy.
_SECONDS = 300.0
#: Once something did not come at all, nothing else is waited for so long.
_SECONDS_THEN = 30.0


@pytest.fixture(scope="module")
def eventually(v2_machine: Any) -> Callable[..., None]:
    """Wait until a condition holds; fail saying what did not come, and at once when the machine has ended."""
    missed: list[str] = []

    def wait(condition: Callable[[], object], what: str) -> None:
        seconds = _SECONDS_THEN if missed else _SECONDS
        deadline = time.monotonic() + seconds
        while not condition():
            assert v2_machine.runs(), f"the machine has ended, and with it {what}: {v2_machine.console()}"
            if time.monotonic() > deadline:
                missed.append(what)
                raise AssertionError(f"did not come in {seconds:.0f} s: {what}")
            time.sleep(0.2)

    return wait


class Taffrail:
    """Engine and agent in the machine."""

    def __init__(
        self, machine: Any, read_page: Callable[[str], Any], eventually: Callable[..., None]
    ) -> None:
        self.machine = machine
        self._eventually = eventually
        self._read_page = read_page
        self._page: Any = None
        self._read_at = -1.0
        settings = (
            "paths.run=/run/taffrail",
            "paths.state=/data/taffrail",
            "collector.host=v2machine",
            f"collector.engines={SOCKET}",
            "http.address=0.0.0.0:9480",
            "http.allow_insecure=true",
            f"collector.groups={','.join(GROUPS)}",
            f"collector.group_intervals={','.join(f'{group}=5s' for group in GROUPS)}",
        )
        passed = " ".join(f"--set {setting}" for setting in settings)
        self._command = f"PYTHONPATH={CHECKOUT} {sys.executable} -P -m taffrail {passed}"

    def start(self, *parts: str) -> None:
        self._read_at = -1.0  # what an earlier agent said is not what the next one says
        for part in parts:
            self.machine.run(f"{self._command} {part} >>/run/{part}.log 2>&1 & echo $! >/run/{part}.pid")

    def from_here(self, *words: str) -> str:
        """What a command says that asks the machine's agent from this host."""
        command = [sys.executable, "-P", "-m", "taffrail", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=_SECONDS).stdout

    def docker(self, words: str, check: bool = True) -> str:
        environment = f"DOCKER_HOST=unix://{SOCKET} DOCKER_CONFIG=/run/docker-config"
        return str(self.machine.run(f"export {environment}; docker {words}", check))

    @property
    def address(self) -> str:
        return str(self.machine.address(9480))

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://{self.address}{path}", timeout=120) as answer:
            return str(answer.read().decode())

    def page(self) -> Any:
        """The page of metrics, a second old at most: one takes half a second there."""
        if time.monotonic() > self._read_at + 1:
            self._page, self._read_at = self._read_page(self.get("/metrics")), time.monotonic()
        return self._page

    def values(self, family: str, *labels: str) -> list[float]:
        """Of all series of a family with these labels; none while nothing answers."""
        try:
            return list(self.page().values(family, *labels))
        except OSError:
            return []

    def value(self, name: str, family: str, *labels: str) -> float:
        found: list[float] = []

        def is_there() -> bool:
            found[:] = self.values(family, f'name="{name}"', *labels)
            return bool(found)

        self._eventually(is_there, f"{family} of {name}")
        return sum(found)


@pytest.fixture(scope="module")
def v2(v2_machine: Any, read_page: Any, eventually: Callable[..., None]) -> Taffrail:
    """Both parts up and all loads at work."""
    taffrail = Taffrail(v2_machine, read_page, eventually)
    try:
        taffrail.start("engine", "agent")
        image = v2_machine.directory / "image.tar"
        image.write_bytes(busybox_rootfs())
        v2_machine.run(f"until [ -S {SOCKET} ]; do sleep 0.5; done", seconds=300)
        starts = [f"run -d --name {name} {words}" for name, words in LOADS.items()]
        taffrail.docker(
            " && docker ".join(
                [f"import {image} test/b", "network create net", *starts, f"exec -d client sh -c '{SEND}'"]
            )
        )
        eventually(lambda: taffrail.values("container_last_seen", 'name="burner"'), "the agent's page")
    except (AssertionError, OSError):
        if v2_machine.runs():
            print(v2_machine.run("tail -n 40 /run/*.log", seconds=100))
        raise
    return taffrail


@pytest.fixture(scope="module")
def prometheus(v2: Taffrail, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Scrapes the machine from here."""
    # A page takes half a second there.
    scrape = {"scrape_interval": "5s", "scrape_timeout": "5s", "static_configs": [{"targets": [v2.address]}]}
    server = Prometheus(tmp_path_factory.mktemp("prometheus"), v2.address, scrape=scrape)
    yield server
    server.close()


@pytest.mark.usefixtures("prometheus")  # it scrapes while the others go on
def test_half_a_cpu_is_throttled_and_stalls(v2: Taffrail, eventually: Callable[..., None]) -> None:
    families = (
        "container_cpu_cfs_periods_total",
        "container_cpu_usage_seconds_total",
        "container_cpu_cfs_throttled_periods_total",
        "container_pressure_cpu_waiting_seconds_total",
    )

    def counted() -> list[float]:
        page = v2.page()
        return [sum(page.values(family, 'name="burner"')) for family in families]

    first = counted()
    eventually(lambda: counted()[0] >= first[0] + 50, "5 s of periods")
    periods, used, throttled, waited = (now - then for now, then in zip(counted(), first, strict=True))
    # A busy host takes its share, too: only a period that was throttled has used all of its 50 ms.
    assert 0 < throttled <= periods
    assert 0.9 * throttled <= used / 0.05 <= 1.1 * periods
    assert 0 < waited <= 1.1 * periods / 10
    assert v2.value("burner", "container_cpu_limit_cores") == 0.5
    eventually(lambda: v2.value("burner", "container_pressure_cpu_waiting_avg10") > 1, "a stall, in percent")


def test_memory_is_held_and_cached_as_the_kernel_says(v2: Taffrail, eventually: Callable[..., None]) -> None:
    eventually(lambda: v2.value("holder", "container_memory_rss") >= 100 * MIB, "100 MiB held")
    eventually(lambda: v2.value("cacher", "container_memory_cache") >= 100 * MIB, "100 MiB cached")
    assert v2.value("holder", "container_memory_rss") < 104 * MIB
    assert 100 * MIB <= v2.value("holder", "container_memory_working_set_bytes") < 104 * MIB
    assert v2.value("holder", "container_spec_memory_limit_bytes") == 200 * MIB
    assert v2.value("holder", "container_threads_max") == 12
    assert v2.value("cacher", "container_memory_cache") < 104 * MIB
    assert v2.value("cacher", "container_memory_working_set_bytes") < 10 * MIB  # the cache is not in use
    eventually(lambda: v2.value("cacher", "container_threads") == 1, "the end of its writing")
    tree = "/sys/fs/cgroup/taffrail/$(docker inspect -f '{{.Id}}' cacher)"
    told = v2.docker(f"version >/dev/null; cat {tree}/memory.current {tree}/pids.current {tree}/io.stat")
    current, pids, io = told.split(maxsplit=2)
    eventually(
        lambda: v2.value("cacher", "container_memory_usage_bytes") == pytest.approx(int(current), abs=MIB),
        "as much memory as the kernel says",
    )
    assert v2.value("cacher", "container_threads") == int(pids) == 1
    written = int(re.findall(r"wbytes=(\d+)", io)[0])
    assert 100 * MIB <= written < 104 * MIB
    eventually(
        lambda: v2.value("cacher", "container_fs_writes_bytes_total", 'device="/dev/nvme0n1"') == written,
        "what was written",
    )
    eventually(lambda: v2.value("cacher", "container_fs_usage_bytes") >= 100 * MIB, "the layer's size")


def test_ten_megabytes_count_on_both_sides(v2: Taffrail, eventually: Callable[..., None]) -> None:
    def carried(name: str, way: str) -> float:
        return v2.value(name, f"container_network_{way}_bytes_total", 'interface="eth0"')

    eventually(lambda: carried("server", "receive") >= 10 * MIB, "10 MiB received")
    eventually(lambda: carried("client", "transmit") >= 10 * MIB, "10 MiB sent")
    assert carried("client", "transmit") < 15 * MIB  # with headers, and what was sent again
    assert carried("client", "receive") < 1 * MIB  # acknowledgements: the direction is right


def test_both_commands_print_what_the_page_says(v2: Taffrail, eventually: Callable[..., None]) -> None:
    here = ("stats", "--no-stream", "--json", "--host", f"v2=http://{v2.address}")
    commands = {
        "docker stats": lambda: v2.docker("stats --no-stream --format '{{json .}}'"),
        "taffrail stats": lambda: v2.from_here(*here),
    }
    for name, command in commands.items():
        rows: dict[str, Any] = {}

        def half_a_cpu(command: Callable[[], str] = command, rows: dict[str, Any] = rows) -> bool:
            """A second in which this host did not stop the machine."""
            rows.update({row["Name"]: row for row in map(json.loads, command().splitlines())})
            return 35 < float(rows["burner"]["CPUPerc"].rstrip("%")) < 65

        eventually(half_a_cpu, f"half a CPU in {name}")
        held, limit = re.findall(r"([\d.]+)MiB", rows["holder"]["MemUsage"])
        assert float(held) == pytest.approx(101, abs=2)
        assert float(limit) == 200
        assert rows["holder"]["PIDs"] == "2"
        assert rows["cacher"]["BlockIO"] == "0B / 105MB"
        received, sent = rows["server"]["NetIO"].split(" / ")
        assert float(received.removesuffix("MB")) == pytest.approx(13, abs=2.7)
        assert sent.endswith("kB")


def test_a_real_prometheus_has_the_same(prometheus: Prometheus, eventually: Callable[..., None]) -> None:
    scrapes = 'count_over_time(container_last_seen{name="burner"}[1m])'
    eventually(lambda: prometheus.query(f"{scrapes} >= 4"), "some scrapes")
    # How much of its time the machine runs at all is for this host to say.
    used = prometheus.value('rate(container_cpu_usage_seconds_total{name="burner"}[1m])')
    assert 0 < used < 0.8
    assert 100 * MIB <= prometheus.value('container_memory_rss{name="holder"}') < 104 * MIB


def test_a_container_of_a_moment_leaves_its_cpu_time_and_exit_code(
    v2: Taffrail, eventually: Callable[..., None]
) -> None:
    v2.docker(f"run --rm --name short test/b sh -c '{SHORT}'", check=False)
    eventually(lambda: v2.values("container_exit_code", 'name="short"') == [3], "the exit code")
    assert 0.05 < v2.value("short", "container_cpu_usage_seconds_total") < 60
    assert not v2.values("container_memory_usage_bytes", 'name="short"')


def test_kills_for_want_of_memory_are_told_and_outlive_the_agent(
    v2: Taffrail, eventually: Callable[..., None]
) -> None:
    state = "inspect -f '{{.State.OOMKilled}} {{.State.ExitCode}} {{.RestartCount}} {{.State.Status}}' hungry"
    eventually(lambda: v2.docker(state).split() == ["true", "137", "1", "exited"], "its second end")
    events = v2.docker("events --since 24h --until 0s --filter container=hungry --format '{{.Action}}'")
    assert events.split() == ["create", *(["start", "oom", "die"] * 2)]
    eventually(lambda: v2.value("hungry", "container_oom_events_total") == 2, "two kills")
    v2.machine.run("kill -9 $(cat /run/agent.pid)")
    v2.start("agent")
    eventually(lambda: v2.values("container_exit_code", 'name="hungry"') == [137], "another agent's page")
    assert v2.value("hungry", "container_oom_events_total") == 2
    assert v2.value("hungry", "container_oom_kills_total") == 2
    assert v2.value("hungry", "container_restarts_total") == 1


def test_a_connection_is_seen_from_both_ends(v2: Taffrail, eventually: Callable[..., None]) -> None:
    def ends(name: str) -> list[Any]:
        rows = json.loads(v2.get(f"/api/v1/connections?container={name}"))["connections"]
        return [row for row in rows if 9000 in (row["local_port"], row["remote_port"])]

    def received() -> list[int]:
        return [row["bytes_received"] for row in ends("server")]

    eventually(lambda: received() == [10 * MIB], "all of it at the server")
    (client,), (server,) = ends("client"), ends("server")
    assert (client["state"], server["state"]) == ("ESTABLISHED", "ESTABLISHED")
    assert (client["remote_name"], server["remote_name"]) == ("server", "client")
    assert client["bytes_sent"] >= server["bytes_received"] == 10 * MIB


def test_sockets_and_what_the_stack_counted(v2: Taffrail, eventually: Callable[..., None]) -> None:
    def is_told(name: str, family: str, least: int, *labels: str) -> None:
        """Each group of counters has its turn, and says nothing of a container before."""
        eventually(lambda: sum(v2.values(family, f'name="{name}"', *labels)) >= least, f"{family} of {name}")

    established = 'tcp_state="established"'
    is_told("client", "container_network_tcp_usage_total", 1, established)
    is_told("server", "container_network_tcp6_usage_total", 1, established)  # it listens on both
    is_told("client", "container_sockstat_TCP_inuse", 1)
    is_told("client", "container_netstat_Tcp_ActiveOpens", 1)
    is_told("server", "container_netstat_Tcp_PassiveOpens", 1)
    is_told("server", "container_netstat_IpExt_InOctets", 10 * MIB)


def test_huge_pages_and_processes_are_counted(v2: Taffrail, eventually: Callable[..., None]) -> None:
    pages = ("container_hugetlb_usage_bytes", 'name="pager"', 'pagesize="2MB"')
    eventually(lambda: v2.values(*pages) == [4 * MIB], "two huge pages")
    eventually(lambda: v2.values("container_processes", 'name="holder"') == [2], "its processes")
    assert v2.value("holder", "container_file_descriptors") > 0
    (row,) = json.loads(v2.get("/api/v1/processes?container=burner"))["processes"]
    assert row["command"].startswith("sh -c while")

    def thread() -> dict[str, Any]:
        (found,) = json.loads(v2.get(f"/api/v1/threads?pid={row['pid']}"))["threads"]
        return dict(found)

    eventually(lambda: thread()["cpu_seconds"] > 1, "a second of CPU")
