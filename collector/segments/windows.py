"""Searching a raw segment: neighbouring frames are read together and regrouped into a chunk per source."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np

from collector.search import Plan, Plans, Unit
from collector.segments.chunk import Chunk, Layout, Row
from collector.segments.frames import Corrupt, Frame, FrameArray, decode_extra, frames
from collector.segments.raw import RawSegment
from logdrivers.block import Encoding

__all__ = ["RawView", "chunk_of"]

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
