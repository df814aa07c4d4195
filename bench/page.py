"""The whole page of ``/metrics`` as a Prometheus gets it: CPU by part, and of a scrape over HTTP, plain and gzip.

Made containers (a cgroup, a network namespace and a veth each, a log of ours by turns json-file and gelf), slow groups
read once, everything in this process but the one who scrapes, who keeps the connection as Prometheus does. No
container works and no pass is made meanwhile, as the agent makes it once a second anyway; with ``--busy`` one is made
before every page and not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from aiohttp import web
from isal import igzip

from bench.cgroups import made_containers, open_many_files
from bench.table import Row, print_table
from collector.container import Container, LogSource
from collector.discovery.registry import Containers
from collector.host.collection import HostGroups
from collector.lanes.board import Board
from collector.lanes.groups import choose, make
from collector.lanes.lane import Lane
from collector.roots import Roots
from collector.sampler import Sampler
from exporters.prometheus.exposition import Exposition
from exporters.prometheus.http import routes
from exporters.prometheus.lane_metrics import lane_metrics
from exporters.prometheus.node_page import NodePage, host_metrics
from exporters.prometheus.page import Page
from exporters.prometheus.self_metrics import SelfMetrics, sampling_metrics
from logdrivers.block import Block, Encoding, Stream
from logdrivers.delivery import STATE_NAME, Delivery
from logdrivers.driver import Info
from logdrivers.journal import Mark
from logdrivers.registry import get
from taffrail.agent import SWITCH_SECONDS
from taffrail.log_metrics import delivery_metrics, gap_metrics

__all__ = ["main"]

_PAGES = 20
#: Pages that a scraper gets at least; what they and the scraper's start cost is taken off.
_FEW = 2
_SCRAPER = """
import http.client, sys
port, encoding, count = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
for _ in range(count):
    connection.request("GET", "/metrics", headers={"Accept-Encoding": encoding})
    answer = connection.getresponse()
    assert answer.status == 200, answer.status
    answer.read()
"""


class Resting(Sampler):
    """Makes no pass for a page."""

    def sample_if_older(self, seconds: float = 1.0) -> None:
        """What there is is new enough."""


def with_log(container: Container, driver: str, directory: Path) -> Container:
    """The container with a log of three lines; those of a driver with a sink wait."""
    directory.mkdir()
    options = {"gelf-address": "tcp://127.0.0.1:1"} if driver == "gelf" else {}
    info = Info(container.id, f"/{container.name}", "", container.image, (), 0, directory, options=options)
    journal = get(driver).journal(info)
    journal.append(Block(b"1\n2\n3\n", Encoding.LINES, Stream.STDOUT, 1, 1, 3), Mark(6, 0))
    journal.close()
    reader, sink = get(driver).reader(info), get(driver).sink(info)
    if reader is not None and sink is not None:
        Delivery(reader, sink, directory / STATE_NAME, "b").stop()
    log = LogSource(driver, directory=str(directory), options=options)
    return replace(container, engine="taffrail", log=log)


@contextlib.contextmanager
def agent_of(count: int) -> Iterator[tuple[Exposition, Sampler, NodePage, SelfMetrics]]:
    """Everything that is on the page of an agent with this many containers."""
    with (
        made_containers(count, network=True) as made,
        tempfile.TemporaryDirectory(dir="/tmp", prefix="tfb") as logs,
        contextlib.ExitStack() as stack,
    ):
        registry, board = Containers(), Board()
        sampler = Resting(registry)
        stack.callback(sampler.close)
        for number, container in enumerate(made):
            driver = ("json-file", "gelf")[number % 2]
            registry.update(with_log(container, driver, Path(logs) / container.id))
        sampler.sample_all()
        groups = [group for group in make(Roots(), choose(())) if group.name != "disk"]
        for group in groups:
            for target in sampler.targets().values():
                board.put(target.container.id, group.name, group.read(target))
        exposition = Exposition(registry, sampler, board=board)
        host = HostGroups()
        node, own = NodePage(host, "bench"), SelfMetrics()
        own.register(host_metrics(host, node))
        own.register(sampling_metrics(sampler, exposition))
        own.register(lane_metrics([Lane("counters", sampler.targets, board, groups)]))
        own.register(delivery_metrics(registry, Path(logs) / "plugin"))
        own.register(gap_metrics(registry))
        time.sleep(1.1)  # until the logs' directories are no news any more
        yield exposition, sampler, node, own


def cost(work: Callable[[], object], before: Callable[[], object]) -> float:
    """Seconds of CPU of one of them, the median of some."""
    times = []
    work()
    for _ in range(_PAGES):
        before()
        started = time.thread_time()
        work()
        times.append(time.thread_time() - started)
    return statistics.median(times)


async def scrape(
    exposition: Exposition, sampler: Sampler, node: NodePage, own: SelfMetrics, encoding: str
) -> float:
    """Seconds of CPU of this process a scrape, by a client in a process of its own."""
    app = web.Application()
    routes(app, exposition, sampler, own, max_age=0, node=node)  # no page is had by two
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = str(runner.addresses[0][1])
        spent = []
        for number in (_FEW, _FEW + _PAGES):
            started = time.process_time()
            words = (sys.executable, "-c", _SCRAPER, port, encoding, str(number))
            client = await asyncio.create_subprocess_exec(*words)
            if await client.wait():
                raise RuntimeError(f"the scraper of port {port} ended with {client.returncode}")
            spent.append(time.process_time() - started)
        return (spent[1] - spent[0]) / _PAGES
    finally:
        await runner.cleanup()


async def longest_wait(page: Page) -> float:
    """Seconds that the event loop kept a task that wakes every millisecond waiting at most, while a page was made."""
    waits: list[float] = []
    made = asyncio.Event()

    async def wake() -> None:
        while not made.is_set():
            due = time.perf_counter() + 0.001
            await asyncio.sleep(0.001)
            waits.append(time.perf_counter() - due)

    longest = []
    for _ in range(_PAGES):
        made.clear()
        waits.clear()
        task = asyncio.create_task(wake())
        await asyncio.to_thread(page.gzip)
        made.set()
        await task
        longest.append(max(waits))
    return statistics.median(longest)


def measure(count: int, busy: bool) -> list[Row]:
    """Rows for this many containers."""
    with agent_of(count) as (exposition, sampler, node, own):
        before = sampler.sample_all if busy else int
        parts = {
            "containers": (cost(exposition.render, before), exposition.series),
            "host": (cost(node.render, before), node.series),
            "our own": (cost(own.text, before), series_of(own.text())),
        }
        body = exposition.render() + node.render() + own.text()
        packing = cost(lambda: igzip.compress(body, 1), int)
        plain = asyncio.run(scrape(exposition, sampler, node, own, "identity"))
        packed = asyncio.run(scrape(exposition, sampler, node, own, "gzip"))
        waited = asyncio.run(longest_wait(Page(exposition, sampler, own, node=node)))
        whole = series_of(body)
        rows = []
        for name, (seconds, series) in parts.items():
            rows += [
                Row(f"{count} containers: {name}, {series} series", "ms", seconds * 1e3),
                Row("a series", "µs", seconds / series * 1e6),
            ]
        budget = 0.7
        rows += [
            Row(f"{count} containers: gzip of {len(body) / 1e6:.1f} MB", "ms", packing * 1e3),
            Row(f"{count} containers: a scrape of {whole} series", "ms", plain * 1e3),
            Row("a series", "µs", plain / whole * 1e6),
            Row(f"{count} containers: the same, gzip", "ms", packed * 1e3),
            Row("a series", "µs", packed / whole * 1e6, budget=budget),
            Row("the event loop waits for it at the longest, wall clock", "ms", waited * 1e3),
        ]
        return rows


def series_of(page: bytes) -> int:
    """How many lines of it are samples."""
    return sum(1 for line in page.splitlines() if not line.startswith(b"#"))


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--containers", type=int, nargs="+", default=[40, 100, 1000])
    parser.add_argument("--busy", action="store_true", help="make a pass before every page")
    options = parser.parse_args(argv)
    if os.geteuid() != 0:
        parser.error("making cgroups needs root")
    open_many_files()
    sys.setswitchinterval(SWITCH_SECONDS)
    print_table([row for count in options.containers for row in measure(count, options.busy)])


if __name__ == "__main__":
    main()
