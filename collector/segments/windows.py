"""Segments as a search sees them.

Of a raw one, neighbouring frames are read together and regrouped into a chunk per source; of a sealed one,
the chunks whose filters do not rule the query's literals out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from collector import grams
from collector.needs import Clause
from collector.search import Plan, Plans, Unit
from collector.segments.chunk import Chunk, Layout, Row
from collector.segments.frames import Corrupt, Frame, decode_extra, frames
from collector.segments.raw import RawSegment
from collector.segments.sealed import Entry, SealedSegment
from logdrivers.block import Encoding

if TYPE_CHECKING:
    from collector.segments.frames import FrameArray

__all__ = ["RawView", "SealedView", "chunk_of"]

_WINDOW_BYTES: Final = 256 * 1024
_WINDOW_FRAMES: Final = 512


class RawView:
    """A raw segment as a search sees it."""

    def __init__(self, segment: RawSegment) -> None:
        self._segment = segment

    @property
    def first_ns(self) -> int | None:
        """Lowest time of its lines."""
        return self._segment.first_ns

    @property
    def last_ns(self) -> int | None:
        """Highest time of its lines."""
        return self._segment.last_ns

    def units(self, since_ns: int, until_ns: int, plans: Plans) -> Sequence[Unit]:
        """Windows of frames that can hold matching lines."""
        array = self._segment.headers()
        array = array[(array["lines"] > 0) & (array["last_ns"] >= since_ns) & (array["first_ns"] < until_ns)]
        by_plan: dict[Plan, list[int]] = {}
        for source in np.unique(array["source"]).tolist():
            plan = plans(source)
            if plan is not None:
                by_plan.setdefault(plan, []).append(source)
        found: list[Unit] = []
        for plan, sources in by_plan.items():
            found += _windows(array[np.isin(array["source"], sources)], plan)
        return found

    def load(self, unit: Unit) -> Sequence[tuple[Chunk, Plan]]:
        """The frames of a window, a chunk per source."""
        assert isinstance(unit.key, np.ndarray)
        wanted = frames(unit.key)
        groups: dict[tuple[int, int], list[tuple[Frame, bytes, bytes]]] = {}
        for frame, content in zip(wanted, self._segment.read_many(wanted), strict=True):
            if not isinstance(content, Corrupt):
                groups.setdefault((frame.source, frame.encoding), []).append((frame, *content))
        return [
            (chunk_of(source, Encoding(encoding), group), unit.plan)
            for (source, encoding), group in groups.items()
        ]


def _windows(array: FrameArray, plan: Plan) -> list[Unit]:
    window = np.cumsum(array["raw_bytes"], dtype=np.int64) // _WINDOW_BYTES
    window += np.arange(len(array)) // _WINDOW_FRAMES
    starts = np.flatnonzero(np.diff(window, prepend=-1))
    first = np.minimum.reduceat(array["first_ns"], starts).tolist()
    last = np.maximum.reduceat(array["last_ns"], starts).tolist()
    ends = [*starts[1:].tolist(), len(array)]
    return [
        Unit(first_ns, last_ns, array[start:end], plan)
        for first_ns, last_ns, start, end in zip(first, last, starts.tolist(), ends, strict=True)
    ]


def chunk_of(source: int, encoding: Encoding, group: Iterable[tuple[Frame, bytes, bytes]]) -> Chunk:
    """Frames of one source and encoding (with their extra parts and data) as one chunk."""
    rows, parts = [], []
    for frame, extra, data in group:
        partial = decode_extra(extra).partial if extra else None
        ordinal = partial.ordinal if partial is not None else 0
        rows.append(Row(frame.first_line, frame.lines, frame.first_ns, frame.last_ns, frame.stream, ordinal))
        parts.append(data)
        if partial is not None:
            parts.append(b"\n")
    text = b"".join(parts)
    layout = Layout.LINES if encoding is Encoding.LINES else Layout.RECORDS
    return Chunk(source, layout, rows, text[:-1])


class SealedView:
    """A sealed segment as a search sees it."""

    def __init__(self, segment: SealedSegment) -> None:
        self._segment = segment

    @property
    def first_ns(self) -> int | None:
        """Lowest time of its lines."""
        return self._segment.first_ns

    @property
    def last_ns(self) -> int | None:
        """Highest time of its lines."""
        return self._segment.last_ns

    def units(self, since_ns: int, until_ns: int, plans: Plans) -> Sequence[Unit]:
        """Chunks that can hold matching lines."""
        try:
            entries = self._segment.entries()
        except Corrupt:  # counted by the segment
            return []
        entries = entries[(entries["last_ns"] >= since_ns) & (entries["first_ns"] < until_ns)]
        by_plan: dict[Plan, list[int]] = {}
        for source in np.unique(entries["source"]).tolist():
            plan = plans(source)
            if plan is not None:
                by_plan.setdefault(plan, []).append(source)
        found: list[Unit] = []
        for plan, sources in by_plan.items():
            mine = entries[np.isin(entries["source"], sources)]
            for row in self._possible(mine, plan.clauses).tolist():
                entry = Entry._make(row)
                found.append(Unit(entry.first_ns, entry.last_ns, entry, plan))
        return found

    def load(self, unit: Unit) -> Sequence[tuple[Chunk, Plan]]:
        """The chunk."""
        assert isinstance(unit.key, Entry)
        try:
            return [(self._segment.chunk(unit.key), unit.plan)]
        except Corrupt:
            return []

    def _possible(self, entries: FrameArray, clauses: Iterable[Clause]) -> FrameArray:
        """Without the entries whose filter lacks all literals of a clause."""
        wanted = [[grams.hashes(literal) for literal in clause.literals] for clause in clauses]
        wanted = [literals for literals in wanted if all(map(len, literals))]
        if not wanted or not len(entries):
            return entries
        offsets = entries["filter_offset"].astype(np.int64)
        start, end = int(offsets.min()), int(offsets.max()) + (1 << grams.MAX_LOG2) // 8
        region = self._segment.filters(start, end)
        offsets -= start
        log2s = entries["filter_log2"]
        absent = np.zeros(len(entries), np.bool_)
        for literals in wanted:
            absent |= np.logical_and.reduce(
                [grams.missing(region, offsets, log2s, literal) for literal in literals]
            )
        return entries[~absent]
