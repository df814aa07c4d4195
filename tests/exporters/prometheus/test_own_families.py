"""Our own families come out as prometheus-client writes the same ones."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from exporters.prometheus.own_families import OwnCounter, OwnFamily, OwnGauge, OwnWriter

VALUES = (
    *(0, 1, 7, 999_999, 1_000_000, 1_000_001, 12_345_678, 2**53, 2**63, -3, True),
    *(0.0, 0.1, 1.5, 1e-9, 123_456.789, 1_234_567.89, 1e21, 1e300, -0.5, math.inf, -math.inf, math.nan),
)
LABELS = (
    ("/docker/ab", "web", "img:1", "gelf"),
    ('a "b"', "c\\d", "e\nf", "ü 漢"),
    ("", "", "", ""),
)


class Fixed(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        return self._families


def theirs(families: list[Metric]) -> str:
    registry = CollectorRegistry()
    registry.register(Fixed(families))
    return generate_latest(registry).decode()


def ours(families: list[OwnFamily], writer: OwnWriter | None = None) -> str:
    return "".join(map((writer or OwnWriter()).write, families))


@pytest.mark.parametrize("value", VALUES)
def test_a_value_is_written_as_theirs(value: float) -> None:
    assert ours([OwnGauge("x", "Text.", value), OwnCounter("y", "Text.", value)]) == theirs(
        [GaugeMetricFamily("x", "Text.", value), CounterMetricFamily("y", "Text.", value)]
    )


def test_labels_and_help_are_escaped_and_ordered_as_theirs() -> None:
    names = ["id", "name", "image", "driver"]
    counter = OwnCounter("lines", "With \\ and\na second line.", labels=names)
    peer = CounterMetricFamily("lines", "With \\ and\na second line.", labels=names)
    for number, labels in enumerate(LABELS):
        counter.add(labels, number)
        peer.add_metric(labels, number)
    writer = OwnWriter()
    for _ in range(2):  # the second time from what was kept
        assert ours([counter], writer) == theirs([peer])


def test_a_family_without_series_has_its_header() -> None:
    assert ours([OwnGauge("x", "Text.", labels=["a"])]) == theirs(
        [GaugeMetricFamily("x", "Text.", labels=["a"])]
    )


def test_what_is_gone_is_forgotten() -> None:
    writer = OwnWriter()
    for number in range(1000):
        family = OwnGauge("x", "Text.", labels=["a"])
        family.add([str(number)], 1)
        assert f'x{{a="{number}"}} 1.0\n' in writer.write(family)
    assert len(writer._lines["x"]) < 50


def test_too_few_labels_are_refused() -> None:
    family = OwnGauge("x", "Text.", labels=["a", "b"])
    family.add(["only one"], 1)
    with pytest.raises(ValueError, match="zip"):
        OwnWriter().write(family)
