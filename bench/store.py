"""The store: CPU per line of appending and sealing, size on the disk, cursors; and small blocks.

``python -m bench.store [--lines N]``. The reference in the same run is zstd's level 3 on the same blocks:
how fast the machine is at this moment.
"""

from __future__ import annotations

import argparse
import itertools
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import zstandard

from bench.table import Row, print_table
from collector.sink import Source
from collector.store import Store
from logdrivers.block import Block, Encoding, Stream
from logdrivers.codecs import json_file

__all__ = ["access_blocks", "fill", "main"]

WORDS = (  # noqa: SIM905
    "connection request timeout user login failed order payment upstream healthz cache miss worker queue retry"
    " database commit rollback index stream session token profile basket checkout search static image"
).split()
BLOCK_BYTES = 64 << 10
START_NS = 1_769_850_000_000_000_000


def access_line(rng: random.Random, number: int) -> bytes:
    """A web server's line of about 100 bytes."""
    return (
        b'10.0.%d.%d - - [31/Jan/2026:09:%02d:%02d +0000] "GET /%s/%s?id=%d HTTP/1.1" %d %d "-" "curl/8"'
        % (
            rng.randrange(256),
            rng.randrange(256),
            number // 6000 % 60,
            number // 100 % 60,
            rng.choice(WORDS).encode(),
            rng.choice(WORDS).encode(),
            rng.randrange(100_000),
            404 if rng.random() < 0.05 else 200,
            rng.randrange(20_000),
        )
    )


def access_blocks(lines: int, seed: int = 1) -> Iterator[Block]:
    """json-file blocks of 64 KiB, as a tail of Docker's file brings them."""
    rng, encoder = random.Random(seed), json_file.Encoder()
    records: list[bytes] = []
    size, time_ns, first_ns = 0, START_NS, START_NS
    for number in range(lines):
        time_ns += rng.randrange(20_000, 200_000)
        line = access_line(rng, number) + b"\n"
        record = encoder.encode(Block(line, Encoding.LINES, Stream.STDOUT, time_ns, time_ns, 1))
        first_ns = first_ns or time_ns
        records.append(record)
        size += len(record)
        if size >= BLOCK_BYTES or number == lines - 1:
            data = b"".join(records)
            yield Block(data, Encoding.JSON_FILE, Stream.STDOUT, first_ns, time_ns, len(records))
            records, size, first_ns = [], 0, 0


def fill(store: Store, blocks: Sequence[Block], containers: int = 1) -> float:
    """Append the blocks; CPU seconds of this thread."""
    sources = [Source(f"{n:064x}", f"web{n}", "nginx:1.25", "host", "json-file") for n in range(containers)]
    started = time.thread_time()
    for number, (block, source) in enumerate(zip(blocks, itertools.cycle(sources), strict=False)):
        store.append(source, block, (source.container_id, b"%d" % number))
    return time.thread_time() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=500_000)
    lines = parser.parse_args().lines
    blocks = list(access_blocks(lines))
    compressor = zstandard.ZstdCompressor(level=3)
    reference = cpu(lambda: [compressor.compress(block.data) for block in blocks]) / lines * 1e6
    directory = Path(tempfile.mkdtemp(prefix="bench-store-", dir="/tmp"))
    store = Store(directory, background=False)
    rows = [Row("zstd level 3 on the same blocks", "µs a line", reference)]
    try:
        append = fill(store, blocks) / lines * 1e6
        rows.append(Row("append", "µs a line", append, "zstd", reference, 0.3))
        store.close()
        store = Store(directory, background=False)
        store._rotate()  # so that all of it is sealed
        sealing = cpu(store.maintain) / lines * 1e6
        rows.append(Row("append and seal", "µs a line", append + sealing, "zstd", reference, 1.3))
        counters = store.counters()
        share = counters.disk_bytes / counters.held_bytes * 100
        plain = sum(len(compressor.compress(block.data)) for block in blocks) / counters.held_bytes * 100
        rows.append(Row("size, share of the json-file", "%", share, "zstd", plain, 20))
        cursor = store.cursor("bench")

        def export() -> None:
            while (batch := cursor.next()).blocks:
                cursor.commit(batch.token)

        rows.append(Row("cursor over sealed segments", "µs a line", cpu(export) / lines * 1e6))
        small = Block(b"x" * 99 + b"\n", Encoding.LINES, Stream.STDOUT, START_NS, START_NS, 1)
        count = 30_000
        each = fill(store, [small] * count, 100) / count * 1e6
        rows.append(Row("append of one line, 100 containers", "µs a block", each, budget=30))
        store._rotate()
        rows.append(Row("sealing those", "µs a block", cpu(store.maintain) / count * 1e6))
    finally:
        store.close()
        shutil.rmtree(directory)
    print_table(rows)


def cpu(work: Callable[[], object]) -> float:
    """CPU seconds of the process."""
    started = time.process_time()
    work()
    return time.process_time() - started


if __name__ == "__main__":
    main()
