"""The history's own metrics: what it holds, how far back it reaches, what was lost or taken, by cause."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from collector.history.archive import Archive
from collector.history.recorder import Recorder
from exporters.prometheus.self_metrics import Source

__all__ = ["history_metrics"]


def history_metrics(archive: Archive, recorder: Recorder) -> Source:
    """Read at the scrape; a row is one container's numbers of one step."""

    def source() -> Iterator[Metric]:
        losses = archive.losses
        size = GaugeMetricFamily("taffrail_history_disk_bytes", "Bytes on disk.", labels=["step"])
        rows = GaugeMetricFamily("taffrail_history_rows", "Rows on disk.", labels=["step"])
        oldest = GaugeMetricFamily(
            "taffrail_history_oldest_timestamp_seconds", "Time of the oldest row.", labels=["step"]
        )
        for tier in (archive.fine, archive.coarse):
            step = [f"{tier.resolution.step}s"]
            size.add_metric(step, tier.bytes)
            rows.add_metric(step, tier.rows)
            if tier.first_us:
                oldest.add_metric(step, tier.first_us / 1e6)
        yield from (size, rows, oldest)
        yield CounterMetricFamily(
            "taffrail_history_written_rows", "Rows written.", value=archive.rows_written
        )
        removed = CounterMetricFamily(
            "taffrail_history_removed_rows", "Rows removed, by cause.", labels=["cause"]
        )
        removed_bytes = CounterMetricFamily(
            "taffrail_history_removed_bytes", "Bytes on disk removed, by cause.", labels=["cause"]
        )
        for cause in ("age", "size"):
            removed.add_metric([cause], losses.removed_rows[cause])
            removed_bytes.add_metric([cause], losses.removed_bytes[cause])
        yield from (removed, removed_bytes)
        lost = CounterMetricFamily(
            "taffrail_history_lost_steps", "Steps that could not be written, by cause.", labels=["cause"]
        )
        for cause, count in tuple(losses.steps.items()):
            lost.add_metric([cause], count)
        yield lost
        yield CounterMetricFamily(
            "taffrail_history_failures", "Times that recording failed as a whole.", value=recorder.failures
        )
        yield CounterMetricFamily(
            "taffrail_history_torn_bytes",
            "Bytes of an unfinished write that were cut when the history was opened.",
            value=losses.torn_bytes,
        )
        yield CounterMetricFamily(
            "taffrail_history_damaged",
            "Pieces of history whose bytes are not what was written.",
            value=losses.damaged,
        )
        yield CounterMetricFamily(
            "taffrail_history_cpu_seconds", "CPU time of recording.", value=recorder.cpu_seconds
        )

    return source
