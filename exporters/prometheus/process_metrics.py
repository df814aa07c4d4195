"""What the agent's process and interpreter cost, under the names that every Prometheus client gives them.

The families are those of prometheus-client's own collectors, which would list the open files at every scrape:
with a thousand containers there are 16,000. Registering them is ``self_metrics.py``'s.
"""

from __future__ import annotations

import gc
import os
import platform
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from exporters.prometheus.own_families import OwnCounter, OwnFamily, OwnGauge

__all__ = ["open_files", "process_metrics"]

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def open_files(directory: Path = Path("/proc/self/fd")) -> int:
    """How many files this process has open; ``directory`` has an entry for each. Raises OSError."""
    # Linux 6.2 and later tell the number as the directory's size. A listing has itself in it.
    return directory.stat().st_size or sum(1 for _ in directory.iterdir()) - 1


def process_metrics() -> Callable[[], Iterator[OwnFamily]]:
    """The process's families and the interpreter's. Raises OSError, ValueError without a usable ``/proc``."""
    started = _boot_seconds() + _started_ticks() / _TICKS
    version = platform.python_version_tuple()
    words = (platform.python_implementation(), *version, platform.python_version())

    def source() -> Iterator[OwnFamily]:
        with open("/proc/self/statm", "rb") as statm:  # proc_pid_statm(5): pages
            size, resident, *_ = map(int, statm.read().split())
        yield OwnGauge("process_virtual_memory_bytes", "Virtual memory size in bytes.", size * _PAGE)
        yield OwnGauge("process_resident_memory_bytes", "Resident memory size in bytes.", resident * _PAGE)
        yield OwnGauge(
            "process_start_time_seconds", "Start time of the process since unix epoch in seconds.", started
        )
        yield OwnCounter(
            "process_cpu_seconds", "Total user and system CPU time spent in seconds.", time.process_time()
        )
        yield OwnGauge("process_open_fds", "Number of open file descriptors.", open_files())
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        yield OwnGauge("process_max_fds", "Maximum number of open file descriptors.", limit)
        labels = ("implementation", "major", "minor", "patchlevel", "version")
        info = OwnGauge("python_info", "Python platform information", labels=labels)
        info.add(words, 1)
        yield info
        yield from _garbage()

    return source


def _garbage() -> Iterator[OwnFamily]:
    generations = gc.get_stats()
    for key, name, text in (
        ("collected", "objects_collected", "Objects collected during gc"),
        ("uncollectable", "objects_uncollectable", "Uncollectable objects found during GC"),
        ("collections", "collections", "Number of times this generation was collected"),
    ):
        family = OwnCounter(f"python_gc_{name}", text, labels=("generation",))
        for generation, counts in enumerate(generations):
            family.add((str(generation),), counts[key])
        yield family


def _boot_seconds() -> int:
    """When the host was booted, since the epoch: proc_stat(5)."""
    with open("/proc/stat", "rb") as file:
        for line in file:
            if line.startswith(b"btime "):
                return int(line.split()[1])
    raise ValueError("/proc/stat: expected a line btime")


def _started_ticks() -> int:
    """When this process was started, in ticks since then: the 22nd field of proc_pid_stat(5)."""
    with open("/proc/self/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[19])
