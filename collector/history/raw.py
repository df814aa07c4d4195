"""A growing window: a file that one frame is appended to at each step.

Opened again after a crash it is cut behind its last whole frame; what was cut or passed over is told.
"""

from __future__ import annotations

import logging
import mmap
import os
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from collector.history.rows import (
    HEADER_BYTES,
    ROW_BYTES,
    Definition,
    Frame,
    Packed,
    as_array,
    decode_definitions,
    encode_frame,
    numbers,
    parse_header,
    payload_fits,
    times,
)
from collector.history.window_files import write_frame

if TYPE_CHECKING:
    from collector.history.rows import Rows

__all__ = ["RawWindow"]

log = logging.getLogger(__name__)


class RawWindow:
    """One file being written. Not safe for several threads: its tier has a lock."""

    def __init__(self, path: Path, sequence: int) -> None:
        """Open or create it, repaired. Raises OSError."""
        self.path = path
        self.sequence = sequence
        self.frames: list[Frame] = []
        self._bounds: list[tuple[int, int]] = []  # times of the oldest and newest row of each
        self.definitions: dict[int, Definition] = {}
        self.first_us = 0  #: time of the oldest row, of the newest; 0 without rows
        self.last_us = 0
        self.torn_bytes = 0  #: cut off the end when it was opened
        self.damaged_frames = 0  #: passed over within it
        self.rows = 0
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            self._end = self._scan(os.fstat(self._fd).st_size)
            os.ftruncate(self._fd, self._end)
        except BaseException:
            os.close(self._fd)
            raise

    @property
    def bytes(self) -> int:
        """Bytes on disk."""
        return self._end

    @property
    def last_number(self) -> int:
        """The highest number defined here."""
        return max(self.definitions, default=0)

    def append(self, step_us: int, rows: Packed, definitions: Sequence[Definition]) -> None:
        """Write a frame of packed rows. Raises OSError, and then nothing of it stays."""
        data = encode_frame(step_us, rows, definitions)
        end = write_frame(self._fd, data, self._end)
        frame = parse_header(data[:HEADER_BYTES], self._end)
        assert frame is not None
        self._note(frame, rows, definitions)
        self._end = end

    def series(self, wanted: Sequence[int], since_us: int, until_us: int) -> Rows:
        """The rows of these containers with times within the range, in the order written."""
        import numpy as np

        found = []
        for packed in self.between(since_us, until_us):
            rows = as_array(packed)
            for number in wanted:
                low, high = np.searchsorted(rows["number"], [number, number + 1])
                if low < high:
                    found.append(rows[low:high])
        return np.concatenate(found) if found else as_array(b"")

    def between(self, since_us: int, until_us: int) -> Iterator[Packed]:
        """The packed rows of whole frames with times within the range, in the order written."""
        for frame, (low, high) in zip(self.frames, self._bounds, strict=True):
            if high >= since_us and low <= until_us:
                yield os.pread(self._fd, frame.rows * ROW_BYTES, frame.offset)

    def spans(self) -> list[tuple[Definition, int, int]]:
        """Every container with rows here, with the times of its oldest and its newest. Raises OSError."""
        import numpy as np

        known = np.array(sorted(self.definitions), "u4")
        oldest = np.full(len(known), np.iinfo(np.int64).max)
        newest = np.full(len(known), -1)
        for packed in self.between(self.first_us, self.last_us) if len(known) else ():
            rows = as_array(packed)
            places = np.minimum(np.searchsorted(known, rows["number"]), len(known) - 1)
            defined = known[places] == rows["number"]  # else the step that said whose they are is damaged
            np.minimum.at(oldest, places[defined], rows["time_us"][defined])
            np.maximum.at(newest, places[defined], rows["time_us"][defined])
        found = zip(known.tolist(), oldest.tolist(), newest.tolist(), strict=True)
        return [(self.definitions[number], first, last) for number, first, last in found if last >= 0]

    def grouped(self, size: int) -> Iterator[tuple[Definition, Packed]]:
        """Every container with all its packed rows, ``size`` containers held in memory at a time."""
        known = sorted(self.definitions) if self.frames else []
        whole = mmap.mmap(self._fd, self._end, prot=mmap.PROT_READ) if known else b""
        for start in range(0, len(known), size):
            group: dict[int, bytearray] = {number: bytearray() for number in known[start : start + size]}
            first, behind = known[start], next(reversed(group)) + 1
            for frame in self.frames:
                packed = _part(whole, frame, first, behind)
                for index, number in enumerate(numbers(packed)):
                    group[number] += packed[index * ROW_BYTES : (index + 1) * ROW_BYTES]
            yield from ((self.definitions[number], rows) for number, rows in group.items() if rows)

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._fd)

    def _scan(self, size: int) -> int:
        """Find every whole frame; the answer is where the last one ends."""
        at = good = 0
        pending = 0
        while at < size:
            frame = parse_header(os.pread(self._fd, HEADER_BYTES, at), at)
            if frame is None or frame.end > size:
                break
            payload = os.pread(self._fd, frame.end - frame.offset, frame.offset)
            at = frame.end
            if not payload_fits(frame, payload):
                pending += 1
                continue
            rows, extra = payload[: frame.rows * ROW_BYTES], payload[frame.rows * ROW_BYTES :]
            self._note(frame, rows, decode_definitions(extra))
            self.damaged_frames += pending
            pending = 0
            good = at
        self.torn_bytes = size - good
        if self.torn_bytes or self.damaged_frames:
            log.warning(
                "%s: cut %d bytes of an unfinished write, passed over %d damaged steps",
                self.path,
                self.torn_bytes,
                self.damaged_frames,
            )
        return good

    def _note(self, frame: Frame, rows: Packed, definitions: Sequence[Definition]) -> None:
        low = high = frame.step_us
        if rows:
            when = times(rows)
            low, high = min(when), max(when)
            self.first_us = min(self.first_us or low, low)
            self.last_us = max(self.last_us, high)
        self.frames.append(frame)
        self._bounds.append((low, high))
        self.definitions.update((one.number, one) for one in definitions)
        self.rows += frame.rows


def _part(whole: mmap.mmap | bytes, frame: Frame, first: int, behind: int) -> bytes:
    """A frame's packed rows with numbers from ``first`` on and below ``behind``; they are ordered by number."""

    def number(index: int) -> int:
        at = frame.offset + index * ROW_BYTES
        return int.from_bytes(whole[at : at + 4], "little")

    low = bisect_left(range(frame.rows), first, key=number)
    high = bisect_left(range(frame.rows), behind, low, key=number)
    return whole[frame.offset + low * ROW_BYTES : frame.offset + high * ROW_BYTES]
