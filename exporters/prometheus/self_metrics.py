"""Our own metrics: what the agent costs and what it lost, by prometheus-client in a registry of its own.

Parts of the product register a callable that yields metric families; it is called at each scrape, so
nobody has to keep a metric object in step. Container series are not here (``exposition.py``).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from collector.discovery.cgroups import CgroupDiscovery
from collector.discovery.engine_api import EngineDiscovery
from collector.sampler import Sampler
from exporters.prometheus.exposition import Exposition

__all__ = ["SelfMetrics", "Source", "cgroup_metrics", "discovery_metrics", "sampling_metrics"]

logger = logging.getLogger(__name__)

#: Called at each scrape.
Source = Callable[[], Iterable[Metric]]


class SelfMetrics:
    """The registry, the process's own series in it already."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._failures: dict[str, int] = {}
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self._registry.register(_Sourced("self_metrics", self._own, self._failures))

    def register(self, source: Source, name: str = "") -> None:
        """Add families; ``name`` says whose they are when the source fails. Names must not repeat."""
        name = name or getattr(source, "__qualname__", repr(source))
        self._registry.register(_Sourced(name, source, self._failures))

    def text(self) -> bytes:
        """All of them in text format 0.0.4."""
        return generate_latest(self._registry)

    def _own(self) -> Iterator[Metric]:
        failures = CounterMetricFamily(
            "taffrail_self_metrics_failures",
            "Scrapes in which a part could not tell its metrics.",
            labels=["part"],
        )
        for part, count in self._failures.items():
            failures.add_metric([part], count)
        yield failures


class _Sourced(Collector):
    """One source as the registry wants it; its failure is counted and costs the page nothing else."""

    def __init__(self, name: str, source: Source, failures: dict[str, int]) -> None:
        self._name = name
        self._source = source
        self._failures = failures

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        try:
            return list(self._source())
        except Exception:  # whoever registered it may raise anything
            self._failures[self._name] = self._failures.get(self._name, 0) + 1
            logger.exception("cannot collect the metrics of %s", self._name)
            return ()


def sampling_metrics(sampler: Sampler, exposition: Exposition) -> Source:
    """What sampling and scraping cost."""

    def source() -> Iterator[Metric]:
        yield CounterMetricFamily(
            "taffrail_sampling_passes", "Sampling passes over all containers.", value=sampler.passes
        )
        yield CounterMetricFamily(
            "taffrail_sampling_cpu_seconds", "CPU time of sampling passes.", value=sampler.pass_seconds
        )
        failures = CounterMetricFamily(
            "taffrail_sampling_failures", "Counters that could not be read.", labels=["controller"]
        )
        for controller, count in tuple(sampler.failures.items()):
            failures.add_metric([controller], count)
        yield failures
        yield GaugeMetricFamily(
            "taffrail_exposition_series", "Container and host series on the page.", value=exposition.series
        )
        yield CounterMetricFamily(
            "taffrail_exposition_dropped_series",
            "Series left off the page, over the limit, summed over scrapes.",
            value=exposition.dropped_series,
        )

    return source


def discovery_metrics(discoveries: Iterable[EngineDiscovery]) -> Source:
    """How well each engine is followed."""
    known = tuple(discoveries)

    def source() -> Iterator[Metric]:
        up = GaugeMetricFamily(
            "taffrail_engine_connected",
            "1 while the engine's events are followed.",
            labels=["socket", "engine"],
        )
        events = CounterMetricFamily(
            "taffrail_engine_events", "Events heard from the engine.", labels=["socket", "engine"]
        )
        failures = CounterMetricFamily(
            "taffrail_engine_failures", "Failures by what was tried.", labels=["socket", "engine", "what"]
        )
        for discovery in known:
            if discovery.absent:
                continue
            labels = [str(discovery.socket), discovery.engine]
            up.add_metric(labels, int(discovery.connected))
            events.add_metric(labels, discovery.events)
            for what, count in discovery.failures.items():
                failures.add_metric([*labels, what], count)
        yield from (up, events, failures)

    return source


def cgroup_metrics(discovery: CgroupDiscovery) -> Source:
    """How well the cgroup tree is followed."""

    def source() -> Iterator[Metric]:
        yield GaugeMetricFamily("taffrail_cgroups", "Cgroups that are followed.", value=discovery.known)
        yield GaugeMetricFamily(
            "taffrail_cgroup_watches", "Cgroup directories the kernel tells of.", value=discovery.watches
        )
        yield GaugeMetricFamily(
            "taffrail_cgroups_unwatched",
            "Cgroups too many or too deep to be watched inside.",
            value=discovery.unwatched,
        )
        yield CounterMetricFamily(
            "taffrail_cgroup_lost_events",
            "Times the kernel dropped events and the tree was read anew.",
            value=discovery.lost_events,
        )
        failures = CounterMetricFamily(
            "taffrail_cgroup_failures", "Failures by what was tried.", labels=["what"]
        )
        for what, count in tuple(discovery.failures.items()):
            failures.add_metric([what], count)
        yield failures

    return source
