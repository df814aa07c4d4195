"""Giving a cursor the blocks behind its place, from either form of a segment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from collector.cursor import Position, Taken
from collector.segments.chunk import JOINER, OPENER, Layout, Row
from collector.segments.frames import Corrupt, Frame, decode_block, frames
from collector.segments.raw import RawSegment
from collector.segments.sealed import Entry, SealedSegment
from collector.sink import Source, StoredBlock
from logdrivers.block import Block, Encoding, Stream

if TYPE_CHECKING:
    from collector.segments.frames import FrameArray

__all__ = ["ahead", "merge", "take"]


def take(
    segment: RawSegment | SealedSegment, position: Position, max_bytes: int, sources: Mapping[int, Source]
) -> Taken:
    """Blocks from a position on, about ``max_bytes`` and at least one; what is damaged is left out.

    No blocks means the end of the segment, for now or for good.
    """
    if isinstance(segment, RawSegment):
        return _take_raw(segment, position, max_bytes, sources)
    return _take_sealed(segment, position, max_bytes, sources)


def ahead(segment: RawSegment | SealedSegment, position: Position) -> tuple[int, int]:
    """Lines and bytes of the segment behind a position."""
    if isinstance(segment, RawSegment):
        array = segment.from_ordinal(position.frame)
        return int(array["lines"].sum()), int(array["raw_bytes"].sum())
    entries, left = _left(segment, position)
    raw_bytes = entries["raw_bytes"] * (left / np.maximum(entries["lines"], 1))
    return int(left.sum()), int(raw_bytes.sum())


def _take_raw(
    segment: RawSegment, position: Position, max_bytes: int, sources: Mapping[int, Source]
) -> Taken:
    array = segment.from_ordinal(position.frame)
    while len(array):
        taken = _take_frames(segment, array, max_bytes, sources)
        if taken.blocks:
            return taken
        position = taken.end
        array = segment.from_ordinal(position.frame)
    return Taken([], position)


def _take_frames(
    segment: RawSegment, array: FrameArray, max_bytes: int, sources: Mapping[int, Source]
) -> Taken:
    reached = np.cumsum(array["raw_bytes"], dtype=np.int64)
    wanted = frames(array[: int(np.searchsorted(reached, max_bytes)) + 1])
    found: list[tuple[Frame, Block]] = []
    for frame, content in zip(wanted, segment.read_many(wanted), strict=True):
        if frame.lines and not isinstance(content, Corrupt):
            found.append((frame, decode_block(frame, *content)))
    end = Position(segment.number, wanted[-1].ordinal + 1)
    return Taken(merge(found, sources), end)


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


# --- the sealed form ---


def _left(segment: SealedSegment, position: Position) -> tuple[FrameArray, npt.NDArray[np.int64]]:
    """Entries from the position's chunk on, and how many lines of each are behind the position.

    Lines the cursor had from the raw form are the first of a source: the ledger says how many.
    """
    entries = segment.entries()[position.chunk :]
    left = entries["lines"].astype(np.int64)
    for source, end_line in segment.consumed(position.frame).items():
        mine = entries["source"] == source
        first = entries["first_line"][mine].astype(np.int64)
        left[mine] = np.clip(first + left[mine] - end_line, 0, left[mine])
    return entries, left


def _take_sealed(
    segment: SealedSegment, position: Position, max_bytes: int, sources: Mapping[int, Source]
) -> Taken:
    try:
        entries, left = _left(segment, position)
    except Corrupt:  # counted by the segment; none of it can be read
        return Taken([], Position(segment.number, position.frame, position.chunk))
    found: list[StoredBlock] = []
    at = position.chunk
    for row, lines in zip(entries.tolist(), left.tolist(), strict=True):
        if max_bytes <= 0 and found:
            break
        at += 1
        if lines:
            entry = Entry._make(row)
            with suppress(Corrupt):  # counted by the segment
                found += _blocks(segment, entry, entry.lines - lines, sources[entry.source])
            max_bytes -= entry.raw_bytes
    return Taken(found, Position(segment.number, position.frame, at))


def _blocks(segment: SealedSegment, entry: Entry, skip: int, source: Source) -> list[StoredBlock]:
    """The blocks of a chunk without its first ``skip`` lines."""
    rows, partials = segment.rows(entry)
    chunk = segment.chunk(entry)
    lines = chunk.split()
    if chunk.layout is not Layout.LINES:
        if chunk.layout is Layout.SPLIT:
            rests = chunk.rests()[skip:]
            parts = [
                part
                for pair in zip(lines[skip:], rests, strict=True)
                for part in (OPENER, pair[0], JOINER, pair[1], b"\n")
            ]
            data = b"".join(parts)
        else:
            data = b"\n".join([*lines[skip:], b""])
        kept = _rows_behind(rows, entry.first_line + skip)
        streams = {row.stream for row in kept}
        block = Block(
            data,
            Encoding.JSON_FILE,
            Stream(streams.pop()) if len(streams) == 1 else Stream.MIXED,
            min(row.first_ns for row in kept),
            max(row.last_ns for row in kept),
            entry.lines - skip,
        )
        return [StoredBlock(block, source, entry.source, entry.first_line + skip)]
    found = []
    for index, (row, start) in enumerate(zip(rows, chunk.starts, strict=True)):
        from_line = max(start, skip)
        count = start + row.lines - from_line
        if count > 0:
            partial = partials.get(index)
            data = b"\n".join(lines[from_line : from_line + count]) + (b"\n" if partial is None else b"")
            block = Block(data, Encoding.LINES, Stream(row.stream), row.first_ns, row.last_ns, count, partial)
            found.append(StoredBlock(block, source, entry.source, entry.first_line + from_line))
    return found


def _rows_behind(rows: Iterable[Row], line: int) -> list[Row]:
    return [row for row in rows if row.first_line + row.lines > line]
