"""Giving a cursor the blocks behind its place in a raw segment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from collector.cursor import Position, Taken
from collector.segments.frames import Corrupt, Frame, decode_block, frames
from collector.segments.raw import RawSegment
from collector.sink import Source, StoredBlock
from logdrivers.block import Block, Encoding, Stream

__all__ = ["merge", "raw_ahead", "take_raw"]


def take_raw(segment: RawSegment, position: Position, max_bytes: int, sources: Mapping[int, Source]) -> Taken:
    """Frames from a position on; damaged ones are left out (and counted by the segment)."""
    array = segment.from_ordinal(position.frame)
    if not len(array):
        return Taken([], position)
    reached = np.cumsum(array["raw_bytes"], dtype=np.int64)
    wanted = frames(array[: int(np.searchsorted(reached, max_bytes)) + 1])
    found: list[tuple[Frame, Block]] = []
    for frame, content in zip(wanted, segment.read_many(wanted), strict=True):
        if frame.lines and not isinstance(content, Corrupt):
            found.append((frame, decode_block(frame, *content)))
    end = Position(segment.number, wanted[-1].ordinal + 1)
    return Taken(merge(found, sources), end)


def raw_ahead(segment: RawSegment, position: Position) -> tuple[int, int]:
    """Lines and bytes behind a position."""
    array = segment.from_ordinal(position.frame)
    return int(array["lines"].sum()), int(array["raw_bytes"].sum())


def merge(found: Iterable[tuple[Frame, Block]], sources: Mapping[int, Source]) -> list[StoredBlock]:
    """json-file blocks of a source that follow each other become one; the rest stays as it is.

    The order of a source's lines is kept, that of different sources among each other is not.
    """
    runs: dict[int, list[tuple[int, list[Block]]]] = {}
    for frame, block in found:
        mine = runs.setdefault(frame.source, [])
        if mine and block.encoding is Encoding.JSON_FILE:
            first_line, last = mine[-1]
            lines = sum(one.lines for one in last)
            if last[-1].encoding is Encoding.JSON_FILE and first_line + lines == frame.first_line:
                last.append(block)
                continue
        mine.append((frame.first_line, [block]))
    return [
        StoredBlock(_joined(blocks), sources[source], source, first_line)
        for source, mine in runs.items()
        for first_line, blocks in mine
    ]


def _joined(blocks: list[Block]) -> Block:
    if len(blocks) == 1:
        return blocks[0]
    streams = {block.stream for block in blocks}
    return Block(
        b"".join([block.data for block in blocks]),
        Encoding.JSON_FILE,
        streams.pop() if len(streams) == 1 else Stream.MIXED,
        min(block.first_ns for block in blocks),
        max(block.last_ns for block in blocks),
        sum(block.lines for block in blocks),
    )
