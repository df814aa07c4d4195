"""A window that is over: every container's columns compressed on their own, behind them an index.

A question for one container reads the index and that container's bytes. Columns are stored as zstd over the
differences from row to row, their bytes ordered by significance, so that what does not change costs nothing.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson
import zstandard
from isal import isal_zlib

from collector.history.rows import COLUMNS, ROW, Definition, Rows

__all__ = ["Corrupt", "Entry", "SealedWindow", "decode_columns", "encode_columns", "write_sealed"]

_CHUNK: Final = struct.Struct("<II")  # checksum of the bytes that follow, rows
#: Offset, length and checksum of the index, first and last time, rows, containers, highest number.
_FOOTER: Final = struct.Struct("<QIIqqQII")
_END: Final = struct.Struct("<II")  # checksum of the footer, magic
_MAGIC: Final = 0x53484154  # "TAHS", little endian
_LEVEL: Final = 6


class Corrupt(ValueError):
    """Bytes that are not what was written."""


class Entry(NamedTuple):
    """One container in the index."""

    definition: Definition
    offset: int
    length: int
    rows: int
    first_us: int
    last_us: int


def encode_columns(rows: Rows) -> bytes:
    """The columns of one container's rows, compressed, with checksum and count."""
    values = np.empty((len(COLUMNS), len(rows)), np.int64)
    for index, name in enumerate(COLUMNS):
        values[index] = rows[name]
    values[:, 1:] -= values[:, :-1].copy()
    zigzag = (values << 1) ^ (values >> 63)
    planes = zigzag.view(np.uint8).reshape(len(COLUMNS), len(rows), 8).transpose(0, 2, 1)
    packed = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=False).compress(planes.tobytes())
    return _CHUNK.pack(isal_zlib.crc32(packed), len(rows)) + packed


def decode_columns(data: bytes, number: int) -> Rows:
    """The rows again, under this number. Raises Corrupt."""
    if len(data) < _CHUNK.size:
        raise Corrupt(f"{len(data)} bytes, expected at least {_CHUNK.size}")
    checksum, count = _CHUNK.unpack_from(data)
    packed = data[_CHUNK.size :]
    if isal_zlib.crc32(packed) != checksum:
        raise Corrupt("checksum does not fit")
    size = len(COLUMNS) * count * 8
    planes = zstandard.ZstdDecompressor().decompress(packed, max_output_size=size)
    if len(planes) != size:
        raise Corrupt(f"{len(planes)} bytes of columns, expected {size}")
    shape = np.frombuffer(planes, np.uint8).reshape(len(COLUMNS), 8, count).transpose(0, 2, 1)
    zigzag: npt.NDArray[np.int64] = np.ascontiguousarray(shape).view(np.int64)[:, :, 0]
    # The shift has to be one without sign, the sign is in the lowest bit.
    differences = (zigzag.view(np.uint64) >> np.uint64(1)).view(np.int64) ^ -(zigzag & 1)
    values = np.cumsum(differences, axis=1)
    rows = np.empty(count, ROW)
    rows["number"] = number
    for index, name in enumerate(COLUMNS):
        rows[name] = values[index]
    return rows


def write_sealed(path: Path, containers: Iterable[tuple[Definition, Rows]]) -> None:
    """Write a sealed window: under another name first, so that it is whole or not there. Raises OSError."""
    temporary = path.with_name(path.name + ".tmp")
    index: list[list[object]] = []
    first, last, total, highest, offset = 0, 0, 0, 0, 0
    try:
        with temporary.open("wb") as file:
            for definition, rows in containers:
                chunk = encode_columns(rows)
                file.write(chunk)
                low, high = int(rows["time_us"].min()), int(rows["time_us"].max())
                index.append([*definition, offset, len(chunk), len(rows), low, high])
                offset += len(chunk)
                total += len(rows)
                first, last = min(first or low, low), max(last, high)
                highest = max(highest, definition.number)
            packed = zstandard.ZstdCompressor(level=3).compress(orjson.dumps(index))
            footer = _FOOTER.pack(
                offset, len(packed), isal_zlib.crc32(packed), first, last, total, len(index), highest
            )
            file.write(packed + footer + _END.pack(isal_zlib.crc32(footer), _MAGIC))
            file.flush()
            os.fdatasync(file.fileno())
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


class SealedWindow:
    """One sealed file. Keeps nothing open and nothing in memory but its bounds."""

    def __init__(self, path: Path, sequence: int) -> None:
        """Read the footer. Raises Corrupt, OSError."""
        self.path = path
        self.sequence = sequence
        tail = _FOOTER.size + _END.size
        with path.open("rb") as file:
            self.bytes = file.seek(0, os.SEEK_END)  #: on disk
            file.seek(max(0, self.bytes - tail))
            data = file.read()
        if len(data) != tail:
            raise Corrupt(f"{path}: {len(data)} bytes, expected at least {tail}")
        footer = data[: _FOOTER.size]
        if _END.unpack(data[_FOOTER.size :]) != (isal_zlib.crc32(footer), _MAGIC):
            raise Corrupt(f"{path}: its end is not that of a sealed window")
        fields: tuple[int, ...] = _FOOTER.unpack(footer)
        self._index_offset, self._index_bytes, self._index_checksum = fields[:3]
        self.first_us, self.last_us = fields[3:5]  #: times of the oldest and the newest row
        self.rows, self.containers = fields[5:7]
        self.last_number = fields[7]  #: the highest number in here

    def entries(self) -> list[Entry]:
        """Every container in here. Raises Corrupt, OSError."""
        with self.path.open("rb") as file:
            file.seek(self._index_offset)
            packed = file.read(self._index_bytes)
        if isal_zlib.crc32(packed) != self._index_checksum:
            raise Corrupt(f"{self.path}: checksum of the index does not fit")
        rows = orjson.loads(zstandard.ZstdDecompressor().decompress(packed))
        return [Entry(Definition(*row[:5]), *row[5:]) for row in rows]

    def rows_of(self, entries: Sequence[Entry]) -> list[Rows | Corrupt]:
        """The rows of some containers, each or why it cannot be read. Raises OSError."""
        found: list[Rows | Corrupt] = []
        with self.path.open("rb") as file:
            for entry in entries:
                file.seek(entry.offset)
                try:
                    found.append(decode_columns(file.read(entry.length), entry.definition.number))
                except (Corrupt, zstandard.ZstdError) as error:
                    found.append(Corrupt(f"{self.path}: {entry.definition.name}: {error}"))
        return found
