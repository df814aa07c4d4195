"""What remote write took, delivered, holds and dropped, as metrics of our own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

from exporters.prometheus.own_families import OwnCounter, OwnFamily, OwnGauge
from exporters.remote_write.exporter import RemoteWriteExporter

__all__ = ["remote_write_metrics"]

_PREFIX = "taffrail_remote_write_"


def remote_write_metrics(exporter: RemoteWriteExporter) -> Callable[[], Iterable[OwnFamily]]:
    """Samples: taken (what an earlier run left included) = delivered + held + dropped."""

    def source() -> Iterator[OwnFamily]:
        queue, batches = exporter.queue, exporter.batches
        counters = {
            "samples": ("Samples taken from the page or found in the queue at the start.", queue.taken),
            "delivered_samples": ("Samples the receiver took.", queue.delivered),
            "unreadable_samples": ("Samples left out: unreadable, or there twice.", batches.unreadable),
            "stale_markers": ("Series told to have ended.", batches.stale_markers),
            "requests": ("Requests sent, answered or not.", exporter.requests),
            "cpu_seconds": ("CPU time spent on making requests.", exporter.cpu_seconds),
        }
        for name, (text, value) in counters.items():
            yield OwnCounter(_PREFIX + name, text, value=value)
        by_cause = {
            "dropped_samples": ("Samples given up.", queue.dropped),
            "failures": ("Requests that failed.", exporter.failures),
        }
        for name, (text, counts) in by_cause.items():
            family = OwnCounter(_PREFIX + name, text, labels=["cause"])
            family.add_each(counts)
            yield family
        oldest = queue.oldest_ms
        gauges = {
            "held_samples": ("Samples that wait on disk.", queue.held),
            "held_bytes": ("Bytes on disk of requests that wait.", queue.bytes),
            "held_seconds": (
                "Age of the oldest request that waits.",
                0.0 if oldest is None else time.time() - oldest / 1000,
            ),
            "up": ("1 after a request that was taken.", int(exporter.up)),
        }
        for name, (text, value) in gauges.items():
            yield OwnGauge(_PREFIX + name, text, value=value)

    return source
