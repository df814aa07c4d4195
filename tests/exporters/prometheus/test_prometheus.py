"""A real Prometheus scrapes our page; PromQL answers for loads that are known."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from held_port import hold_port

from collector.cgroup.layout import Layout
from collector.container import Container
from collector.discovery.registry import Containers
from collector.roots import Roots
from collector.sampler import Sampler
from exporters.prometheus.exposition import Exposition
from exporters.prometheus.http import routes
from exporters.prometheus.labels import LabelRules
from exporters.prometheus.self_metrics import SelfMetrics

#: Half of one CPU: works 50 ms of its own CPU time, then sleeps as long as it took, and tells its CPU time.
BURN = """
import sys, time
held = b"x" * (int(sys.argv[2]) << 20)
print("ready", flush=True)
share = float(sys.argv[3])
while True:
    started = time.monotonic()
    until = time.process_time() + 0.05
    while share and time.process_time() < until: pass
    busy = time.monotonic() - started
    time.sleep(busy / share - busy if share else 1)
"""


class Load:
    """A process with a known memory and CPU share in a cgroup of its own."""

    def __init__(self, name: str, image: str, env: str, mebibytes: int, share: float) -> None:
        layout = Layout.read(Roots())
        self.share = share
        self.id = uuid.uuid4().hex * 2
        self.directories = set()
        for controller in ("cpu", "cpuacct", "memory", "pids", "blkio"):
            directory = layout.directory(controller, f"/{self.id}") or layout.directory("", f"/{self.id}")
            assert directory is not None
            directory.mkdir(exist_ok=True)
            self.directories.add(directory)
        files = ",".join(str(directory / "cgroup.procs") for directory in self.directories)
        join = "import sys\nfor p in sys.argv[1].split(','): open(p, 'w').write('0')\n"
        self.process = subprocess.Popen(
            [sys.executable, "-S", "-c", join + BURN, files, str(mebibytes), str(share)],
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n"
        self.container = Container(
            id=self.id,
            name=name,
            image=image,
            engine="docker",
            pid=self.process.pid,
            cgroup=f"/{self.id}",
            network_mode="none",
            labels={"env": env},
        )

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        for directory in self.directories:
            end = time.monotonic() + 60
            while True:
                try:
                    directory.rmdir()
                    break
                except OSError:
                    assert time.monotonic() < end
                    time.sleep(0.01)


@contextmanager
def served(app: web.Application) -> Iterator[int]:
    """Serve an application on a loopback port, in a thread."""
    loop = asyncio.new_event_loop()
    runner = web.AppRunner(app)
    loop.run_until_complete(runner.setup())
    loop.run_until_complete(web.TCPSite(runner, "127.0.0.1", 0).start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield runner.addresses[0][1]
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(100)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


class Prometheus:
    """A Prometheus of our own that scrapes one port every half second."""

    def __init__(self, target: int, directory: Path) -> None:
        self._held = hold_port()
        self.port: int = self._held.getsockname()[1]
        config = directory / "prometheus.yml"
        config.write_text(
            "global: {scrape_interval: 500ms, scrape_timeout: 500ms}\n"
            f"scrape_configs: [{{job_name: cadvisor, static_configs: [{{targets: ['127.0.0.1:{target}']}}]}}]\n"
        )
        self.process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={config}",
                f"--storage.tsdb.path={directory / 'data'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def query(self, expression: str) -> list[dict[str, Any]]:
        """An instant query's result; empty while the server is not up."""
        url = f"http://127.0.0.1:{self.port}/api/v1/query?" + urllib.parse.urlencode({"query": expression})
        try:
            with urllib.request.urlopen(url, timeout=60) as answer:
                result: list[dict[str, Any]] = json.load(answer)["data"]["result"]
                return result
        except ConnectionError:
            return []
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 503:  # it listens before it is ready
                    return []
                raise
        except urllib.error.URLError as error:
            if isinstance(error.reason, ConnectionError):
                return []
            raise

    def value(self, expression: str) -> float:
        """The one value of an expression, waited for."""
        end = time.monotonic() + 120
        while len(result := self.query(expression)) != 1:
            assert self.process.poll() is None, "prometheus ended"
            assert time.monotonic() < end, f"{expression}: {result}"
            time.sleep(0.1)
        return float(result[0]["value"][1])

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(100)
        self._held.close()


@pytest.fixture(scope="module")
def stage() -> Iterator[tuple[Prometheus, dict[str, Load], Containers]]:
    """Three containers with known loads, our page, and a Prometheus with some scrapes of it."""
    loads = {
        "webapp1": Load("webapp1", "mycom/webapp:1.2", "test", 32, 0.0),
        "webapp2": Load("webapp2", "mycom/webapp:1.3", "prod", 64, 0.5),
        "webapp3": Load("webapp3", "mycom/webapp:1.3", "prod", 16, 0.0),
    }
    containers = Containers()
    sampler = Sampler(containers)
    for load in loads.values():
        containers.update(load.container)
    app = web.Application()
    routes(app, Exposition(containers, sampler, LabelRules(("env",))), sampler, SelfMetrics(), max_age=0.1)
    directory = Path(tempfile.mkdtemp(dir="/tmp", prefix="tfp"))
    with served(app) as port:
        prometheus = Prometheus(port, directory)
        try:
            prometheus.value('count_over_time(up{job="cadvisor"}[1m]) >= 10')
            yield prometheus, loads, containers
        finally:
            prometheus.end()
            sampler.close()
            for load in loads.values():
                load.end()
            shutil.rmtree(directory)


Stage = tuple[Prometheus, dict[str, Load], Containers]
MIB = 1 << 20


def test_the_target_is_up_and_the_page_is_parsed_whole(stage: Stage) -> None:
    assert stage[0].value('up{job="cadvisor"} == 1') == 1
    assert stage[0].value("scrape_samples_scraped == scrape_samples_post_metric_relabeling > 150") > 150
    assert stage[0].value('count(container_last_seen{image!=""})') == 3


def test_memory_by_name_image_and_label(stage: Stage) -> None:
    prometheus, _, _ = stage
    one = prometheus.value('avg(container_memory_usage_bytes{name="webapp2"})')
    assert 64 * MIB < one < 80 * MIB
    both = prometheus.value('sum(container_memory_usage_bytes{image="mycom/webapp:1.3"})')
    assert 80 * MIB < both < 112 * MIB
    prometheus.value("count(sum(container_memory_usage_bytes) by (container_label_env)) == 3")
    by_env = prometheus.query(
        "sum(last_over_time(container_memory_usage_bytes[1m])) by (container_label_env)"
    )
    values = {row["metric"].get("container_label_env"): float(row["value"][1]) for row in by_env}
    assert 32 * MIB < values["test"] < 48 * MIB
    assert values["prod"] == pytest.approx(both, rel=0.05)
    assert values[None] > values["prod"]  # the host itself has no such label


def own_cpu_seconds(process: subprocess.Popen[bytes]) -> float:
    """What the kernel says the process used, from the scheduler's account of it (nanoseconds)."""
    return int(Path(f"/proc/{process.pid}/schedstat").read_text().split()[0]) / 1e9


def scraped(prometheus: Prometheus, load: Load) -> tuple[float, float, float]:
    """A load's CPU time as Prometheus has it, between what the process itself had used before and after."""
    counter = f'container_cpu_usage_seconds_total{{name="{load.container.name}"}}'
    before = own_cpu_seconds(load.process)
    seen = prometheus.value(f"count_over_time({counter}[1h])")
    # Four scrapes are two seconds: a page may be one that was made just before.
    prometheus.value(f"count_over_time({counter}[1h]) >= {seen + 4}")
    value = prometheus.value(counter)
    return before, value, own_cpu_seconds(load.process)


@pytest.mark.parametrize("name", ["webapp1", "webapp2"])
def test_cpu_time_is_what_the_process_itself_used(stage: Stage, name: str) -> None:
    """However much the machine lets it have: of an idle one next to nothing, of a busy one what it got."""
    prometheus, loads, _ = stage
    before, first, after = scraped(prometheus, loads[name])
    deadline = time.monotonic() + 200
    # So much that it would show if half or twice of it were told.
    while loads[name].share and own_cpu_seconds(loads[name].process) < after + 2:
        assert time.monotonic() < deadline, "the machine lets it have nothing"
        time.sleep(0.1)
    again, last, end = scraped(prometheus, loads[name])
    slack = 0.01
    assert again - after - slack <= last - first <= end - before + slack
    rate = prometheus.value(f'rate(container_cpu_usage_seconds_total{{name="{name}"}}[1m])')
    assert rate > 0.001 if loads[name].share else rate < 0.02


def test_the_host_and_the_machine(stage: Stage) -> None:
    prometheus, _, _ = stage
    total = prometheus.value("machine_memory_bytes")
    assert prometheus.value('container_spec_memory_limit_bytes{id="/"}') == total
    assert 0 < prometheus.value('container_memory_working_set_bytes{id="/"}') < total


def test_a_container_that_ends_is_seen_to_end(stage: Stage) -> None:
    prometheus, loads, containers = stage
    ended = replace(loads["webapp3"].container, state="exited", pid=0, exit_code=137)
    before = prometheus.value('container_cpu_usage_seconds_total{name="webapp3"}')
    containers.update(ended)
    assert prometheus.value('container_exit_code{name="webapp3"}') == 137
    assert prometheus.query('container_memory_usage_bytes{name="webapp3"}') == []  # stale at once
    assert prometheus.query('container_state{name="webapp3",state="running"}') == []
    assert prometheus.value('container_cpu_usage_seconds_total{name="webapp3"}') >= before
    assert prometheus.value('time() - container_last_seen{name="webapp3"} > 0.5') < 60
