from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from collector.container import Container
from collector.discovery.registry import Containers
from exporters.prometheus import service_discovery
from exporters.prometheus.service_discovery import Discovery, add_service_discovery


def container(name: str = "web", network: str = "host", state: str = "running", **labels: str) -> Container:
    return Container(
        id=(name.encode().hex() + "0" * 64)[:64],
        name=name,
        image="nginx:1",
        engine="taffrail",
        state=state,
        pid=os.getpid(),
        network_mode=network,
        labels=labels,
    )


def groups(*found: Container, reach: str = "10.0.0.1") -> list[dict[str, Any]]:
    containers = Containers()
    for one in found:
        containers.update(one)
    return Discovery(containers, Path("/proc"), "alpha").groups(reach, 9480, "http")  # type: ignore[return-value]


def test_the_agent_is_a_target_by_the_name_it_was_asked_by() -> None:
    (own,) = groups(container())
    assert own["targets"] == ["10.0.0.1:9480"]
    assert own["labels"]["__meta_taffrail_kind"] == "agent"
    assert own["labels"]["__meta_taffrail_host"] == "alpha"
    assert groups(reach="fd00::1")[0]["targets"] == ["[fd00::1]:9480"]


def test_a_container_that_asks_for_it_is_one() -> None:
    labels = {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": "8080",
        "prometheus.io/path": "stats",
        "com.example.team": "shop",
    }
    _, found = groups(container(**labels))
    assert found["targets"] == ["10.0.0.1:8080"]
    expected = {
        "__scheme__": "http",
        "__metrics_path__": "/stats",
        "__meta_taffrail_kind": "container",
        "__meta_taffrail_host": "alpha",
        "__meta_taffrail_container_name": "web",
        "__meta_taffrail_container_image": "nginx:1",
        "__meta_taffrail_container_engine": "taffrail",
        "__meta_taffrail_container_label_com_example_team": "shop",
        "__meta_taffrail_container_label_prometheus_io_port": "8080",
    }
    assert expected.items() <= found["labels"].items()


def test_our_labels_win_and_an_address_needs_no_port() -> None:
    ours = {"taffrail.scrape": "true", "taffrail.address": "edge:1", "taffrail.scheme": "https"}
    _, found = groups(container(**ours, **{"prometheus.io/scrape": "false", "prometheus.io/port": "2"}))
    assert found["targets"] == ["edge:1"]
    assert found["labels"]["__scheme__"] == "https"
    assert found["labels"]["__metrics_path__"] == "/metrics"


def test_its_own_address_where_it_has_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_discovery, "local_addresses", lambda proc, pid: ("fd00::2",))
    ours = {"taffrail.scrape": "true", "taffrail.port": "80"}
    assert groups(container(network="bridge", **ours))[1]["targets"] == ["[fd00::2]:80"]


def test_who_does_not_run_or_does_not_ask_is_none() -> None:
    ours = {"taffrail.scrape": "true", "taffrail.port": "80"}
    assert (
        len(groups(container(state="exited", **ours), container("b", **{**ours, "taffrail.scrape": "no"})))
        == 1
    )


@pytest.mark.parametrize(
    ("network", "labels", "message"),
    [
        ("host", {}, "no label with its port"),
        ("host", {"taffrail.port": "http"}, "label 'http' as its port"),
        ("host", {"taffrail.port": "70000"}, "expected taffrail.port or prometheus.io/port, 1 to 65535"),
        ("none", {"taffrail.port": "80"}, "no address of its network 'none'"),
    ],
)
def test_who_asks_and_cannot_be_one_is_told_of_once(
    network: str,
    labels: dict[str, str],
    message: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(service_discovery, "local_addresses", lambda proc, pid: ())
    containers = Containers()
    containers.update(container(network=network, **{"taffrail.scrape": "true", **labels}))
    discovery = Discovery(containers, Path("/proc"), "alpha")
    for _ in range(2):
        assert len(discovery.groups("x", 1, "http")) == 1
    assert message in caplog.text
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("host", "target"),
    [("alpha:9480", "alpha:9480"), ("alpha", "alpha"), ("[::1]:9480", "[::1]:9480"), ("[::1]", "[::1]")],
)
def test_over_http(host: str, target: str) -> None:
    async def ask() -> tuple[str, Any]:
        app = web.Application()
        add_service_discovery(app, Discovery(Containers(), Path("/proc"), "alpha"))
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            url = f"http://127.0.0.1:{runner.addresses[0][1]}/api/v1/sd"
            async with aiohttp.ClientSession() as client, client.get(url, headers={"Host": host}) as answer:
                return answer.content_type, await answer.json()
        finally:
            await runner.cleanup()

    kind, body = asyncio.run(ask())
    assert kind == "application/json"
    assert body[0]["targets"] == [target]
