"""The log path's own metrics: for every stage what came, what went on, what is held and what was lost, by cause.

Each function makes a source for ``SelfMetrics.register``; values are read at the scrape.
The drivers' numbers are ``log_counts.py``'s, from files their shims keep, whichever process is down.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from collector.discovery.registry import Containers
from exporters.prometheus.own_families import OwnCounter, OwnFamily, OwnGauge
from exporters.prometheus.self_metrics import Source
from logdrivers.plugin.removal import BUDGET, removed_lines
from logdrivers.source.rate_limit import CAUSE as RATE_LIMIT
from logdrivers.source.rate_limit import RemovedDrops
from runtime.remainders import RATE_LIMITED_NAME, dropped_lines, held_lines
from taffrail.log_counts import GapCounts, LogCounts, log_labels

if TYPE_CHECKING:
    from collector.inputs.kernel_log import KernelLog
    from collector.inputs.received import InputCounters
    from collector.inputs.tails import Tails
    from collector.store import Store
    from exporters.elasticsearch.exporter import ElasticsearchExporter

__all__ = [
    "delivery_metrics",
    "exporter_metrics",
    "gap_metrics",
    "input_metrics",
    "kernel_log_metrics",
    "remainder_metrics",
    "store_metrics",
    "tail_metrics",
]


def input_metrics(inputs: dict[str, InputCounters]) -> Source:
    """The network inputs, by name: received = stored + waiting + dropped, in messages."""

    def source() -> Iterator[OwnFamily]:
        received = OwnCounter("taffrail_input_messages", "Messages received.", labels=["input"])
        stored = OwnCounter("taffrail_input_stored_messages", "Messages stored.", labels=["input"])
        waiting = OwnGauge(
            "taffrail_input_waiting_messages", "Messages waiting for the store.", labels=["input"]
        )
        size = OwnCounter("taffrail_input_bytes", "Bytes received.", labels=["input"])
        connections = OwnGauge("taffrail_input_connections", "Connections open.", labels=["input"])
        dropped = OwnCounter(
            "taffrail_input_dropped_messages", "Messages dropped, by cause.", labels=["input", "cause"]
        )
        for name, counters in inputs.items():
            received.add([name], counters.received)
            stored.add([name], counters.stored)
            waiting.add([name], counters.waiting)
            size.add([name], counters.bytes)
            connections.add([name], counters.connections)
            for cause, count in tuple(counters.dropped.items()):
                dropped.add([name, cause], count)
        yield from (received, stored, waiting, size, connections, dropped)

    return source


def kernel_log_metrics(log: KernelLog) -> Source:
    """Kills for want of memory that became lines, and what of the kernel's log did not."""

    def source() -> Iterator[OwnFamily]:
        yield OwnCounter("taffrail_kernel_log_kills", "Lines stored about kills.", value=log.kills)
        failures = OwnCounter(
            "taffrail_kernel_log_failures", "Records overwritten unread, or not stored.", labels=["cause"]
        )
        failures.add(["overwritten"], log.lost_records)
        failures.add(["failed"], log.failures)
        yield failures

    return source


def store_metrics(store: Store) -> Source:
    """The store: written = held + removed + corrupt, in lines; and where each cursor is."""

    def source() -> Iterator[OwnFamily]:
        now = store.counters()
        yield OwnCounter("taffrail_store_written_lines", "Lines stored.", value=now.written_lines)
        yield OwnCounter(
            "taffrail_store_written_bytes",
            "Bytes of lines stored, before compression.",
            value=now.written_bytes,
        )
        yield OwnGauge("taffrail_store_held_lines", "Lines in the store.", value=now.held_lines)
        yield OwnGauge("taffrail_store_disk_bytes", "Bytes on disk.", value=now.disk_bytes)
        removed = OwnCounter(
            "taffrail_store_removed_lines", "Lines that retention removed, by cause.", labels=["cause"]
        )
        for cause, lines in now.removed_lines.items():
            removed.add([cause], lines)
        removed.add(["corrupt"], now.corrupt_lines)
        yield removed
        yield OwnCounter(
            "taffrail_store_sealing_cpu_seconds", "CPU time of sealing.", value=now.sealing_cpu_seconds
        )
        lag = OwnGauge("taffrail_cursor_lag_lines", "Lines ahead of a cursor.", labels=["cursor"])
        lost = OwnCounter(
            "taffrail_cursor_lost_lines", "Lines removed before a cursor had them.", labels=["cursor"]
        )
        for name, cursor in now.cursors.items():
            lag.add([name], cursor.lag_lines)
            lost.add([name], cursor.lost_lines)
        yield from (lag, lost)

    return source


def exporter_metrics(exporter: ElasticsearchExporter) -> Source:
    """Elasticsearch: delivered = created + duplicates + rejected, in documents."""

    def source() -> Iterator[OwnFamily]:
        now = exporter.counters()
        documents = OwnCounter(
            "taffrail_elasticsearch_documents", "Documents answered for, by outcome.", labels=["outcome"]
        )
        documents.add(["created"], now.created)
        documents.add(["duplicate"], now.duplicates)
        for kind, count in tuple(now.rejected.items()):
            documents.add([f"rejected_{kind}"], count)
        yield documents
        yield OwnCounter("taffrail_elasticsearch_requests", "Bulk requests.", value=now.requests)
        failures = OwnCounter(
            "taffrail_elasticsearch_failures", "Requests without success, by cause.", labels=["cause"]
        )
        failures.add_each(now.failures)
        yield failures
        yield OwnGauge(
            "taffrail_elasticsearch_up",
            "1 if the last request was answered as it should be.",
            value=int(now.up),
        )

    return source


def tail_metrics(tails: Tails) -> Source:
    """The tailed files and journals: what was stored, what waits, what was lost, by cause."""

    def source() -> Iterator[OwnFamily]:
        totals = tails.totals()
        yield OwnCounter("taffrail_tail_lines", "Lines read from containers' logs.", value=totals.lines)
        yield OwnCounter("taffrail_tail_bytes", "Bytes read from containers' logs.", value=totals.bytes)
        lost = OwnCounter(
            "taffrail_tail_lost_lines", "Lines known to be lost before they were read.", labels=["cause"]
        )
        lost.add_each(totals.lost_lines)
        yield lost
        lost = OwnCounter(
            "taffrail_tail_lost_bytes", "Bytes known to be lost before they were read.", labels=["cause"]
        )
        lost.add_each(totals.lost_bytes)
        yield lost
        losses = OwnCounter(
            "taffrail_tail_losses",
            "Places in containers' logs where lines are missing, known to be or not, each marked in the log.",
            labels=["cause"],
        )
        losses.add_each(totals.losses)
        yield losses
        yield OwnCounter(
            "taffrail_tail_unverified_rotations",
            "Rotations after which the file read before was gone.",
            value=totals.unverified_rotations,
        )
        yield OwnGauge("taffrail_tail_open", "Logs being followed.", value=len(tails.status()))

    return source


def delivery_metrics(containers: Containers, plugins: Path) -> Source:
    """Our log drivers, in our engine and as Docker's plugins: written = delivered + held + dropped, in lines.

    ``plugins`` holds the plugins' state, a directory a name.
    """
    labels = ["id", "name", "image", "driver"]
    counts = LogCounts(plugins)

    def source() -> Iterator[OwnFamily]:
        written = OwnCounter(
            "taffrail_log_written_lines", "Lines the container wrote, on disk.", labels=labels
        )
        delivered = OwnCounter("taffrail_log_delivered_lines", "Lines the driver's sink took.", labels=labels)
        held = OwnGauge(
            "taffrail_log_held_lines", "Lines on disk that the sink has not taken.", labels=labels
        )
        dropped = OwnCounter(
            "taffrail_log_dropped_lines",
            "Lines that will not be delivered, by cause.",
            labels=[*labels, "cause"],
        )
        up = OwnGauge("taffrail_log_sink_up", "1 while the driver's sink takes lines.", labels=labels)
        for container, counters in counts.read(containers.all()):
            values = log_labels(container)
            written.add(values, counters.written)
            delivered.add(values, counters.delivered)
            held.add(values, counters.held)
            for cause, lines in counters.dropped.items():
                dropped.add((*values, cause), lines)
            up.add(values, int(counters.sink_up))
        yield from (written, delivered, held, dropped, up)

    return source


def gap_metrics(containers: Containers) -> Source:
    """Containers of our engine whose output may have been lost before it was on disk, and how often."""
    counts = GapCounts()

    def source() -> Iterator[OwnFamily]:
        gaps = OwnCounter(
            "taffrail_log_gaps",
            "Times that output may have been lost unread: everything that held it was killed, or a reboot.",
            labels=["id", "name", "image", "driver"],
        )
        for container, count in counts.read(containers.all()):
            gaps.add(log_labels(container), count)
        yield gaps

    return source


def remainder_metrics(undelivered: Path, plugins: Path) -> Source:
    """Lines of removed containers: what our engine and the plugins still deliver, and what was lost of them.

    ``undelivered`` is where our engine keeps their journals, ``plugins`` the plugins' state.
    """

    def source() -> Iterator[OwnFamily]:
        of_plugins = removed_lines(plugins)
        yield OwnGauge(
            "taffrail_log_removed_held_lines",
            "Lines of removed containers waiting for their sinks.",
            value=held_lines(undelivered) + of_plugins.held,
        )
        dropped = OwnCounter(
            "taffrail_log_removed_dropped_lines",
            "Lines of removed containers dropped, by cause.",
            labels=["cause"],
        )
        causes = Counter({BUDGET: dropped_lines(undelivered)})
        causes[RATE_LIMIT] = RemovedDrops.read(undelivered / RATE_LIMITED_NAME)
        causes.update(of_plugins.dropped)
        for cause, lines in causes.items():
            dropped.add([cause], lines)
        yield dropped

    return source
