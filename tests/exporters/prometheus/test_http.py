from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from collector.discovery.registry import Containers
from collector.host.collection import HostGroups
from collector.sampler import Sampler
from exporters.prometheus.exposition import Exposition
from exporters.prometheus.http import page_of, routes
from exporters.prometheus.node_page import NodePage, host_metrics
from exporters.prometheus.own_families import OwnCounter, OwnFamily
from exporters.prometheus.self_metrics import SelfMetrics, discovery_metrics, sampling_metrics


@pytest.fixture
def sampler() -> Iterator[Sampler]:
    sampler = Sampler(Containers())
    yield sampler
    sampler.close()


def get(
    sampler: Sampler, own: SelfMetrics, query: str = "", node: NodePage | None = None, **headers: str
) -> tuple[Any, bytes]:
    """One scrape over a real socket; the answer's headers, and its body as it was sent."""
    status, answered, body = ask(sampler, own, query, node, **headers)
    assert status == 200
    return answered, body


def ask(
    sampler: Sampler, own: SelfMetrics, query: str = "", node: NodePage | None = None, **headers: str
) -> tuple[int, Any, bytes]:
    """The same, with whatever status it has."""

    async def scrape() -> tuple[int, Any, bytes]:
        app = web.Application()
        routes(app, Exposition(Containers(), sampler), sampler, own, node=node)
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            port = runner.addresses[0][1]
            async with aiohttp.ClientSession(
                auto_decompress=False, skip_auto_headers=["Accept-Encoding"]
            ) as client:
                async with client.get(f"http://127.0.0.1:{port}/metrics{query}", headers=headers) as answer:
                    return answer.status, answer.headers, await answer.read()
        finally:
            await runner.cleanup()

    return asyncio.run(scrape())


def names(body: bytes) -> set[str]:
    return {family.name for family in text_string_to_metric_families(body.decode())}


def test_container_series_and_our_own_on_one_page(sampler: Sampler) -> None:
    own = SelfMetrics()
    own.register(sampling_metrics(sampler, Exposition(Containers(), sampler)))
    own.register(discovery_metrics(()))
    headers, body = get(sampler, own)
    assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert {"container_last_seen", "machine_cpu_cores", "process_cpu_seconds"} <= names(body)
    assert b"taffrail_sampling_passes_total 1.0" in body


@pytest.mark.parametrize(
    ("accept", "compressed"),
    [
        ("gzip", True),
        ("deflate, gzip;q=0.5", True),
        ("*", True),
        ("gzip;q=0", False),
        ("identity", False),
        ("", False),
    ],
)
def test_gzip_where_it_is_accepted(sampler: Sampler, accept: str, compressed: bool) -> None:
    headers, body = get(sampler, SelfMetrics(), **{"Accept-Encoding": accept})
    assert (headers.get("Content-Encoding") == "gzip") is compressed
    text = gzip.decompress(body) if compressed else body
    assert "container_last_seen" in names(text)


def test_a_filter_of_names(sampler: Sampler) -> None:
    _, body = get(sampler, SelfMetrics(), "?name=machine_cpu_cores&name[]=container_last_seen")
    assert names(body) == {"machine_cpu_cores", "container_last_seen"}


def test_a_filter_of_ids(sampler: Sampler) -> None:
    _, body = get(sampler, SelfMetrics(), "?id=/&name=container_last_seen&name=container_memory_usage_bytes")
    assert {line.partition("{")[0] for line in body.decode().splitlines() if line[0] != "#"} == {
        "container_last_seen",
        "container_memory_usage_bytes",
    }
    _, whole = get(sampler, SelfMetrics(), "?id=/")
    assert "container_cpu_usage_seconds" in names(whole)
    assert not names(whole) & {"machine_cpu_cores", "process_cpu_seconds"}
    assert get(sampler, SelfMetrics(), "?id=nobody")[1] == b""


def test_a_scrape_makes_a_pass_unless_one_was_made_just_now(sampler: Sampler) -> None:
    get(sampler, SelfMetrics())
    assert sampler.passes == 1
    while True:
        passes = sampler.passes + 1
        sampler.sample_all(time.time_ns() + 9 * 10**8)  # just now for two seconds from now on
        before = time.monotonic()
        get(sampler, SelfMetrics())
        if time.monotonic() - before < 1.8:  # else it may be that this machine is too busy
            break
    assert sampler.passes == passes


def test_a_part_that_cannot_tell_its_metrics_costs_the_others_nothing(
    sampler: Sampler, caplog: pytest.LogCaptureFixture
) -> None:
    own = SelfMetrics()

    def broken() -> list[OwnFamily]:
        raise RuntimeError("no")

    own.register(broken, "spool")
    own.register(lambda: [OwnCounter("taffrail_good", "Good.", 1)])
    own.text()
    text = own.text()
    assert b"taffrail_good_total 1.0" in text
    assert b'taffrail_self_metrics_failures_total{part="spool"}' in text
    assert "cannot collect the metrics of spool" in caplog.text


def test_the_hosts_series_are_on_the_page_and_can_be_asked_for_alone(sampler: Sampler) -> None:
    groups = HostGroups(groups=["loadavg", "uname"])
    node = NodePage(groups, "1")
    own = SelfMetrics()
    own.register(host_metrics(groups, node))
    _, body = get(sampler, own, node=node)
    assert {"machine_cpu_cores", "node_load1", "node_uname_info", "taffrail_host_series"} <= names(body)
    _, body = get(sampler, own, "?name=node_load1&name=machine_cpu_cores", node=node)
    assert names(body) == {"machine_cpu_cores", "node_load1"}
    sent = page_of(Exposition(Containers(), sampler), sampler, own, node=node)()
    assert {"container_last_seen", "node_load1", "taffrail_host_series"} <= names(sent)


def test_groups_of_host_counters_can_be_asked_for_as_node_exporter_has_it(sampler: Sampler) -> None:
    node = NodePage(HostGroups(groups=["loadavg", "uname", "stat"]))
    _, body = get(sampler, SelfMetrics(), "?collect[]=loadavg&collect[]=uname", node=node)
    assert names(body) == {
        *("node_load1", "node_load5", "node_load15", "node_uname_info", "node_exporter_build_info"),
        *("node_scrape_collector_duration_seconds", "node_scrape_collector_success"),
    }
    assert sampler.passes == 0  # no container was asked for
    _, body = get(sampler, SelfMetrics(), "?collect[]=loadavg&name=node_load5", node=node)
    assert names(body) == {"node_load5"}
    status, _, body = ask(sampler, SelfMetrics(), "?collect[]=loadagv", node=node)
    assert (status, body) == (
        400,
        b"collect[]=loadagv: no such group of host counters; there are loadavg, stat, uname\n",
    )
    assert ask(sampler, SelfMetrics(), "?collect[]=uname")[0] == 400  # the host's counters are off
    node.render()
    whole = node.series
    node.render(["node_load1"])
    assert node.series == whole > 10  # of a whole page
