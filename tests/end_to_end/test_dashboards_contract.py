"""Every selector of the dashboards and rules people already have finds a series on a real agent's page."""

from __future__ import annotations

import contextlib
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_server import Prometheus

CONSUMERS = tomllib.loads(Path(__file__).with_name("dashboard_selectors.toml").read_text())["consumer"]
KUBERNETES = "container=name,pod=label:com.docker.compose.project,namespace=label:com.docker.stack.namespace"
SHOP = (
    "-l", "com.docker.compose.project=shop", "-l", "com.docker.stack.namespace=shop",
    "-l", "com.docker.compose.service=web", "-l", "com.docker.swarm.service.name=shop_web",
)  # fmt: skip
WORK = "while :; do dd if=/dev/zero of=/x bs=64k count=4 conv=fsync 2>/dev/null; sleep 0.1; done"

_SELECTOR = re.compile(r"(\w+)(?:\{(.*)\})?")
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
_MATCHES: dict[str, Callable[[str, str], bool]] = {
    "=": lambda value, wanted: value == wanted,
    "!=": lambda value, wanted: value != wanted,
    "=~": lambda value, wanted: re.fullmatch(wanted, value) is not None,
    "!~": lambda value, wanted: re.fullmatch(wanted, value) is None,
}


def select(page: dict[str, list[dict[str, str]]], selector: str) -> list[dict[str, str]]:
    """The series of the page a PromQL selector matches; a label that is not there is an empty one."""
    parsed = _SELECTOR.fullmatch(selector)
    assert parsed is not None, selector
    matchers = _MATCHER.findall(parsed[2] or "")
    assert len(matchers) == (parsed[2] or "").count('"') // 2, selector
    return [
        labels
        for labels in page.get(parsed[1], [])
        if all(_MATCHES[how](labels.get(label, ""), wanted) for label, how, wanted in matchers)
    ]


@pytest.fixture(scope="module", params=["plain", "aliases"])
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A Taffrail with what the dashboards are about, and a Prometheus that scrapes it as ``cadvisor``."""
    make: Any = request.getfixturevalue("make_taffrail")
    running = make()
    running.aliases = request.param == "aliases"
    if running.aliases:
        running.settings.append(f"prometheus.label_aliases={KUBERNETES}")
    running.up()
    image = request.getfixturevalue("image")
    running.import_image(image)

    def run(name: str, *words: str) -> None:
        running.docker("run", "-d", "--name", name, *words)

    limits = ("--cpus", "0.2", "-m", "64m", "--memory-reservation", "32m")
    run("web", *limits, *SHOP, image, "sh", "-c", WORK)
    sick = ("--health-cmd", "false", "--health-interval", "1s", "--health-retries", "1")
    run("jenkins", *sick, image, "sleep", "9999")
    run("nginx", "-l", "org.label-schema.group=monitoring", image, "sleep", "9999")
    running.prometheus = Prometheus(
        tmp_path_factory.mktemp("prometheus"), running.address("http"), job="cadvisor"
    )
    yield running
    running.prometheus.close()


def consumers(aliases: bool) -> list[dict[str, Any]]:
    return [consumer for consumer in CONSUMERS if aliases or not consumer.get("aliases")]


def test_every_selector_finds_a_series(host: Any, eventually: Callable[..., None]) -> None:
    def page() -> dict[str, list[dict[str, str]]]:
        series: dict[str, list[dict[str, str]]] = {}
        for family in text_string_to_metric_families(host.get("/metrics")):
            for sample in family.samples:
                labels = {**sample.labels, "job": "cadvisor", "instance": "host"}
                series.setdefault(sample.name, []).append(labels)
        return series

    def missing() -> list[str]:
        now = page()
        return [
            f"{consumer['name']}: {selector}"
            for consumer in consumers(host.aliases)
            for selector in consumer["selectors"]
            if not select(now, selector)
        ]

    with contextlib.suppress(AssertionError):
        eventually(lambda: not missing(), "every selector", seconds=120)
    assert missing() == []


def test_every_query_answers_in_prometheus(host: Any, eventually: Callable[..., None]) -> None:
    asked = [
        (expr, label)
        for consumer in consumers(host.aliases)
        for label, queries in {"": consumer.get("queries", []), **consumer["by"]}.items()
        for expr in queries
    ]

    def silent() -> list[str]:
        return [
            f"{expr} by {label}"
            for expr, label in asked
            if not any(not label or series["metric"].get(label) for series in host.prometheus.query(expr))
        ]

    with contextlib.suppress(AssertionError):
        eventually(lambda: not silent(), "every query", seconds=120)
    assert silent() == []


def test_without_aliases_kubernetes_rules_find_nothing_and_with_them_they_do(host: Any) -> None:
    """The reason for the option, and that it is the option that does it."""
    found = host.metrics().values("container_cpu_usage_seconds_total", 'container="web"')
    assert bool(found) == host.aliases
