"""The store: every line the host's containers wrote, on disk once, and the spool every exporter reads.

One process owns a directory. Blocks are appended to a raw segment and survive kill -9 when ``append``
returns; a background thread seals full segments (``segments/sealing.py``) and removes the oldest. Searching
is ``search.py``, an exporter's place is ``cursor.py``. Always: written = held + removed + corrupt lines.
What searches, seals and reads ahead is imported when it is used: an agent without logs is spared the memory.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import zstandard

from collector.clock_trust import ClockTrust
from collector.cursor import Position, StoreCursor, Taken, Token, settle
from collector.hits import TIME_LIMIT_SECONDS, Hit
from collector.retention import Victim, choose
from collector.roots import Roots
from collector.segments.catalog import Catalog, CursorRow, Removal
from collector.segments.frames import check_block, encode_extra, pack_header
from collector.segments.lock import StoreLocked, take_lock
from collector.segments.opening import Opened, Segment, boot_id, open_segments, require_catalog
from collector.segments.raw import RawSegment
from collector.sink import Source
from collector.store_counters import CursorCounters, StoreCounters
from logdrivers.block import Block

if TYPE_CHECKING:
    from collector.query import Query
    from collector.search import Searchable

__all__ = ["CursorCounters", "Store", "StoreCounters", "StoreLocked"]

log = logging.getLogger(__name__)

DEFAULT_MAX_BYTES: Final = 10 << 30
#: A raw segment is full at this many bytes before compression, frames, or seconds of age.
SEGMENT_BYTES: Final = 64 << 20
SEGMENT_FRAMES: Final = 32768
SEGMENT_SECONDS: Final = 3600.0
#: How often the background thread looks after age and size.
_UPKEEP_SECONDS: Final = 10.0
#: Blocks smaller than this are not compressed before sealing.
_COMPRESS_FROM: Final = 512
#: Fast levels of zstd are negative; this one with longer matches takes 0.2 µs a line and leaves a fifth of the bytes
#: until they are sealed; below it the bytes grow and the time hardly shrinks.
_LEVEL: Final = -5
_MIN_MATCH: Final = 7
#: What blocks are as large as, about: zstd's tables are for that.
_BLOCK_BYTES: Final = 256 << 10

_IDENTITY = "identity"


class Store:
    """See the module. Every method may be called from any thread of the owning process."""

    def __init__(
        self,
        directory: Path,
        *,
        max_bytes: int = DEFAULT_MAX_BYTES,
        max_age_seconds: float | None = None,
        segment_bytes: int = SEGMENT_BYTES,
        background: bool = True,
        roots: Roots | None = None,
        clock: ClockTrust | None = None,
    ) -> None:
        """Open or make the store. ``max_bytes`` bounds its files; ``clock`` says whether age may take any.

        Raises StoreLocked, or OSError naming the file. Without ``background`` nothing is sealed or removed
        but by ``maintain``.
        """
        self._directory = directory
        self._max_bytes = max_bytes
        self._max_age_seconds = max_age_seconds
        self._clock = clock or ClockTrust()
        self._segment_bytes = min(segment_bytes, max(max_bytes // 8, 64 << 10))
        self._lock = threading.Lock()  # of everything below
        self._compressors = threading.local()
        directory.mkdir(parents=True, exist_ok=True, mode=0o750)
        self._lock_fd = take_lock(directory / "lock")
        try:
            require_catalog(directory)
            self._catalog = Catalog(directory / "catalog.db")
            self._adopt(open_segments(directory, self._catalog, boot_id((roots or Roots()).proc)))
        except BaseException:
            os.close(self._lock_fd)
            raise
        self._closed = False
        self._wake = threading.Event()
        self._upkeep = threading.Lock()  # one maintain at a time
        self._sealing_seconds = 0.0
        self._thread: threading.Thread | None = None
        if background:
            self._thread = threading.Thread(target=self._maintain_forever, name="store-upkeep", daemon=True)
            self._thread.start()

    def _adopt(self, opened: Opened) -> None:
        self._identity = self._catalog.text(_IDENTITY) or uuid.uuid4().hex
        self._catalog.set_text(_IDENTITY, self._identity)
        self._segments: dict[int, Segment] = opened.segments
        self._active = opened.active
        self._active_since = time.monotonic()
        self._sources = opened.sources
        self._numbers = {source: number for number, source in opened.sources.items()}
        self._next_lines = opened.next_lines
        self._moved_lines: set[int] = set(opened.next_lines)
        self._checkpoints = opened.checkpoints
        self._moved_checkpoints: set[str] = set(opened.checkpoints)
        self._cursors = opened.cursors
        self._skipped: dict[str, dict[int, int]] = {}
        self._torn_bytes = opened.torn_bytes
        self._gap_lines = opened.gap_lines

    @property
    def identity(self) -> str:
        """Made with the store and never changed: tells its source numbers from those of another store."""
        return self._identity

    # --- writing ---

    def append(self, source: Source, block: Block, checkpoint: tuple[str, bytes] | None = None) -> None:
        """Store a block, and with it, both or neither, a checkpoint (key, value).

        Raises OSError (disk full, I/O) with nothing kept, the store usable; ValueError for a block that is
        not what its fields say.
        """
        check_block(block)
        payload, plain = self._compress(block.data)
        extra = encode_extra(checkpoint, block.partial)
        if len(extra) > 0xFFFF:
            raise ValueError(f"checkpoint of {len(extra)} bytes, at most 65535 can be stored with a block")
        with self._lock:
            self._check_open()
            number = self._numbers.get(source)
            if number is None:
                number = self._intern(source)
            if self._full():
                self._rotate()
            active, first_line = self._active, self._next_lines[number]
            header = pack_header(
                block, number, first_line, active.frames, active.lines, extra, payload, plain
            )
            active.append(
                header, extra, payload, (block.first_ns, block.last_ns, block.lines, len(block.data))
            )
            self._next_lines[number] = first_line + block.lines
            self._moved_lines.add(number)
            if checkpoint is not None:
                self._checkpoints[checkpoint[0]] = checkpoint[1]
                self._moved_checkpoints.add(checkpoint[0])

    def _compress(self, data: bytes) -> tuple[bytes, bool]:
        if len(data) < _COMPRESS_FROM:
            return data, True
        compressor: zstandard.ZstdCompressor | None = getattr(self._compressors, "one", None)
        if compressor is None:
            parameters = zstandard.ZstdCompressionParameters.from_level(
                _LEVEL, source_size=_BLOCK_BYTES, min_match=_MIN_MATCH, write_content_size=False
            )
            compressor = self._compressors.one = zstandard.ZstdCompressor(compression_params=parameters)
        payload = compressor.compress(data)
        return (payload, False) if len(payload) < len(data) else (data, True)

    def _intern(self, source: Source) -> int:
        number = self._catalog.add_source(source)
        self._numbers[source] = number
        self._sources[number] = source
        self._next_lines.setdefault(number, 0)
        return number

    def _full(self) -> bool:
        active = self._active
        return active.frames > 0 and (
            active.raw_bytes >= self._segment_bytes
            or active.frames >= SEGMENT_FRAMES
            or time.monotonic() - self._active_since >= SEGMENT_SECONDS
        )

    def _rotate(self) -> None:
        """Begin the next segment; with no room for it, go on with this one."""
        active = self._active
        number = active.number + 1
        lines, raw_bytes = active.lines_before + active.lines, active.bytes_before + active.raw_bytes
        path = self._directory / f"{number:016d}.raw"
        try:
            created = RawSegment.create(path, number, lines, raw_bytes, time.time_ns())
            try:
                self._catalog.save_state(
                    active.number,
                    (lines, raw_bytes),
                    [(source, self._next_lines[source]) for source in self._moved_lines],
                    {key: self._checkpoints.get(key) for key in self._moved_checkpoints},
                )
            except OSError:
                created.close()
                path.unlink()
                raise
        except OSError as error:
            log.error(
                "store %s: cannot begin segment %d, going on with %d: %s",
                self._directory,
                number,
                active.number,
                error,
            )
            return
        self._moved_lines.clear()
        self._moved_checkpoints.clear()
        self._segments[number] = self._active = created
        self._active_since = time.monotonic()
        self._wake.set()

    def checkpoint(self, key: str) -> bytes | None:
        """The last value stored for ``key``, or None."""
        with self._lock:
            return self._checkpoints.get(key)

    def forget_checkpoint(self, key: str) -> None:
        """Drop a checkpoint that nobody will ask for again (its file is gone). Raises OSError."""
        with self._lock:
            self._check_open()
            if self._checkpoints.pop(key, None) is not None:
                self._moved_checkpoints.add(key)

    def sync(self) -> None:
        """Put everything appended on the disk, against a power cut. Raises OSError."""
        self._active.sync()

    # --- reading ---

    def search(
        self,
        query: Query,
        since_ns: int,
        until_ns: int,
        limit: int,
        newest_first: bool = True,
        time_limit_seconds: float = TIME_LIMIT_SECONDS,
    ) -> Iterator[Hit]:
        """Lines that match, from ``since_ns`` on and before ``until_ns``; see ``collector.search.search``."""
        from collector.search import search
        from collector.segments.windows import RawView, SealedView

        with self._lock:
            self._check_open()
            views: list[Searchable] = [
                RawView(segment) if isinstance(segment, RawSegment) else SealedView(segment)
                for segment in self._segments.values()
            ]
        return search(
            views, self._sources, query, since_ns, until_ns, limit, newest_first, time_limit_seconds
        )

    def cursor(self, name: str, *, at_end: bool = False) -> StoreCursor:
        """The cursor of this name; a new one begins with the oldest line held, or with the next one to come."""
        with self._lock:
            self._check_open()
            if name not in self._cursors:
                oldest = min(self._segments)
                row = (
                    CursorRow(self._active.number, self._active.frames, 0)
                    if at_end
                    else CursorRow(oldest, 0, 0)
                )
                self._catalog.put_cursor(name, row)
                self._cursors[name] = row
        return StoreCursor(name, self)

    def drop_cursor(self, name: str) -> None:
        """Forget a cursor, so that retention does not wait for it."""
        with self._lock:
            self._check_open()
            if self._cursors.pop(name, None) is not None:
                self._catalog.drop_cursor(name)

    # --- the cursors' side (collector.cursor.Shelf) ---

    def take(self, position: Position, max_bytes: int) -> Taken:
        """Blocks from a position on, all of one segment."""
        from collector.segments.reading import take

        with self._lock:
            self._check_open()
            segment = self._segments.get(position.segment)
            later = min((n for n in self._segments if n > position.segment), default=None)
        if segment is not None:
            taken = take(segment, position, max_bytes, self._sources)
            if taken.blocks:
                return taken
            position = taken.end
        return Taken([], position if later is None else Position(later))

    def place(self, name: str) -> tuple[Position, int]:
        """Where the cursor stands, and the lines it lost and was not told of."""
        with self._lock:
            self._check_open()
            row = self._cursors[name]
            self._skipped.pop(name, None)
            return Position(row.segment, row.frame, row.chunk), row.lost_pending

    def move(self, name: str, token: Token) -> None:
        """Keep a new place. Durable when it returns."""
        with self._lock:
            self._check_open()
            row = settle(self._cursors[name], token, self._skipped.get(name, {}))
            self._catalog.put_cursor(name, row)
            self._cursors[name] = row

    def ahead(self, position: Position) -> tuple[int, int]:
        """Lines and bytes behind a position."""
        from collector.segments.reading import ahead

        with self._lock:
            later = [segment for number, segment in self._segments.items() if number > position.segment]
            segment = self._segments.get(position.segment)
        lines = sum(one.lines - one.corrupt_lines for one in later)
        raw_bytes = sum(one.raw_bytes for one in later)
        if segment is not None:
            here = ahead(segment, position)
            lines, raw_bytes = lines + here[0], raw_bytes + here[1]
        return lines, raw_bytes

    # --- upkeep ---

    def counters(self) -> StoreCounters:
        """All totals, of one moment."""
        with self._lock:
            self._check_open()
            segments = list(self._segments.values())
            totals = self._catalog.numbers()
            active = self._active
            written = (active.lines_before + active.lines, active.bytes_before + active.raw_bytes)
            cursors = dict(self._cursors)
        corrupt = sum(segment.corrupt_lines for segment in segments)
        lags = {
            name: (self.ahead(Position(row.segment, row.frame, row.chunk)), row.lost)
            for name, row in cursors.items()
        }
        return StoreCounters(
            written_lines=written[0],
            written_bytes=written[1],
            held_lines=sum(segment.lines for segment in segments) - corrupt,
            held_bytes=sum(segment.raw_bytes for segment in segments),
            removed_lines=_by_cause(totals, "removed_lines_"),
            removed_bytes=_by_cause(totals, "removed_bytes_"),
            corrupt_lines=corrupt + totals.get("corrupt_lines_removed", 0) + self._gap_lines,
            torn_bytes=self._torn_bytes,
            damaged_frames=sum(segment.damaged_frames for segment in segments),
            disk_bytes=sum(segment.disk_bytes for segment in segments),
            raw_segments=sum(not segment.sealed for segment in segments),
            sealed_segments=sum(segment.sealed for segment in segments),
            sealing_cpu_seconds=self._sealing_seconds,
            cursors={name: CursorCounters(*lag, lost) for name, (lag, lost) in lags.items()},
        )

    def maintain(self) -> None:
        """Seal every full segment and remove what retention says; the background thread does the same.

        A file that cannot be written or removed is logged and tried again the next time.
        """
        with self._upkeep:
            try:
                with self._lock:
                    if self._closed:
                        return
                    if self._full():
                        self._rotate()
                    full = [
                        segment
                        for segment in self._segments.values()
                        if isinstance(segment, RawSegment) and segment is not self._active
                    ]
                for segment in full:
                    self._retain()
                    self._seal(segment)
                self._retain()
            except OSError as error:
                log.error("store %s: upkeep failed, will be tried again: %s", self._directory, error)

    def _maintain_forever(self) -> None:
        while not self._closed:
            self._wake.wait(_UPKEEP_SECONDS)
            self._wake.clear()
            self.maintain()
            try:
                self.sync()
            except OSError as error:
                log.error("store %s: cannot put the active segment on the disk: %s", self._directory, error)

    def _seal(self, segment: RawSegment) -> None:
        from collector.segments.sealing import seal

        started = time.thread_time()
        sealed = seal(segment, self._directory)
        self._sealing_seconds += time.thread_time() - started
        with self._lock:
            self._segments[segment.number] = sealed
        segment.path.unlink()

    def _retain(self) -> None:
        oldest_ns = None
        now_ns = time.time_ns()
        if self._max_age_seconds is not None and self._clock.trusts(now_ns):
            oldest_ns = now_ns - int(self._max_age_seconds * 1e9)
        while True:
            with self._lock:
                if self._closed:
                    return
                segments = [segment for _, segment in sorted(self._segments.items())]
                victim = choose(segments, self._cursors, self._max_bytes, oldest_ns)
                if victim is None:
                    return
                path = self._remove(victim)
            path.unlink()

    def _remove(self, victim: Victim) -> Path:
        """Take a segment out, with what every cursor loses by it."""
        from collector.segments.reading import ahead

        segment = self._segments[victim.number]
        rows: dict[str, CursorRow] = {}
        lost: dict[str, int] = {}
        for name, row in self._cursors.items():
            if row.segment <= victim.number:
                place = Position(row.segment, row.frame, row.chunk)
                lines = ahead(segment, place if row.segment == victim.number else Position(victim.number))[0]
                lost[name] = lines
                rows[name] = CursorRow(victim.number + 1, 0, 0, row.lost_pending + lines, row.lost + lines)
        removal = Removal(
            victim.number, segment.lines, segment.raw_bytes, segment.corrupt_lines, victim.cause
        )
        self._catalog.removed(removal, rows)
        self._cursors.update(rows)
        for name, lines in lost.items():
            if lines:
                log.warning("store: retention by %s took %d lines from cursor %s", victim.cause, lines, name)
                self._skipped.setdefault(name, {})[victim.number] = lines
        del self._segments[victim.number]
        return segment.path

    def close(self) -> None:
        """Put everything on the disk and give up the directory. Nothing else may be called afterwards."""
        with self._upkeep:
            self._close()
        self._wake.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            try:
                self._active.sync()
                self._catalog.set_number("closed", 1)
            finally:
                self._catalog.close()
                os.close(self._lock_fd)

    def _check_open(self) -> None:
        if self._closed:
            raise OSError(errno.EBADF, "the store is closed", str(self._directory))


def _by_cause(totals: Mapping[str, int], prefix: str) -> dict[str, int]:
    return {cause: totals.get(prefix + cause, 0) for cause in ("size", "age")}
