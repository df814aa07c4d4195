"""Searching a million lines in the store, beside grep on the raw json-file, in one run.

``python -m bench.search [--lines N] [--containers N]``. CPU time (children included), the best of five, warm
page cache; grep is asked for the same lines (``-F`` or ``-E``, ``LC_ALL=C``) and reads all of the file.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.store import START_NS, access_blocks, fill
from bench.table import Row, print_table
from collector.query import parse
from collector.store import Store
from logdrivers.block import Block, Encoding, Stream

__all__ = ["main"]


ENVIRONMENT = {"LC_ALL": "C", "PATH": "/usr/bin:/bin"}


class Case(NamedTuple):
    """A search, and grep's arguments for it."""

    work: str
    query: str
    limit: int
    grep: Sequence[str]
    budget_ms: float | None = None


CASES = (
    Case("rare substring", '"id=4711 HTTP"', 1000, ["-F", "id=4711 HTTP"], 10),
    Case("rare word", "zyx-4f0c91d2-wvu", 1000, ["-F", "zyx-4f0c91d2-wvu"], 10),
    Case("absent word", "zanzibar", 1000, ["-F", "zanzibar"], 10),
    Case("newest 50 of a frequent word", "login", 50, ["-F", "login"], 5),
    Case("newest 50 of all", "", 50, ["-c", ""], 5),
    Case("regex with a literal", "/id=4711[0-9] HTTP/", 1000, ["-E", "id=4711[0-9] HTTP"]),
    Case("regex without a literal, rare", "/[xyz][0-9]{2}[qj]/", 50, ["-E", "[xyz][0-9]{2}[qj]"], 150),
    Case(
        "regex without a literal, newest 50",
        "/[45][0-9]{2} [0-9]{5} /",
        50,
        ["-E", "[45][0-9]{2} [0-9]{5} "],
        150,
    ),
    Case("status:404 and a word", "status:404 basket", 50, ["-E", "basket.* 404 "]),
    Case("status:>=500, none there", "status:>=500", 50, ["-E", '" 5[0-9]{2} ']),
    Case("level:error, none there", "level:error", 50, ["-iE", "error|severe"]),
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--containers", type=int, default=1)
    arguments = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="bench-search-", dir="/tmp"))
    try:
        blocks = list(access_blocks(arguments.lines))
        raw = directory / "raw.log"
        store = Store(directory / "store", background=False)
        fill(store, blocks[: len(blocks) // 3], arguments.containers)
        rare = (
            b'{"log":"the rare word zyx-4f0c91d2-wvu\\n","stream":"stdout","time":"2026-01-31T09:00:00Z"}\n'
        )
        fill(store, [Block(rare, Encoding.JSON_FILE, Stream.STDOUT, START_NS, START_NS, 1)])
        fill(store, blocks[len(blocks) // 3 :], arguments.containers)
        with open(raw, "wb") as file:
            for data in [block.data for block in blocks] + [rare]:
                file.write(data)
        store._rotate()
        store.maintain()
        del blocks
        print_table([_measure(store, raw, case) for case in CASES])
        store.close()
    finally:
        shutil.rmtree(directory)


def _measure(store: Store, raw: Path, case: Case) -> Row:
    query = parse(case.query)
    ours = _best(lambda: list(store.search(query, 0, 1 << 62, case.limit)))
    command = ["grep", "-a", *case.grep, str(raw)]
    theirs = _best(
        lambda: subprocess.run(command, stdout=subprocess.PIPE, env=ENVIRONMENT)  # /dev/null: it stops early
    )
    return Row(case.work, "ms", ours, "grep", theirs, case.budget_ms)


def _best(work: Callable[[], object]) -> float:
    times = []
    for _ in range(5):
        started = _cpu_seconds()
        work()
        times.append(_cpu_seconds() - started)
    return min(times) * 1000


def _cpu_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


if __name__ == "__main__":
    main()
