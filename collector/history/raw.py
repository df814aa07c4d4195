"""A growing window: a file that one frame is appended to at each step.

Opened again after a crash it is cut behind its last whole frame; what was cut or passed over is told.
"""

from __future__ import annotations

import logging
import mmap
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from collector.history.rows import (
    HEADER_BYTES,
    ROW,
    Definition,
    Frame,
    Rows,
    decode_definitions,
    encode_frame,
    parse_header,
    payload_fits,
)

__all__ = ["RawWindow"]

log = logging.getLogger(__name__)

NONE: Final = np.empty(0, ROW)


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

    def append(self, step_us: int, rows: Rows, definitions: Sequence[Definition]) -> None:
        """Write a frame. Raises OSError, and then nothing of it stays."""
        data = encode_frame(step_us, rows, definitions)
        view = memoryview(data)
        at = self._end
        try:
            while view:
                written = os.pwrite(self._fd, view, at)
                at += written
                view = view[written:]
        except OSError:
            os.ftruncate(self._fd, self._end)
            raise
        frame = parse_header(data[:HEADER_BYTES], self._end)
        assert frame is not None
        self._note(frame, rows, definitions)
        self._end = at

    def series(self, numbers: Sequence[int], since_us: int, until_us: int) -> Rows:
        """The rows of these containers with times within the range, in the order written."""
        found = []
        for _, rows in self._each(since_us, until_us):
            for number in numbers:
                low, high = np.searchsorted(rows["number"], [number, number + 1])
                if low < high:
                    found.append(rows[low:high].copy())
        return np.concatenate(found) if found else NONE

    def between(self, since_us: int, until_us: int) -> list[tuple[Frame, Rows]]:
        """Whole frames with times within the range, in the order written."""
        return [(frame, rows.copy()) for frame, rows in self._each(since_us, until_us)]

    def grouped(self, size: int) -> Iterator[tuple[Definition, Rows]]:
        """Every container with all its rows, ``size`` containers held in memory at a time."""
        numbers = sorted(self.definitions)
        for start in range(0, len(numbers), size):
            group = numbers[start : start + size]
            parts = []
            for _, rows in self._each(None, None):
                low, high = np.searchsorted(rows["number"], [group[0], group[-1] + 1])
                if low < high:
                    parts.append(rows[low:high].copy())
            if not parts:
                continue
            together = np.concatenate(parts)
            together = together[np.argsort(together["number"], kind="stable")]
            bounds = np.searchsorted(together["number"], [*group, group[-1] + 1])
            for index, number in enumerate(group):
                if bounds[index] < bounds[index + 1]:
                    yield self.definitions[number], together[bounds[index] : bounds[index + 1]]

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._fd)

    def _each(self, since_us: int | None, until_us: int | None) -> Iterator[tuple[Frame, Rows]]:
        if not self.frames:
            return
        whole = mmap.mmap(self._fd, self._end, prot=mmap.PROT_READ)
        for frame, (low, high) in zip(self.frames, self._bounds, strict=True):
            if since_us is None or until_us is None or (high >= since_us and low <= until_us):
                yield frame, np.frombuffer(whole, ROW, frame.rows, frame.offset)

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
            rows = np.frombuffer(payload, ROW, frame.rows)
            self._note(frame, rows, decode_definitions(payload[frame.rows * ROW.itemsize :]))
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

    def _note(self, frame: Frame, rows: Rows, definitions: Sequence[Definition]) -> None:
        low = high = frame.step_us
        if len(rows):
            times = rows["time_us"]
            low, high = int(times.min()), int(times.max())
            self.first_us = min(self.first_us or low, low)
            self.last_us = max(self.last_us, high)
        self.frames.append(frame)
        self._bounds.append((low, high))
        self.definitions.update((one.number, one) for one in definitions)
        self.rows += len(rows)
