"""The host's part of ``/metrics``: what the groups of host counters read, as Node Exporter would write it.

The text of a series up to its value is made once and kept while the series is there. Which families
there are is ``node_families.py``'s, reading them ``collector/host``'s.
"""

from __future__ import annotations

import io
import platform
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence

from collector.host.collection import Collected, HostGroups
from collector.host.group import Column, Labels, Readings, Series
from exporters.prometheus.lines import Lines
from exporters.prometheus.node_families import node_family
from exporters.prometheus.own_families import OwnCounter, OwnFamily, OwnGauge
from exporters.prometheus.plan import Sink
from exporters.prometheus.self_metrics import Source

__all__ = ["NodePage", "host_metrics"]

_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "i686": "386", "armv7l": "arm"}


class NodePage:
    """Renders one host's groups in text format 0.0.4."""

    def __init__(self, groups: HostGroups, version: str = "") -> None:
        self.series = 0  #: series on the last whole page
        self._groups = groups
        machine = platform.machine()
        python = f"python{platform.python_version()}"
        self._build: Labels = ("taffrail", _MACHINES.get(machine, machine), "linux", python, "", version)
        self._families: dict[str, _Family] = {}
        self._lock = threading.Lock()

    def render(self, names: Collection[str] = ()) -> bytes:
        """All host series now, of the named families only where ``names`` has any."""
        page = io.BytesIO()
        self.write(page.write, names)
        return page.getvalue()

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups of host counters there are."""
        return self._groups.names

    def write(self, sink: Sink, names: Collection[str] = (), only: Collection[str] = ()) -> None:
        """Give them to ``sink``, a group at a time; those groups ``only`` where it names any."""
        with self._lock:
            collected = self._groups.read(only)
            groups = [group.readings for group in collected]
            if collected:
                groups.append(self._about(collected))
            series = 0
            for readings in groups:
                text, count = self._text(readings, names)
                series += count
                sink(text.encode("utf-8", "replace"))
            if not names and not only:
                self.series = series

    def _about(self, collected: list[Collected]) -> Readings:
        return {
            "node_scrape_collector_duration_seconds": [((c.group,), c.seconds) for c in collected],
            "node_scrape_collector_success": [((c.group,), int(c.success)) for c in collected],
            "node_exporter_build_info": [(self._build, 1)],
        }

    def _text(self, readings: Mapping[str, Series | Column], names: Collection[str]) -> tuple[str, int]:
        """A group's part of the page, and how many series it has."""
        parts: list[str] = []
        count = 0
        for name, series in readings.items():
            if not series or (names and name not in names):
                continue
            family = self._families.get(name)
            if family is None:
                family = self._families[name] = _Family(name)
            parts.append(family.column(series) if isinstance(series, Column) else family.rows(series))
            count += len(series)
        return "".join(parts), count


class _Family:
    """One family's text, kept as long as nothing of it changes."""

    __slots__ = ("_labels", "_parts", "_series", "_text", "_values", "lines")

    def __init__(self, name: str) -> None:
        family = node_family(name)
        self.lines = Lines(name, family.kind, family.help, family.labels)
        self._labels: Sequence[Labels] | None = None
        self._series: Series | None = None
        self._parts: list[str] = []  # by turns a line up to its value, and the value
        self._values: Sequence[float] = ()
        self._text = ""

    def rows(self, series: Series) -> str:
        """Header and lines."""
        if series != self._series:
            lines = self.lines
            lines.make_room(len(series))
            text = "".join([f"{lines[labels]}{value}\n" for labels, value in series])
            self._labels, self._series, self._text = None, series, lines.header + text
        return self._text

    def column(self, series: Column) -> str:
        """The same, with what was made the last time."""
        if series.labels is not self._labels:
            starts = map(self.lines.line, series.labels)
            parts = [part for start in starts for part in (f"\n{start}", "")]
            parts[0] = self.lines.header + parts[0][1:]
            parts.append("\n")
            self._labels, self._series, self._parts, self._values = series.labels, None, parts, ()
        elif series.values == self._values:
            return self._text
        self._parts[1::2] = map(str, series.values)
        self._text = "".join(self._parts)
        self._values = series.values
        return self._text


def host_metrics(groups: HostGroups, page: NodePage) -> Source:
    """What could not be read of the host, and how much of the page is its."""

    def source() -> Iterator[OwnFamily]:
        failures = OwnCounter(
            "taffrail_host_failures", "Readings of a group of host counters that failed.", labels=["group"]
        )
        failures.add_each(groups.failures)
        yield failures
        yield OwnGauge(
            "taffrail_host_series", "Host series under Node Exporter's names on the page.", value=page.series
        )

    return source
