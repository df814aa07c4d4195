"""Sealing: a full raw segment is rewritten, source by source, for size and for search.

Reads the raw form a chunk at a time, so that memory stays at a few megabytes. The new file gets its name
only when it is whole and on the disk, and the raw one is removed after that: a crash at any point leaves
one or the other, and opening the store settles which (``opening.py``).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
import zstandard

from collector import grams
from collector.needs import fold
from collector.segments.chunk import JOINER, OPENER, Layout, Row
from collector.segments.frames import Corrupt, Frame, crc32, decode_extra, frames
from collector.segments.raw import RawSegment
from collector.segments.sealed import (
    MAGIC,
    TRAILER,
    Entry,
    SealedSegment,
    Trailer,
    entry_type,
    ledger_type,
    pack_rows,
)
from logdrivers.block import Encoding, Partial, Stream

__all__ = ["seal", "split_records"]

#: Blocks are merged up to this size: larger compresses better, smaller skips better.
CHUNK_BYTES: Final = 128 << 10
_ROW_BYTES: Final = 32 << 10
#: zstd's level 1 with longer matches: as small as level 2, and faster both ways.
_LEVEL: Final = 1
_MIN_MATCH: Final = 7
_BUFFER_BYTES: Final = 1 << 20


def seal(segment: RawSegment, directory: Path) -> SealedSegment:
    """Write the sealed form beside the raw one, which stays. Raises OSError with nothing left behind."""
    path = directory / f"{segment.number:016d}.sealed"
    temporary = path.with_suffix(".tmp")
    try:
        with open(temporary, "wb", buffering=_BUFFER_BYTES) as file:
            _Writer(segment, file).write()
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    sync_directory(directory)
    return SealedSegment(path)


def sync_directory(directory: Path) -> None:
    """Put a renaming on the disk."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@dataclass(slots=True)
class _Open:
    """The chunk being filled."""

    source: int
    encoding: int
    next_line: int
    parts: list[bytes] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    partials: dict[int, Partial] = field(default_factory=dict)
    row_bytes: int = 0
    raw_bytes: int = 0

    def takes(self, frame: Frame) -> bool:
        return (
            self.raw_bytes < CHUNK_BYTES
            and frame.source == self.source
            and frame.encoding == self.encoding
            and frame.first_line == self.next_line
        )

    def add(self, frame: Frame, extra: bytes, data: bytes) -> None:
        """Append a frame; json-file frames join their neighbours in one row."""
        partial = decode_extra(extra).partial if extra else None
        row = Row(frame.first_line, frame.lines, frame.first_ns, frame.last_ns, frame.stream)
        if self.rows and self.encoding == Encoding.JSON_FILE and self.row_bytes < _ROW_BYTES:
            last = self.rows[-1]
            self.rows[-1] = Row(
                last.first_line,
                last.lines + row.lines,
                min(last.first_ns, row.first_ns),
                max(last.last_ns, row.last_ns),
                row.stream if row.stream == last.stream else Stream.MIXED,
            )
            self.row_bytes += len(data)
        else:
            if partial is not None:
                self.partials[len(self.rows)] = partial
            self.rows.append(row)
            self.row_bytes = len(data)
        self.parts.append(data if partial is None else data + b"\n")
        self.raw_bytes += len(data)
        self.next_line += frame.lines


class _Writer:
    """Writes one sealed file."""

    def __init__(self, segment: RawSegment, file: BinaryIO) -> None:
        self._segment = segment
        self._file = file
        self._compressor = zstandard.ZstdCompressor(
            compression_params=zstandard.ZstdCompressionParameters.from_level(
                _LEVEL, source_size=CHUNK_BYTES, min_match=_MIN_MATCH
            )
        )
        self._offset = 0
        self._entries: list[Entry] = []
        self._filters: list[bytes] = []
        self._filter_bytes = 0
        self._sealed_lines = 0

    def write(self) -> None:
        """All of it, the trailer last."""
        self._put(MAGIC)
        headers = self._segment.headers()
        for chunk in self._chunks():
            self._write_chunk(chunk)
        filters_offset = self._offset
        for part in self._filters:
            self._put(part)
        ledger = np.empty(len(headers), ledger_type())
        ledger["ordinal"] = headers["ordinal"]
        ledger["source"] = headers["source"]
        ledger["end_line"] = headers["first_line"] + headers["lines"]
        ledger_z = self._compressor.compress(ledger.tobytes())
        entries = np.array(self._entries, entry_type())
        entries["filter_offset"] += np.uint64(filters_offset)
        tables = ledger_z + entries.tobytes()
        ledger_offset = self._offset
        self._put(tables)
        self._put(self._trailer(filters_offset, ledger_offset, len(ledger_z), crc32(tables)))

    def _trailer(self, filters_offset: int, ledger_offset: int, ledger_bytes: int, checksum: int) -> bytes:
        segment = self._segment
        trailer = Trailer(
            MAGIC,
            segment.number,
            segment.lines_before,
            segment.bytes_before,
            segment.created_ns,
            segment.lines,
            segment.lines - self._sealed_lines,
            segment.raw_bytes,
            segment.frames,
            min((entry.first_ns for entry in self._entries), default=0),
            max((entry.last_ns for entry in self._entries), default=0),
            filters_offset,
            ledger_offset,
            ledger_bytes,
            ledger_offset + ledger_bytes,
            len(self._entries),
            checksum,
            0,
        )
        packed = TRAILER.pack(*trailer)[:-4]
        return packed + crc32(packed).to_bytes(4, "little")

    def _chunks(self) -> Iterator[_Open]:
        """Frames regrouped by source; a source's lines keep their order."""
        headers = self._segment.headers()
        headers = headers[headers["lines"] > 0]
        wanted = headers[np.argsort(headers["source"], kind="stable")]
        now: _Open | None = None
        for start in range(0, len(wanted), 1024):
            batch = frames(wanted[start : start + 1024])
            for frame, content in zip(batch, self._segment.read_many(batch), strict=True):
                if isinstance(content, Corrupt):
                    continue  # missing from the lines sealed, so it is counted
                if now is None or not now.takes(frame):
                    if now is not None:
                        yield now
                    now = _Open(frame.source, frame.encoding, frame.first_line)
                now.add(frame, *content)
        if now is not None:
            yield now

    def _write_chunk(self, chunk: _Open) -> None:
        data = b"".join(chunk.parts)
        lines = sum(row.lines for row in chunk.rows)
        columns = split_records(data, lines) if chunk.encoding == Encoding.JSON_FILE else None
        if columns is not None:
            layout, (text, rest) = Layout.SPLIT, columns
        else:
            layout = Layout.RECORDS if chunk.encoding == Encoding.JSON_FILE else Layout.LINES
            text, rest = data[:-1], b""
        has_attrs = b"{" in rest and b'"attrs":{' in rest  # one byte is found ten times as fast
        log2, bits = grams.build(fold(text + rest) if has_attrs else fold(text))
        text_z = self._compressor.compress(text) if text else b""
        rest_z = self._compressor.compress(rest) if rest else b""
        rows_z = pack_rows(chunk.rows, chunk.partials, self._compressor)
        self._entries.append(
            Entry(
                chunk.source,
                layout,
                chunk.encoding,
                int(has_attrs),
                log2,
                lines,
                chunk.raw_bytes,
                len(text),
                len(text_z),
                crc32(text_z),
                len(rest),
                len(rest_z),
                crc32(rest_z),
                len(rows_z),
                crc32(rows_z),
                self._offset,
                self._filter_bytes,
                chunk.rows[0].first_line,
                min(row.first_ns for row in chunk.rows),
                max(row.last_ns for row in chunk.rows),
            )
        )
        self._filters.append(bits)
        self._filter_bytes += len(bits)
        self._sealed_lines += lines
        for part in (text_z, rest_z, rows_z):
            self._put(part)

    def _put(self, data: bytes) -> None:
        self._file.write(data)
        self._offset += len(data)


#: Cuts records into messages and what follows them; an unescaped quote cannot be in a message.
_RECORD: Final = re.compile(rb'\\n","stream":"(.*+)\n\{"log":"')


def split_records(data: bytes, lines: int) -> tuple[bytes, bytes] | None:
    """json-file records as two columns, one line each; None if some are not as Docker writes them.

    Message, ``JOINER`` and rest of each line, with ``OPENER`` before and a newline behind, are the record.
    """
    pieces = _RECORD.split(data)
    message, joiner, rest = pieces[-1].partition(JOINER)  # of the last record, which no other follows
    if len(pieces) != 2 * lines - 1 or not (pieces[0].startswith(OPENER) and joiner):
        return None
    if rest.find(b"\n") != len(rest) - 1 or b"\n" in message:  # every newline ends a record that was cut
        return None
    if lines == 1:
        return message[len(OPENER) :], rest[:-1]
    pieces[0] = pieces[0][len(OPENER) :]
    pieces[-1:] = message, rest[:-1]
    return b"\n".join(pieces[0::2]), b"\n".join(pieces[1::2])
