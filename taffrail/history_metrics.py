"""The history's own metrics: what it holds, how far back it reaches, what was lost or taken, by cause.

And whether the clock is believed, by which history and logs are removed for their age.
"""

from __future__ import annotations

from collections.abc import Iterator

from collector.clock_trust import ClockTrust
from collector.history.archive import Archive
from collector.history.recorder import Recorder
from exporters.prometheus.own_families import OwnCounter, OwnFamily, OwnGauge
from exporters.prometheus.self_metrics import Source

__all__ = ["clock_metrics", "history_metrics"]


def clock_metrics(clock: ClockTrust) -> Source:
    """Read at the scrape."""

    def source() -> Iterator[OwnFamily]:
        yield OwnGauge(
            "taffrail_clock_trusted",
            "1 if history and logs may be removed for their age, 0 while the clock is in doubt.",
            value=int(clock.trusted),
        )
        yield OwnCounter(
            "taffrail_clock_failures",
            "Times that the time the clock was last seen could not be read or written.",
            value=clock.failures,
        )

    return source


def history_metrics(archive: Archive, recorder: Recorder) -> Source:
    """Read at the scrape; a row is one container's numbers of one step."""

    def source() -> Iterator[OwnFamily]:
        losses = archive.losses
        size = OwnGauge("taffrail_history_disk_bytes", "Bytes on disk.", labels=["step"])
        rows = OwnGauge("taffrail_history_rows", "Rows on disk.", labels=["step"])
        oldest = OwnGauge(
            "taffrail_history_oldest_timestamp_seconds", "Time of the oldest row.", labels=["step"]
        )
        for tier in (archive.fine, archive.coarse):
            step = [f"{tier.resolution.step}s"]
            size.add(step, tier.bytes)
            rows.add(step, tier.rows)
            if tier.first_us:
                oldest.add(step, tier.first_us / 1e6)
        yield from (size, rows, oldest)
        yield OwnCounter("taffrail_history_written_rows", "Rows written.", value=archive.rows_written)
        removed = OwnCounter("taffrail_history_removed_rows", "Rows removed, by cause.", labels=["cause"])
        removed_bytes = OwnCounter(
            "taffrail_history_removed_bytes", "Bytes on disk removed, by cause.", labels=["cause"]
        )
        for cause in ("age", "size"):
            removed.add([cause], losses.removed_rows[cause])
            removed_bytes.add([cause], losses.removed_bytes[cause])
        yield from (removed, removed_bytes)
        lost = OwnCounter(
            "taffrail_history_lost_steps", "Steps that could not be written, by cause.", labels=["cause"]
        )
        lost.add_each(losses.steps)
        yield lost
        yield OwnCounter(
            "taffrail_history_failures", "Times that recording failed as a whole.", value=recorder.failures
        )
        yield OwnCounter(
            "taffrail_history_torn_bytes",
            "Bytes of an unfinished write that were cut when the history was opened.",
            value=losses.torn_bytes,
        )
        yield OwnCounter(
            "taffrail_history_damaged",
            "Pieces of history whose bytes are not what was written.",
            value=losses.damaged,
        )
        yield OwnCounter("taffrail_history_cpu_seconds", "CPU time of recording.", value=recorder.cpu_seconds)

    return source
