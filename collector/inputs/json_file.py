"""The tail of one container's json-file log, whichever engine writes it.

Whole blocks go to the store as they came, undecoded, and where the tail has got to is stored with each
block, so that after kill -9 every record is in exactly once. Rotation, truncation and damage are followed
and counted here; when to read, and whose log it is, are decided by ``tails.py``.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from collector.inputs.intake import Intake
from collector.inputs.json_records import Checked, check, repair
from collector.inputs.log_files import (
    Generation,
    GzipGeneration,
    PlainGeneration,
    follows_at_once,
    open_generations,
    same_start,
)
from collector.inputs.losses import Loss, TailCounters
from collector.inputs.place import MARK_SIZE, Place
from collector.sink import Source
from logdrivers.block import Block, Encoding, Stream
from logdrivers.codecs import json_file as codec

__all__ = ["JsonFileTail"]

log = logging.getLogger(__name__)

_LARGEST_RECORD = 16 << 20
_MOST_OPEN = 32


class JsonFileTail:
    """Reads one log from its checkpoint on. Not thread-safe; ``turn`` never waits."""

    format = "json-file"  #: what the file's lines are, for messages

    def __init__(
        self,
        path: Path,
        key: str,
        source: Source,
        intake: Intake,
        block_bytes: int = 1 << 18,
        user: int = 0,
    ) -> None:
        self.path = path
        self.user = user  #: see LogSource
        self.source = source  #: may be replaced when the container is renamed
        self.counters = TailCounters()
        self._key = key
        self._intake = intake
        self._block_bytes = block_bytes
        self._read_bytes = block_bytes  # grows while a record is longer than a block
        self._generations: deque[Generation] = deque()  # to be read, oldest first
        self._offset = 0
        self._mark = b""
        self._time_ns = 0
        self._seen = 0  # bytes the file had when more of it was known to be there
        self._unmarked: list[Loss] = []  # what is missing at the offset, and not yet said so in the store
        self._damaged: Generation | None = None  # the last one that ended before its end
        self._before: dict[int, Loss] = {}  # what is missing before a file that is not begun, by its inode
        self._resumed = False

    def turn(self) -> bool:
        """Read and store at most one block. Returns whether more may be there.

        Raises OSError when the log cannot be read or the store cannot take the block; nothing is lost and
        the next turn tries the same again.
        """
        if not self._resumed and not self._resume():
            return False
        self._find_newer()
        generation = self._generations[0]
        self._mark_losses()
        data = generation.read(self._offset - len(self._mark), len(self._mark) + self._read_bytes)
        if not data.startswith(self._mark):
            self._follow_truncation(generation)
            return True
        rest = len(data) - len(self._mark)
        if rest == self._read_bytes:
            self._seen = generation.size()
        cut = data.rfind(b"\n") + 1
        if cut > len(self._mark):
            self._read_bytes = self._block_bytes
            self._store(generation, data, cut)
            return True
        if rest == self._read_bytes:
            self._grow(data)
            return True
        if len(self._generations) == 1:
            return False
        self._end_generation(generation, data)
        return True

    def lag_bytes(self) -> int:
        """Bytes in the open files that are not stored yet."""
        waiting = sum(generation.size() for generation in self._generations)
        return max(0, waiting - self._offset)

    def close(self, removed: bool = False) -> None:
        """Close the files. What was not stored is read by the next tail with the same key.

        ``removed`` says that there will be none, because the engine deletes the log: what is unread is
        counted as lost.
        """
        if removed and (unread := self.lag_bytes()):
            self._lose("removed", 0, unread)
        try:
            self._mark_losses()
        except OSError as error:
            log.error("marking in the store what is missing of %s: %s", self.path, error)
        while self._generations:
            self._generations.popleft().close()
        self._resumed = False

    # --- reading -------------------------------------------------------------------------------------

    def _store(self, generation: Generation, data: bytes, cut: int) -> None:
        start = len(self._mark)
        chunk = data[start:cut]
        checked, times = self._records(chunk)
        end = self._offset - start + cut
        mark = data[max(0, cut - MARK_SIZE) : cut]
        if checked.lines:
            last = times[1]
            block = Block(
                checked.data, Encoding.JSON_FILE, Stream.MIXED, min(times), max(times), checked.lines
            )
            place = Place.of(generation.inode, end, mark, last)
            self._intake.append(self.source, block, (self._key, place.dump()))
            self._time_ns = last
        self._offset, self._mark = end, mark
        self.counters.lines += checked.lines
        self.counters.bytes += len(checked.data)
        if checked.skipped:
            self._lose("invalid", checked.skipped, checked.skipped_bytes)
            log.error(
                "reading %s before offset %d: %d bytes are no %s records, skipped",
                generation.path,
                end,
                checked.skipped_bytes,
                self.format,
            )

    def _records(self, chunk: bytes) -> tuple[Checked, tuple[int, int]]:
        """Whole lines as json-file records, and the times of the first and the last."""
        checked = check(chunk)
        try:
            return checked, _times(checked.data)
        except ValueError:
            checked = repair(chunk)
            return checked, _times(checked.data)

    def _open_generations(self, known: int | None = None, limit: int = 64) -> tuple[list[Generation], bool]:
        """``log_files.open_generations`` of this log."""
        return open_generations(self.path, known, limit, self.user)

    def _time_of_last(self, records: bytes) -> int:
        """Time of the last of some lines as they are in the file. Raises ValueError."""
        return codec.last_time(records)

    def _grow(self, data: bytes) -> None:
        """Make room for a record longer than a block; give up on one beyond all measure."""
        if self._read_bytes < _LARGEST_RECORD:
            self._read_bytes *= 2
            return
        self._lose("oversized", 1, self._read_bytes)
        log.error(
            "reading %s at offset %d: no record ends within %d bytes, skipped",
            self.path,
            self._offset,
            self._read_bytes,
        )
        self._offset += self._read_bytes
        self._mark = data[-MARK_SIZE:]

    def _end_generation(self, generation: Generation, data: bytes) -> None:
        """Note what is missing at the end of a file, a turn later go on to the next one."""
        rest = len(data) - len(self._mark)
        if generation.damage and generation is not self._damaged:
            self._damaged = generation
            self._lose("damaged", 0, rest)
            log.error("reading %s stopped at byte %d: %s", generation.path, self._offset, generation.damage)
        elif rest:
            self._lose("torn", 1, rest)
            log.error("reading %s: its last record is torn, %d bytes skipped", generation.path, rest)
        if missing := self._before.pop(self._generations[1].inode, None):
            self._unmarked.append(missing)
        if self._unmarked:
            self._offset, self._mark = self._offset + rest, data[-MARK_SIZE:]
            return
        self.counters.rotations += 1
        self._generations.popleft().close()
        self._start_over()

    def _start_over(self) -> None:
        self._offset, self._mark, self._seen = 0, b"", 0

    # --- what is missing -----------------------------------------------------------------------------

    def _lose(self, cause: str, lines: int, size: int) -> None:
        """Count what is missing behind what was stored last, and have it marked there."""
        self.counters.lose(cause, lines, size)
        self._unmarked.append(Loss(cause, lines, size))

    def _mark_losses(self) -> None:
        """Store the markers that are due, before anything that comes behind them. Raises OSError."""
        while self._unmarked:
            checkpoint = None
            if self._generations and b"\n" in self._mark:  # else many files have the same
                place = Place.of(self._generations[0].inode, self._offset, self._mark, self._time_ns)
                checkpoint = self._key, place.dump()
            marker = self._unmarked[0].marker(self._time_ns or time.time_ns())
            self._intake.append(self.source, marker, checkpoint)
            del self._unmarked[0]

    # --- finding files -------------------------------------------------------------------------------

    def _find_newer(self) -> None:
        """Open what rotation has put after the newest generation held, before it can be removed."""
        newest = self._generations[-1]
        if len(self._generations) >= _MOST_OPEN:
            return
        with contextlib.suppress(FileNotFoundError):  # between rename and new file, or removed
            if self.path.stat().st_ino == newest.inode:
                return
        found, met = self._open_generations(newest.inode)
        if not found:
            return
        if not met:
            met = self._drop_held(found)
        if not met:
            follows = follows_at_once(newest, found)
            self._drop_read(found)
            if not follows:
                self._note_unverified()
                self._before[found[0].inode] = Loss("rotated")
        self._generations.extend(found)

    def _drop_held(self, found: list[Generation]) -> bool:
        """Drop what is held already, or older; whether the newest one held is among it."""
        for place in range(len(found) - 1, -1, -1):
            for held in reversed(self._generations):
                compressed = isinstance(found[place], GzipGeneration) and same_start(found[place], held)
                if compressed or found[place].inode == held.inode:
                    _drop(found, place + 1)
                    return held is self._generations[-1]
        return False

    def _resume(self) -> bool:
        generations, _ = self._open_generations()
        if not generations:
            return False
        self._resumed = True
        self._start_over()
        value = self._intake.checkpoint(self._key)
        if value is not None:
            try:
                self._go_to(Place.parse(value), generations)
            except ValueError as error:
                log.error("resuming %s failed, reading it from its start: %s", self.path, error)
        self._generations.extend(generations)
        return True

    def _go_to(self, place: Place, generations: list[Generation]) -> None:
        """Drop the generations before the place, or, if it is gone, those that end before its time."""
        self._time_ns = place.time_ns
        for generation in sorted(generations, key=lambda g: g.inode != place.inode):
            mark = place.mark_in(generation)
            if mark is not None:
                _drop(generations, generations.index(generation))
                self._offset, self._mark = place.offset, mark
                return
        if generations[-1].inode == place.inode:
            self.counters.truncations += 1
            log.warning("%s was truncated while nobody read it", self.path)
            self._lose("truncated", 0, 0)
        else:
            self._note_unverified()
            self._unmarked.append(Loss("rotated"))
        self._drop_read(generations)

    def _follow_truncation(self, generation: Generation) -> None:
        """Go on where the bytes read last are: in a copy made before, else at the file's new start."""
        self.counters.truncations += 1
        log.warning("%s was truncated below offset %d", generation.path, self._offset)
        unread = max(0, self._seen - self._offset)
        if len(self._generations) > 1 or self._offset == 0:
            self._start_over()
            self._lose("truncated", 0, unread)
            return
        place = Place.of(generation.inode, self._offset, self._mark, self._time_ns)
        found, _ = self._open_generations(limit=_MOST_OPEN)
        self._start_over()
        for copy in found:
            mark = place.mark_in(copy)
            if mark is not None:
                self._generations.popleft().close()
                _drop(found, found.index(copy))
                self._offset, self._mark = place.offset, mark
                self._generations.extend(found)
                return
        _drop(found, len(found))
        self._lose("truncated", 0, unread)

    def _drop_read(self, generations: list[Generation]) -> None:
        """Drop leading generations whose last record was stored before; the current file always stays."""
        while len(generations) > 1:
            last = _last_time(generations[0], self._time_of_last)
            if last is None or last > self._time_ns:
                return
            _drop(generations, 1)

    def _note_unverified(self) -> None:
        self.counters.unverified_rotations += 1
        self.counters.lose("rotated", 0, 0)
        log.warning("%s was rotated past the file read last: lines may have been removed unread", self.path)


def _drop(generations: list[Generation], count: int) -> None:
    for generation in generations[:count]:
        generation.close()
    del generations[:count]


def _times(records: bytes) -> tuple[int, int]:
    """Times of the first and the last record; zeros if there is none. Raises ValueError."""
    return (codec.first_time(records), codec.last_time(records)) if records else (0, 0)


def _last_time(generation: Generation, time_of: Callable[[bytes], int]) -> int | None:
    """Time of the last whole record; 0 if there is no record, None if it cannot be told."""
    offset = 0
    tail = b""
    if isinstance(generation, PlainGeneration):
        offset = max(0, generation.size() - (1 << 18))
    while data := generation.read(offset, 1 << 18):
        offset += len(data)
        tail = (tail + data)[-(1 << 18) :]
    records = tail[: tail.rfind(b"\n") + 1]
    try:
        return time_of(records) if records else 0
    except ValueError:
        return None
