"""A thousand cgroups sampled and rendered, and memory after ten thousand more that came and went.

No engine and no network: made cgroups with a sleeping process each for the first, empty ones for the second,
in one process, so that its memory and its descriptors are the sampler's and the page's alone.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import time
from dataclasses import replace
from pathlib import Path

from bench.cgroups import made_containers, made_parent, open_many_files
from bench.table import Row, print_table
from collector.container import Container
from collector.discovery.registry import Containers
from collector.sampler import Sampler
from exporters.prometheus.exposition import Exposition

__all__ = ["churn", "main", "measure"]

PASSES = 20


def megabytes() -> float:
    """This process's resident memory."""
    found = re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) / 1000 if found else 0.0


def descriptors() -> int:
    """How many files this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def measure(count: int) -> list[Row]:
    """Rows of a pass and a page over this many containers."""
    with made_containers(count, False) as made:
        before, open_before = megabytes(), descriptors()
        registry = Containers()
        sampler = Sampler(registry)
        page = Exposition(registry, sampler)
        for container in made:
            registry.update(container)
        sampler.sample_all()
        page.write(len)  # piece by piece, as to a compressor
        passes, pages = [], []
        for _ in range(PASSES):
            started = time.thread_time()
            sampler.sample_all()
            middle = time.thread_time()
            page.write(len)
            passes.append(middle - started)
            pages.append(time.thread_time() - middle)
        a_pass, a_page = statistics.median(passes), statistics.median(pages)
        rows = [
            Row(f"{count} cgroups, a pass, each of them", "µs", a_pass / count * 1e6, budget=100),
            Row(f"{count} cgroups, a page", "ms", a_page * 1e3, budget=0.07 * count),
            Row(f"a series of {page.series}", "µs", a_page / page.series * 1e6, budget=0.7),
            Row("memory for each", "kB", (megabytes() - before) / count * 1e3),
            Row("descriptors for each", "", (descriptors() - open_before) / count),
        ]
        sampler.close()
        return rows


def churn(count: int) -> list[Row]:
    """Rows of what containers that came, were rendered and went leave behind."""
    clock = [time.time_ns()]
    registry = Containers(300, lambda: clock[0])
    sampler = Sampler(registry)
    page = Exposition(registry, sampler)
    after_tenth = (0.0, 0)
    with made_parent() as (parent, parents):
        for number in range(count):
            identity = f"{number + 1:064x}"
            for directory in parents:
                (directory / identity).mkdir()
            made = Container(id=identity, name=f"c{number}", engine="docker", cgroup=f"{parent}/{identity}")
            registry.update(made)
            if number % 20 == 0:
                sampler.sample_all()
                page.render()
            registry.update(replace(made, state="exited", exit_code=0))
            registry.remove(identity, "docker")
            for directory in parents:
                (directory / identity).rmdir()
            clock[0] += 3 * 10**9  # a hundred tombstones at a time
            if number == count // 10:
                after_tenth = megabytes(), descriptors()
    rows = [
        Row(f"memory grown from the {count // 10}th to the {count}th", "MB", megabytes() - after_tenth[0]),
        Row("descriptors grown", "", descriptors() - after_tenth[1]),
    ]
    sampler.close()
    return rows


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--containers", type=int, default=1000)
    parser.add_argument("--churned", type=int, default=10_000)
    options = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("making cgroups needs root")
    open_many_files()
    rows = measure(options.containers)
    if options.churned:
        rows += churn(options.churned)
    print_table(rows)


if __name__ == "__main__":
    main()
