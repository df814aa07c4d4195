"""What the histories of processes and of connections cost, hold and have lost, under ``taffrail_*`` names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from collector.history.step_log import StepLog
from collector.processes.map_history import MapHistory, MapRecorder
from collector.processes.recorder import ProcessArchive, ProcessRecorder
from exporters.prometheus.own_families import OwnCounter, OwnFamily, OwnGauge
from exporters.prometheus.self_metrics import Source

__all__ = ["map_metrics", "process_metrics"]


def process_metrics(archive: ProcessArchive, recorder: ProcessRecorder) -> Source:
    """Read at the scrape."""
    steps = {f"{archive.step:g}s": archive.fine, "60s": archive.coarse}

    def source() -> Iterator[OwnFamily]:
        yield from _log_families("taffrail_process_history", steps)
        scan = recorder.scan
        name = "taffrail_process_history"
        yield OwnCounter(f"{name}_cpu_seconds", "CPU time of recording.", recorder.cpu_seconds)
        yield OwnCounter(f"{name}_failures", "Times that recording failed as a whole.", recorder.failures)
        yield OwnCounter(f"{name}_looks", "Looks at all processes.", recorder.looks)
        yield OwnCounter(f"{name}_skipped_looks", "Looks left out to save CPU time.", recorder.skipped)
        yield OwnCounter(
            f"{name}_unread_processes",
            "Processes that ran and were not read at a look for want of CPU time.",
            scan.unread,
        )
        yield OwnCounter(
            f"{name}_unreadable_processes",
            "Readings of processes that the kernel refused, or that made no sense.",
            scan.unreadable,
        )
        yield OwnCounter(
            f"{name}_unread_threads",
            "Busy processes with too many threads to find the busiest of them.",
            scan.unread_threads,
        )
        yield OwnGauge(f"{name}_processes", "Processes remembered.", len(scan))
        yield OwnGauge(f"{name}_left_out_processes", "Processes beyond the most that are.", scan.left_out)

    return source


def map_metrics(history: MapHistory, recorder: MapRecorder) -> Source:
    """Read at the scrape."""

    def source() -> Iterator[OwnFamily]:
        name = "taffrail_connection_history"
        yield from _log_families(name, {"60s": history.steps})
        yield OwnCounter(f"{name}_cpu_seconds", "CPU time of recording.", recorder.cpu_seconds)
        yield OwnCounter(f"{name}_failures", "Times that recording failed as a whole.", recorder.failures)
        yield OwnCounter(
            f"{name}_forgotten_edges",
            "Edges that the map had no room for, before or after they were recorded.",
            recorder.graph.forgotten,
        )

    return source


def _log_families(name: str, logs: Mapping[str, StepLog]) -> Iterator[OwnFamily]:
    size = OwnGauge(f"{name}_disk_bytes", "Bytes on disk.", labels=["step"])
    steps = OwnGauge(f"{name}_steps", "Steps on disk.", labels=["step"])
    oldest = OwnGauge(f"{name}_oldest_timestamp_seconds", "Time of the oldest step.", labels=["step"])
    removed = OwnCounter(f"{name}_removed_steps", "Steps removed, by cause.", labels=["step", "cause"])
    lost = OwnCounter(
        f"{name}_lost_steps", "Steps that could not be written, by cause.", labels=["step", "cause"]
    )
    torn = damaged = 0
    for step, log in logs.items():
        losses = log.losses
        size.add([step], log.disk_bytes)
        steps.add([step], log.steps)
        if log.first_us:
            oldest.add([step], log.first_us / 1e6)
        for cause in ("age", "size"):
            removed.add([step, cause], losses.removed_steps[cause])
        for cause, count in tuple(losses.steps.items()):
            lost.add([step, cause], count)
        torn += losses.torn_bytes
        damaged += losses.damaged
    yield from (size, steps, oldest, removed, lost)
    yield OwnCounter(
        f"{name}_torn_bytes", "Bytes of an unfinished write that were cut when it was opened.", torn
    )
    yield OwnCounter(f"{name}_damaged", "Pieces whose bytes are not what was written.", damaged)
