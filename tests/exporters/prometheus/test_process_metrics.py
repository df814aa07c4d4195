"""The process's and the interpreter's own series beside prometheus-client's."""

from __future__ import annotations

import subprocess
import sys

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import generate_latest

from exporters.prometheus.own_families import OwnWriter
from exporters.prometheus.process_metrics import process_metrics

#: Those that cannot change between two readings.
FIXED = ("process_start_time_seconds", "process_max_fds", "python_info")


def theirs() -> dict[str, str]:
    registry = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    return by_series(generate_latest(registry).decode())


def ours() -> dict[str, str]:
    writer = OwnWriter()
    return by_series("".join(map(writer.write, process_metrics()())))


def by_series(page: str) -> dict[str, str]:
    return dict(line.rpartition(" ")[::2] for line in page.splitlines())


def test_names_types_words_and_labels_are_theirs() -> None:
    assert list(ours()) == list(theirs())


def test_what_stays_has_their_value() -> None:
    own, peer = ours(), theirs()
    fixed = [series for series in peer if series.startswith(FIXED)]
    assert len(fixed) == len(FIXED)
    assert [own[series] for series in fixed] == [peer[series] for series in fixed]


def test_what_moves_is_between_two_readings_of_theirs() -> None:
    before, own, after = theirs(), ours(), theirs()
    for series in ('python_gc_collections_total{generation="0"}', "process_cpu_seconds_total"):
        # Theirs is in ticks of a hundredth of a second.
        assert float(before[series]) - 0.05 <= float(own[series]) <= float(after[series]) + 0.05
    memory = "process_resident_memory_bytes"
    assert float(before[memory]) / 2 < float(own[memory]) < 2 * float(after[memory])


def test_every_open_file_counts_on_old_kernels_too() -> None:
    script = """
import os
from pathlib import Path
from exporters.prometheus.process_metrics import open_files
for directory in (Path("/proc/self/fd"), Path("/proc/self/fdinfo")):  # the second never tells it as its size
    print(len(os.listdir("/proc/self/fd")) - 1, open_files(directory))
    opened = os.open("/", os.O_RDONLY), os.open("/", os.O_RDONLY)
    print(len(os.listdir("/proc/self/fd")) - 1, open_files(directory))
"""
    # In a process of its own: threads of other tests may open files meanwhile.
    words = [sys.executable, "-c", script]
    told = subprocess.run(words, check=True, capture_output=True, text=True, timeout=60).stdout
    pairs = [line.split() for line in told.splitlines()]
    assert len(pairs) == 4
    assert [own for _, own in pairs] == [listed for listed, _ in pairs]
    assert int(pairs[1][1]) == int(pairs[0][1]) + 2
