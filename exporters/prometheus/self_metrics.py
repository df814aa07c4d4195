"""Our own metrics: what the agent costs and what it lost.

Parts of the product register a callable that yields families; it is called at each scrape, so nobody has to
keep a metric object in step. Container series are not here (``exposition.py``).
"""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Callable, Iterable, Iterator

from collector.discovery.cgroups import CgroupDiscovery
from collector.discovery.engine_api import EngineDiscovery
from collector.sampler import Sampler
from exporters.prometheus.exposition import Exposition
from exporters.prometheus.own_families import OwnCounter, OwnFamily, OwnGauge, OwnWriter
from exporters.prometheus.plan import Sink
from exporters.prometheus.process_metrics import process_metrics

__all__ = ["SelfMetrics", "Source", "cgroup_metrics", "discovery_metrics", "sampling_metrics"]

logger = logging.getLogger(__name__)

#: Called at each scrape.
Source = Callable[[], Iterable[OwnFamily]]


class SelfMetrics:
    """The sources, and the process's own series."""

    def __init__(self) -> None:
        self._failures: dict[str, int] = {}
        self._sources: list[tuple[str, Source]] = [
            ("process", process_metrics()),
            ("self_metrics", self._own),
        ]
        self._writer = OwnWriter()
        self._lock = threading.Lock()

    def register(self, source: Source, name: str = "") -> None:
        """Add families; ``name`` says whose they are when the source fails. Names must not repeat."""
        self._sources.append((name or getattr(source, "__qualname__", repr(source)), source))

    def text(self) -> bytes:
        """All of them in text format 0.0.4."""
        page = io.BytesIO()
        self.write(page.write)
        return page.getvalue()

    def write(self, sink: Sink) -> None:
        """Give them to ``sink``, a part's families at a time."""
        for name, source in tuple(self._sources):
            sink(self._part(name, source))

    def _part(self, name: str, source: Source) -> bytes:
        """One part's families; its failure is counted and costs the page nothing else."""
        try:
            with self._lock:
                return "".join(map(self._writer.write, source())).encode("utf-8", "replace")
        except Exception:  # whoever registered it may raise anything
            self._failures[name] = self._failures.get(name, 0) + 1
            logger.exception("cannot collect the metrics of %s", name)
            return b""

    def _own(self) -> Iterator[OwnFamily]:
        failures = OwnCounter(
            "taffrail_self_metrics_failures",
            "Scrapes in which a part could not tell its metrics.",
            labels=["part"],
        )
        failures.add_each(self._failures)
        yield failures


def sampling_metrics(sampler: Sampler, exposition: Exposition) -> Source:
    """What sampling and scraping cost."""

    def source() -> Iterator[OwnFamily]:
        yield OwnCounter(
            "taffrail_sampling_passes", "Sampling passes over all containers.", value=sampler.passes
        )
        yield OwnCounter(
            "taffrail_sampling_cpu_seconds", "CPU time of sampling passes.", value=sampler.pass_seconds
        )
        yield OwnGauge(
            "taffrail_sampling_reopened_containers",
            "Containers whose counters are opened for every pass: the limit of open files is too low to keep them.",
            sum(not target.cgroup.keeps for target in sampler.targets().values()),
        )
        failures = OwnCounter(
            "taffrail_sampling_failures", "Counters that could not be read.", labels=["controller"]
        )
        failures.add_each(sampler.failures)
        yield failures
        yield OwnGauge(
            "taffrail_exposition_series", "Container and host series on the page.", value=exposition.series
        )
        yield OwnCounter(
            "taffrail_exposition_dropped_series",
            "Series left off the page, over the limit, summed over scrapes.",
            value=exposition.dropped_series,
        )
        yield OwnGauge(
            "taffrail_exposition_left_out_containers",
            "Containers that are not on the page, over the limit of series.",
            value=exposition.left_out,
        )

    return source


def discovery_metrics(discoveries: Iterable[EngineDiscovery]) -> Source:
    """How well each engine is followed."""
    known = tuple(discoveries)

    def source() -> Iterator[OwnFamily]:
        up = OwnGauge(
            "taffrail_engine_connected",
            "1 while the engine's events are followed.",
            labels=["socket", "engine"],
        )
        events = OwnCounter(
            "taffrail_engine_events", "Events heard from the engine.", labels=["socket", "engine"]
        )
        failures = OwnCounter(
            "taffrail_engine_failures", "Failures by what was tried.", labels=["socket", "engine", "what"]
        )
        for discovery in known:
            if discovery.absent:
                continue
            labels = [str(discovery.socket), discovery.engine]
            up.add(labels, int(discovery.connected))
            events.add(labels, discovery.events)
            for what, count in tuple(discovery.failures.items()):
                failures.add([*labels, what], count)
        yield from (up, events, failures)

    return source


def cgroup_metrics(discovery: CgroupDiscovery) -> Source:
    """How well the cgroup tree is followed."""

    def source() -> Iterator[OwnFamily]:
        yield OwnGauge("taffrail_cgroups", "Cgroups that are followed.", value=discovery.known)
        yield OwnGauge(
            "taffrail_cgroup_watches", "Cgroup directories the kernel tells of.", value=discovery.watches
        )
        yield OwnGauge(
            "taffrail_cgroups_unwatched",
            "Cgroups too many or too deep to be watched inside.",
            value=discovery.unwatched,
        )
        yield OwnCounter(
            "taffrail_cgroup_lost_events",
            "Times the kernel dropped events and the tree was read anew.",
            value=discovery.lost_events,
        )
        failures = OwnCounter("taffrail_cgroup_failures", "Failures by what was tried.", labels=["what"])
        failures.add_each(discovery.failures)
        yield failures

    return source
