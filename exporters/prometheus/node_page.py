"""The host's part of ``/metrics``: what the groups of host counters read, as Node Exporter would write it.

The text of a series up to its value is made once and kept while the series is there. Which families
there are is ``node_families.py``'s, reading them ``collector/host``'s.
"""

from __future__ import annotations

import platform
import threading
from collections.abc import Collection, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from collector.host.collection import Collected, HostGroups
from collector.host.group import Labels, Readings
from exporters.prometheus.labels import escape
from exporters.prometheus.node_families import node_family
from exporters.prometheus.self_metrics import Source

__all__ = ["NodePage", "host_metrics"]

_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "i686": "386", "armv7l": "arm"}


class NodePage:
    """Renders one host's groups in text format 0.0.4."""

    def __init__(self, groups: HostGroups, version: str = "") -> None:
        self.series = 0  #: series on the last page
        self._groups = groups
        machine = platform.machine()
        python = f"python{platform.python_version()}"
        self._build: Labels = ("taffrail", _MACHINES.get(machine, machine), "linux", python, "", version)
        self._families: dict[str, _Lines] = {}
        self._lock = threading.Lock()

    def render(self, names: Collection[str] = ()) -> bytes:
        """All host series now, of the named families only where ``names`` has any."""
        collected = self._groups.read()
        with self._lock:
            parts: list[str] = []
            self.series = 0
            for group in collected:
                self._write(parts, group.readings, names)
            if collected:
                self._write(parts, self._about(collected), names)
            return "".join(parts).encode("utf-8", "replace")

    def _about(self, collected: list[Collected]) -> Readings:
        return {
            "node_scrape_collector_duration_seconds": [((c.group,), c.seconds) for c in collected],
            "node_scrape_collector_success": [((c.group,), int(c.success)) for c in collected],
            "node_exporter_build_info": [(self._build, 1)],
        }

    def _write(self, parts: list[str], readings: Readings, names: Collection[str]) -> None:
        for name, series in readings.items():
            if not series or (names and name not in names):
                continue
            lines = self._families.get(name)
            if lines is None:
                lines = self._families[name] = _Lines(name)
            elif len(lines) > 2 * len(series) + 16:
                lines.clear()  # most of them are of devices that are gone
            parts.append(lines.header)
            for labels, value in series:
                parts += (lines[labels], str(value), "\n")
            self.series += len(series)


class _Lines(dict[Labels, str]):
    """Label values to the line of their series up to the value, made when first asked for."""

    def __init__(self, name: str) -> None:
        super().__init__()
        family = node_family(name)
        self.header = f"# HELP {name} {family.help}\n# TYPE {name} {family.kind}\n"
        self._name = name
        self._labels = family.labels

    def __missing__(self, values: Labels) -> str:
        pairs = zip(self._labels, values, strict=True)
        text = ",".join(f'{label}="{escape(value)}"' for label, value in pairs)
        line = self[values] = f"{self._name}{{{text}}} " if text else f"{self._name} "
        return line


def host_metrics(groups: HostGroups, page: NodePage) -> Source:
    """What could not be read of the host, and how much of the page is its."""

    def source() -> Iterator[Metric]:
        failures = CounterMetricFamily(
            "taffrail_host_failures", "Readings of a group of host counters that failed.", labels=["group"]
        )
        for group, count in tuple(groups.failures.items()):
            failures.add_metric([group], count)
        yield failures
        yield GaugeMetricFamily(
            "taffrail_host_series", "Host series under Node Exporter's names on the page.", value=page.series
        )

    return source
