"""Any part of a line, and what is almost one, is found where a plain scan of the lines finds it."""

import random
import re
import sys
from pathlib import Path

from collector.query import Query, Regex, Text

sys.path.insert(0, str(Path(__file__).parents[1]))
from store_blocks import NOW, json_block, lines_block, open_store, source

LINES = 6_000


def some_line(rng: random.Random) -> bytes:
    return rng.choice(
        (
            b'10.0.%d.%d "GET /items/%d?id=%d HTTP/1.1" 200 %d',
            b"order %d: user %d paid %d.%02d, took %d ms",
            b"worker %d.%d[%d]: lease %d of shard %d ended",
        )
    ) % tuple(rng.randrange(10 ** rng.randrange(1, 6)) for _ in range(5))


def test_any_part_of_a_line_is_found_where_a_plain_scan_finds_it(tmp_path: Path) -> None:
    rng = random.Random(4711)
    store = open_store(tmp_path, segment_bytes=400_000)
    lines: list[bytes] = []
    while len(lines) < LINES:
        some = [some_line(rng) for _ in range(100)]
        times = list(range(NOW + len(lines), NOW + len(lines) + 100))
        store.append(source(), json_block(some, times) if rng.random() < 0.7 else lines_block(some, times[0]))
        lines += some
        if len(lines) % 1500 == 0:
            store.maintain()
    counters = store.counters()
    assert counters.sealed_segments
    assert counters.raw_segments
    found: set[int] = set()
    for number in range(120):
        line = rng.choice(lines)
        at = rng.randrange(len(line))
        part = line[at : at + rng.randrange(1, 16)]
        if number % 3 == 0:  # most of these are nowhere
            part += b"%d" % rng.randrange(1000)
        wanted = part.decode()
        hits = store.search(Query(wanted, Text(wanted)), 0, NOW * 2, LINES)
        expected = {n for n, one in enumerate(lines) if part.lower() in one.lower()}
        assert {hit.line_number for hit in hits} == expected, wanted
        found |= expected
    for pattern in (r"[rd] [0-9]{3}[:.]", r"[q-z] [0-9]{5}[,:] ", r"[xyz][0-9]{2}[qj]"):
        hits = store.search(Query(pattern, Regex(pattern, False)), 0, NOW * 2, LINES)
        expected = {n for n, one in enumerate(lines) if re.search(pattern.encode(), one)}
        assert {hit.line_number for hit in hits} == expected, pattern
        found |= expected
    assert found
    store.close()
