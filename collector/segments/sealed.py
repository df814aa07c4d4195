"""A sealed segment: chunks of one source each, with a filter, and how to find one's way in it.

The file: a header; per chunk its text, the rest of its records and its rows, each compressed and checked by
itself, so that a search reads texts alone; the filters; the ledger (which frames of the raw form held which
lines, so that a cursor's place in it stays exact); the entries; a trailer. It never changes once it is named.
"""

from __future__ import annotations

import os
import struct
import threading
import weakref
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgpack
import zstandard

from collector.segments.chunk import Chunk, Layout, Row
from collector.segments.frames import Corrupt, crc32
from logdrivers.block import Partial

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["TRAILER", "Entry", "SealedSegment", "Trailer", "entry_type", "ledger_type", "pack_rows"]

MAGIC: Final = b"TAFSEAL1"


@cache
def entry_type() -> np.dtype[np.void]:
    """One chunk, as a row of an array."""
    import numpy as np

    return np.dtype(
        [
            ("source", "<u4"),
            ("layout", "u1"),
            ("encoding", "u1"),
            ("has_attrs", "u1"),
            ("filter_log2", "u1"),
            ("lines", "<u4"),
            ("raw_bytes", "<u4"),  # of its blocks' data
            ("text_raw", "<u4"),
            ("text_bytes", "<u4"),
            ("text_crc", "<u4"),
            ("rest_raw", "<u4"),
            ("rest_bytes", "<u4"),
            ("rest_crc", "<u4"),
            ("rows_bytes", "<u4"),
            ("rows_crc", "<u4"),
            ("offset", "<u8"),  # of the text; rest and rows follow
            ("filter_offset", "<u8"),
            ("first_line", "<u8"),
            ("first_ns", "<i8"),
            ("last_ns", "<i8"),
        ]
    )


@cache
def row_type() -> np.dtype[np.void]:
    """One row of a chunk."""
    import numpy as np

    return np.dtype(
        [
            ("first_line", "<u8"),
            ("first_ns", "<i8"),
            ("last_ns", "<i8"),
            ("lines", "<u4"),
            ("stream", "u1"),
        ]
    )


@cache
def ledger_type() -> np.dtype[np.void]:
    """One frame of the raw form: what it held of a source."""
    import numpy as np

    return np.dtype([("end_line", "<u8"), ("ordinal", "<u4"), ("source", "<u4")])


class Trailer(NamedTuple):
    """The end of the file: totals, and where the tables are."""

    magic: bytes
    number: int
    lines_before: int
    bytes_before: int
    created_ns: int
    lines: int  #: appended to the raw form, damaged ones included
    corrupt_lines: int  #: of these, lines that could not be read when it was sealed
    raw_bytes: int
    frames: int  #: ordinal behind the last frame of the raw form
    first_ns: int
    last_ns: int
    filters_offset: int
    ledger_offset: int
    ledger_bytes: int  #: compressed
    entries_offset: int
    entries: int
    tables_crc: int  #: of ledger and entries
    crc: int  #: of what stands before


TRAILER: Final = struct.Struct("<8sQQQqQQQQqqQQQQQII")


class Entry(NamedTuple):
    """One chunk's entry, as Python numbers."""

    source: int
    layout: int
    encoding: int
    has_attrs: int
    filter_log2: int
    lines: int
    raw_bytes: int
    text_raw: int
    text_bytes: int
    text_crc: int
    rest_raw: int
    rest_bytes: int
    rest_crc: int
    rows_bytes: int
    rows_crc: int
    offset: int
    filter_offset: int
    first_line: int
    first_ns: int
    last_ns: int


class SealedSegment:
    """One sealed file, open for reading by any thread."""

    sealed = True

    def __init__(self, path: Path) -> None:
        """Open it. Raises Corrupt, OSError."""
        self.path = path
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._fd)
        self.disk_bytes = os.fstat(self._fd).st_size
        tail = os.pread(self._fd, TRAILER.size, max(0, self.disk_bytes - TRAILER.size))
        if len(tail) < TRAILER.size or crc32(tail[:-4]) != struct.unpack("<I", tail[-4:])[0]:
            raise Corrupt(f"{path}: its trailer is damaged")
        self._trailer = trailer = Trailer._make(TRAILER.unpack(tail))
        if trailer.magic != MAGIC:
            raise Corrupt(f"{path}: not a sealed segment: {trailer.magic!r}")
        self.number = trailer.number
        self.lines_before, self.bytes_before = trailer.lines_before, trailer.bytes_before
        self.created_ns = trailer.created_ns
        self.lines, self.corrupt_lines = trailer.lines, trailer.corrupt_lines
        self.raw_bytes, self.frames = trailer.raw_bytes, trailer.frames
        self.first_ns: int | None = trailer.first_ns if trailer.entries else None
        self.last_ns: int | None = trailer.last_ns if trailer.entries else None
        self.damaged_frames = 0
        self._local = threading.local()
        self._tables: weakref.ref[_Tables] = lambda: None  # type: ignore[assignment]

    # --- tables ---

    def _read_tables(self) -> _Tables:
        tables = self._tables()
        if tables is None:
            import numpy as np

            trailer = self._trailer
            size = trailer.ledger_bytes + trailer.entries * entry_type().itemsize
            data = os.pread(self._fd, size, trailer.ledger_offset)
            if crc32(data) != trailer.tables_crc:
                self.damaged_frames += 1
                raise Corrupt(f"{self.path}: its tables are damaged")
            entries = np.frombuffer(data, entry_type(), trailer.entries, trailer.ledger_bytes)
            tables = _Tables(entries, data[: trailer.ledger_bytes])
            self._tables = weakref.ref(tables)
        return tables

    def entries(self) -> npt.NDArray[np.void]:
        """All entries, in the order of the file. Raises Corrupt, OSError."""
        return self._read_tables().entries

    def consumed(self, frame: int) -> dict[int, int]:
        """For each source the number behind the last line in the raw form's frames before ``frame``."""
        if frame <= 0:
            return {}
        import numpy as np

        data = zstandard.ZstdDecompressor().decompress(self._read_tables().ledger)
        ledger = np.frombuffer(data, ledger_type())
        ledger = ledger[ledger["ordinal"] < frame]
        ends: dict[int, int] = {}
        for source in np.unique(ledger["source"]).tolist():
            ends[source] = int(ledger["end_line"][ledger["source"] == source].max())
        return ends

    def filters(self, start: int, end: int) -> npt.NDArray[np.uint8]:
        """Filter bytes between two offsets of the file. Raises OSError."""
        import numpy as np

        return np.frombuffer(os.pread(self._fd, end - start, start), np.uint8)

    # --- chunks ---

    def chunk(self, entry: Entry) -> Chunk:
        """A chunk with its text read; the rest is read when asked for. Raises Corrupt, OSError."""
        return Chunk(
            entry.source,
            Layout(entry.layout),
            lambda: self.rows(entry)[0],
            self._part(entry.offset, entry.text_bytes, entry.text_crc, entry.text_raw),
            lambda: self.rest(entry),
            bool(entry.has_attrs),
        )

    def rest(self, entry: Entry) -> bytes:
        """The second column of a chunk. Raises Corrupt, OSError."""
        return self._part(entry.offset + entry.text_bytes, entry.rest_bytes, entry.rest_crc, entry.rest_raw)

    def rows(self, entry: Entry) -> tuple[Sequence[Row], dict[int, Partial]]:
        """The rows of a chunk, and which of them are pieces of longer lines. Raises Corrupt, OSError."""
        at = entry.offset + entry.text_bytes + entry.rest_bytes
        data = self._read(at, entry.rows_bytes, entry.rows_crc)
        count, raw_size, columns, pieces = msgpack.unpackb(data, strict_map_key=False)
        raw = self._decompressor().decompress(columns, max_output_size=raw_size) if raw_size else b""
        partials = {index: Partial(*piece) for index, piece in pieces.items()}
        return unpack_rows(count, raw, partials), partials

    def _part(self, offset: int, size: int, checksum: int, raw_size: int) -> bytes:
        if not raw_size:
            return b""
        return self._decompressor().decompress(self._read(offset, size, checksum), max_output_size=raw_size)

    def _read(self, offset: int, size: int, checksum: int) -> bytes:
        data = os.pread(self._fd, size, offset)
        if len(data) != size or crc32(data) != checksum:
            self.damaged_frames += 1
            raise Corrupt(f"{self.path}: chunk at {offset}: checksum does not fit")
        return data

    def _decompressor(self) -> zstandard.ZstdDecompressor:
        made: zstandard.ZstdDecompressor | None = getattr(self._local, "decompressor", None)
        if made is None:
            made = self._local.decompressor = zstandard.ZstdDecompressor()
        return made


class _Tables:
    """Entries and (compressed) ledger; kept only as long as somebody uses them."""

    __slots__ = ("__weakref__", "entries", "ledger")

    def __init__(self, entries: npt.NDArray[np.void], ledger: bytes) -> None:
        self.entries = entries
        self.ledger = ledger


def pack_rows(
    rows: Sequence[Row], partials: dict[int, Partial], compressor: zstandard.ZstdCompressor
) -> bytes:
    """Rows as they stand in the file: column by column, compressed."""
    import numpy as np

    kind = row_type()
    table = np.array([row[:5] for row in rows], np.dtype([(n, kind[n]) for n in _ORDER]))
    raw = b"".join([np.ascontiguousarray(table[name]).tobytes() for name in kind.names or ()])
    pieces = {index: (one.id, one.ordinal, one.last) for index, one in partials.items()}
    packed: bytes = msgpack.packb((len(rows), len(raw), compressor.compress(raw), pieces))
    return packed


_ORDER: Final = ("first_line", "lines", "first_ns", "last_ns", "stream")


def unpack_rows(count: int, raw: bytes, partials: dict[int, Partial]) -> list[Row]:
    """The other way."""
    import numpy as np

    kind = row_type()
    columns: dict[str, list[Any]] = {}
    at = 0
    for name in kind.names or ():
        columns[name] = np.frombuffer(raw, kind[name], count, at).tolist()
        at += count * kind[name].itemsize
    rows = [Row._make((*values, 0)) for values in zip(*(columns[name] for name in _ORDER), strict=True)]
    for index, partial in partials.items():
        rows[index] = rows[index]._replace(piece=partial.ordinal)
    return rows
