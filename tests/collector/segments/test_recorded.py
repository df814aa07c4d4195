"""Segments that an earlier build wrote, kept as files beside this one, are read and searched as ever.

``recorded.raw`` and ``recorded.sealed`` hold what ``recorded_blocks`` makes, appended and sealed by the build
of 2026-11-21 before sealing was made faster.
"""

import random
import sys
from pathlib import Path

import pytest

from collector.query import parse
from collector.search import search
from collector.segments.raw import RawSegment
from collector.segments.sealed import SealedSegment
from collector.segments.windows import RawView, SealedView
from logdrivers.block import Block

sys.path.insert(0, str(Path(__file__).parents[1]))
from store_blocks import NOW, json_block, lines_block, piece_block, source, texts

HERE = Path(__file__).parent
SOURCES = {1: source("web"), 2: source("db")}


def recorded_blocks() -> list[tuple[int, Block]]:
    """Number of the source and block, in the order they were appended."""
    rng = random.Random(17)
    made: list[tuple[int, Block]] = []
    for at in range(0, 60, 10):
        lines = [
            b'GET /items/%d HTTP/1.1 "200" id=%d' % (n, rng.randrange(10**5)) for n in range(at, at + 10)
        ]
        made.append((1, json_block(lines, [NOW + n * 1000 for n in range(at, at + 10)])))
        made.append((2, lines_block([b"Checkpoint %d took %dms \xc3\xa9" % (at, at * 7)], NOW + at * 1000)))
    made.append((1, json_block([b"slow query"], [NOW + 60_000], {"team": "orders"})))
    made.append((2, piece_block(b"a piece of a longer line", 1, False, NOW + 61_000)))
    return made


@pytest.fixture(params=["raw", "sealed"])
def recorded(request: pytest.FixtureRequest, tmp_path: Path) -> RawView | SealedView:
    path = tmp_path / f"{1:016d}.{request.param}"
    path.write_bytes((HERE / f"recorded.{request.param}").read_bytes())
    if request.param == "raw":
        return RawView(RawSegment.open(path, newest=False))
    return SealedView(SealedSegment(path))


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("*", b""),
        ("checkpoint", b"Checkpoint"),
        ('"/items/47 HTTP"', b"/items/47 HTTP"),
        ("team:orders", b"slow query"),
        ('"a longer line"', b"longer line"),
        ("/took [0-9]{3}ms/", b"0ms \xc3\xa9"),
    ],
)
def test_what_an_earlier_build_stored_is_found(
    recorded: RawView | SealedView, query: str, wanted: bytes
) -> None:
    expected = sorted(
        (time_ns, number, text)
        for number, block in recorded_blocks()
        for text, time_ns in texts(block)
        if wanted in text and (query[0] != "/" or len(text.split(b" ")[3]) == 5)
    )
    hits = search([recorded], SOURCES, parse(query), 0, NOW * 2, 1000, newest_first=False)
    assert [(hit.time_ns, hit.source_number, hit.line) for hit in hits] == expected
    assert expected
