"""The journals alone: CPU per line to encode and append blocks, and to read them back, without an engine.

Blocks are 64 KiB as the shim makes them from a busy container, and single lines as from a quiet one. The
engine beside dockerd is ``bench/drivers.py``.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from bench.table import Row, print_table
from logdrivers.block import Block, Encoding, Stream
from logdrivers.codecs import json_file as codec
from logdrivers.driver import Info
from logdrivers.journal import Journal, JournalReader, Mark
from logdrivers.journals.segments import SegmentJournal, SegmentReader
from logdrivers.json_file import JsonFileDriver

BLOCK_BYTES = 64 * 1024
NS = 1_795_203_812_003_026_720
BUDGET_PLAIN = 0.3

LINES: dict[str, Callable[[int], bytes]] = {
    "plain": lambda n: b"2026-01-31 request %010d served from cache in 12 ms for tenant a, 200, 5120 bytes\n" % n,
    "access log": lambda n: b'127.0.0.1 - - [31/Jan/2026:13:55:36 +0000] "GET /%010d HTTP/1.1" 200 23 "-" "curl"\n' % n,
    "json": lambda n: b'{"level":"info","id":%010d,"msg":"request \\"served\\" from cache","took":12,"ok":true}\n' % n,
    "quotes": lambda n: b'"a" "b" "c" "%010d" "\\d" "e" <f> & "g" "h" "i" "j" "k" "l" "m" "n" "o" "p" "q" "r"\n' % n,
    "coloured, tabs": lambda n: b"\x1b[32mINFO\x1b[0m\trequest %010d\tserved from cache in \x1b[1m12\x1b[0m ms\n" % n,
    "UTF-8": lambda n: "запрос %010d обслужен из кэша — 世界, größe 12 мс\n".encode() % n,
    "one invalid byte": lambda n: b"caf\xe9 request %010d served from cache in 12 ms for tenant a, 200, 5120 B\n" % n,
    "invalid bytes": lambda n: bytes(range(0x80, 0xD0)) + b" %010d\n" % n,
}  # fmt: skip


def block_of(line: Callable[[int], bytes], size: int) -> Block:
    """A block of about ``size`` bytes, at least one line."""
    count = max(1, size // len(line(0)))
    data = b"".join(line(n) for n in range(count))
    return Block(data, Encoding.LINES, Stream.STDOUT, NS, NS, count)


def cpu_per_line(run: Callable[[], int], repeats: int) -> float:
    """Microseconds of CPU per line, the best of several runs; ``run`` returns its lines."""
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        lines = run()
        best = min(best, (time.process_time() - start) / lines * 1e6)
    return best


def append_run(open_journal: Callable[[], Journal], directory: Path, block: Block, count: int) -> int:
    shutil.rmtree(directory, ignore_errors=True)
    journal = open_journal()
    for number in range(count):
        journal.append(block, Mark(number, 0))
    journal.close()
    return count * block.lines


def read_run(reader: JournalReader) -> int:
    lines = 0
    position = reader.first()
    while entries := reader.read(position).entries:
        lines += sum(entry.block.lines for entry in entries)
        position = entries[-1].end
    reader.close()
    return lines


def json_file_info(directory: Path, options: Mapping[str, str]) -> Info:
    return Info("c" * 64, "/bench", "sha256:1", "bench", ("sh",), 0, directory, options=options)


def measure(directory: Path, repeats: int, blocks: int) -> list[Row]:
    driver = JsonFileDriver()
    rows: list[Row] = []

    def add(work: str, run: Callable[[], int], budget: float | None = None) -> None:
        rows.append(Row(work, "us CPU per line", cpu_per_line(run, repeats), budget=budget))

    for kind, line in LINES.items():
        block = block_of(line, BLOCK_BYTES)
        info = json_file_info(directory, {})
        add(
            f"json-file, encode and append, {kind}",
            lambda info=info, block=block: append_run(lambda: driver.journal(info), directory, block, blocks),
            BUDGET_PLAIN if kind == "plain" else None,
        )
    plain = block_of(LINES["plain"], BLOCK_BYTES)
    single = block_of(LINES["plain"], 1)
    rotating = json_file_info(directory, {"max-size": "10m", "max-file": "3", "compress": "true"})
    info = json_file_info(directory, {})
    add("json-file, rotating and compressing, plain",
        lambda: append_run(lambda: driver.journal(rotating), directory, plain, blocks))  # fmt: skip
    add("json-file, blocks of one line",
        lambda: append_run(lambda: driver.journal(info), directory, single, blocks * 10))  # fmt: skip
    append_run(lambda: driver.journal(info), directory, plain, blocks)
    add("json-file, read", lambda: read_run(driver.reader(info)))
    records = codec.Encoder().encode(plain)
    add("json-file, messages cut out of records", lambda: len(codec.messages(records)))
    add("json-file, records decoded", lambda: len(codec.decode(records)))
    add(
        "segments, append, plain",
        lambda: append_run(lambda: SegmentJournal(directory), directory, plain, blocks),
    )
    add("segments, blocks of one line",
        lambda: append_run(lambda: SegmentJournal(directory), directory, single, blocks * 10))  # fmt: skip
    append_run(lambda: SegmentJournal(directory), directory, plain, blocks)
    add("segments, read", lambda: read_run(SegmentReader(directory)))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="runs of each, of which the best counts")
    parser.add_argument("--blocks", type=int, default=400, help="blocks of 64 KiB in a run")
    parser.add_argument("--directory", type=Path, help="where to write (default: a temporary directory)")
    options = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="taffrail-bench-", dir=options.directory))
    try:
        print_table(measure(root / "log", options.repeats, options.blocks))
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
