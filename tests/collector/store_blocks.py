"""Blocks and sources for the store's tests, and what is in them as a plain list."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path

from collector.sink import Source, StoredBlock
from collector.store import Store
from logdrivers.block import Block, Encoding, Partial, Stream
from logdrivers.codecs import json_file

NOW = 1_714_557_600_000_000_000


def source(name: str = "web", **more: object) -> Source:
    values = {"container_id": (name * 64)[:64], "image": "nginx:1.25", "host": "h1", "input": "json-file"}
    return Source(**{"container_name": name, **values, **more})  # type: ignore[arg-type]


def lines_block(lines: list[bytes], time_ns: int = NOW, stream: Stream = Stream.STDOUT) -> Block:
    return Block(
        b"".join(line + b"\n" for line in lines), Encoding.LINES, stream, time_ns, time_ns, len(lines)
    )


def json_block(lines: list[bytes], times: list[int], attrs: dict[str, str] | None = None) -> Block:
    encoder = json_file.Encoder(attrs)
    data = b"".join(
        encoder.encode(lines_block([line], time_ns)) for line, time_ns in zip(lines, times, strict=True)
    )
    return Block(data, Encoding.JSON_FILE, Stream.STDOUT, min(times), max(times), len(lines))


def piece_block(text: bytes, ordinal: int, last: bool, time_ns: int = NOW) -> Block:
    partial = Partial("a" * 64, ordinal, last)
    return Block(text, Encoding.LINES, Stream.STDERR, time_ns, time_ns, 1, partial)


@dataclass
class Model:
    """What a store should hold: for each source its lines, numbered from the first."""

    lines: dict[str, list[tuple[bytes, int]]] = field(default_factory=dict)

    def add(self, name: str, block: Block) -> None:
        mine = self.lines.setdefault(name, [])
        mine += texts(block)


def texts(block: Block) -> list[tuple[bytes, int]]:
    """Line and time of each line of a block."""
    if block.encoding is Encoding.JSON_FILE:
        return [(record.log.removesuffix(b"\n"), record.time_ns) for record in json_file.decode(block.data)]
    data = block.data if block.partial is not None else block.data[:-1]
    return [(line, block.first_ns) for line in ([data] if block.partial else data.split(b"\n"))]


def numbered(stored: list[StoredBlock]) -> dict[tuple[str, int], bytes]:
    """Every line of some blocks by source and number; a number twice is an error."""
    found: dict[tuple[str, int], bytes] = {}
    for one in stored:
        for index, (text, _) in enumerate(texts(one.block)):
            key = (one.source.container_name, one.first_line + index)
            assert key not in found
            found[key] = text
    return found


def read_all(store: Store, name: str = "all", max_bytes: int = 4096) -> list[StoredBlock]:
    """Everything behind a cursor, committed."""
    cursor = store.cursor(name)
    found: list[StoredBlock] = []
    while (batch := cursor.next(max_bytes)).blocks:
        found += batch.blocks
        cursor.commit(batch.token)
    return found


WORDS = [
    "timed",
    "out",
    "GET",
    "healthz",
    "Error",
    "login",
    "é",
    '"q"',
    "<b>",
    "tab\there",
    "back\\slash",
    "200",
]


def random_block(rng: random.Random, time_ns: int) -> Block:
    """One of every kind of block."""
    kind = rng.randrange(10)
    count = rng.randrange(1, 12)
    lines = [
        " ".join(rng.choice(WORDS) for _ in range(rng.randrange(0, 8))).encode()
        + b" %d" % rng.randrange(1000)
        for _ in range(count)
    ]
    if kind < 4:
        return lines_block(lines, time_ns, rng.choice([Stream.STDOUT, Stream.STDERR]))
    if kind == 4:
        return piece_block(lines[0], rng.randrange(1, 5), rng.random() < 0.5, time_ns)
    times = [time_ns + rng.randrange(0, 5_000) for _ in lines]
    attrs = {"level": str(rng.randrange(8)), "team": "a b"} if kind == 5 else None
    return json_block(lines, times, attrs)


def open_store(directory: Path, **options: object) -> Store:
    """Without a background thread and with small segments."""
    values: dict[str, object] = {"background": False, "segment_bytes": 4096, **options}
    return Store(directory, **values)  # type: ignore[arg-type]


def balance(store: Store) -> None:
    """Every line written is held, was removed for a cause, or is corrupt."""
    counters = store.counters()
    assert counters.written_lines == (
        counters.held_lines + sum(counters.removed_lines.values()) + counters.corrupt_lines
    )
