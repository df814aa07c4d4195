"""A window that is over: every container's columns compressed on their own, behind them an index.

A question for one container reads the index and that container's bytes. Columns are stored as zstd over the
differences from row to row, their bytes ordered by significance, so that what does not change costs nothing.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from operator import sub
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

import orjson
import zstandard
from isal import isal_zlib

from collector.history.rows import COLUMNS, ROW_BYTES, Definition, Packed, pack, row_type, times, unpack
from collector.history.window_files import whole_file

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from collector.history.rows import Rows

__all__ = [
    "Corrupt",
    "Entry",
    "SealedWindow",
    "decode_columns",
    "decode_packed",
    "encode_columns",
    "write_sealed",
]

_T = TypeVar("_T")

_CHUNK: Final = struct.Struct("<II")  # checksum of the bytes that follow, rows
#: Offset, length and checksum of the index, first and last time, rows, containers, highest number.
_FOOTER: Final = struct.Struct("<QIIqqQII")
_END: Final = struct.Struct("<II")  # checksum of the footer, magic
_MAGIC: Final = 0x53484154  # "TAHS", little endian
_LEVEL: Final = 6
_WORD, _SIGN = (1 << 64) - 1, 1 << 63


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


def encode_columns(rows: Packed) -> bytes:
    """The columns of one container's packed rows, compressed, with checksum and count."""
    count = len(rows) // ROW_BYTES
    columns = list(zip(*unpack(rows), strict=True))[1:]
    planes = b"".join([_planes(column, count) for column in columns])
    packed = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=False).compress(planes)
    return _CHUNK.pack(isal_zlib.crc32(packed), count) + packed


def _planes(column: Sequence[int], count: int) -> bytes:
    """A column's differences with their signs in the lowest bits, ordered by the bytes' significance."""
    first = column[0]
    if column.count(first) == count:
        rest = bytes(count - 1)
        return b"".join([bytes((byte,)) + rest for byte in _zigzag(first).to_bytes(8, "little")])
    differences = [first, *map(sub, column[1:], column)]
    if max(differences) >= _SIGN or min(differences) < -_SIGN:
        differences = [_signed(one) for one in differences]
    data = struct.pack(f"<{count}Q", *map(_zigzag, differences))
    return b"".join([data[plane::8] for plane in range(8)])


def _zigzag(value: int) -> int:
    return value << 1 if value >= 0 else ~(value << 1)


def _signed(value: int) -> int:
    """What is left of it in 64 bits."""
    return (value + _SIGN & _WORD) - _SIGN


def _decompressed(data: bytes) -> tuple[bytes, int]:
    """The planes of all columns, and how many rows they are of. Raises Corrupt."""
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
    return planes, count


def decode_packed(data: bytes, number: int) -> Packed:
    """The packed rows again, under this number. Raises Corrupt."""
    planes, count = _decompressed(data)
    size = 8 * count
    columns = [_column(planes[at : at + size], count) for at in range(0, len(planes), size)]
    return pack(zip([number] * count, *columns, strict=True))


def _column(planes: bytes, count: int) -> Sequence[int]:
    firsts = planes[::count]
    if len(planes) - planes.count(0) == 8 - firsts.count(0):  # all differences are 0
        return [_unzigzag(int.from_bytes(firsts, "little"))] * count
    data = bytearray(len(planes))
    for plane in range(8):
        data[plane::8] = planes[plane * count : (plane + 1) * count]
    values = accumulate(map(_unzigzag, struct.unpack(f"<{count}Q", data)))
    return [_signed(value) for value in values]


def _unzigzag(word: int) -> int:
    return word >> 1 ^ -(word & 1)


def decode_columns(data: bytes, number: int) -> Rows:
    """The same as an array, faster. Raises Corrupt."""
    import numpy as np

    planes, count = _decompressed(data)
    shape = np.frombuffer(planes, np.uint8).reshape(len(COLUMNS), 8, count).transpose(0, 2, 1)
    zigzag: npt.NDArray[np.int64] = np.ascontiguousarray(shape).view(np.int64)[:, :, 0]
    # The shift has to be one without sign, the sign is in the lowest bit.
    differences = (zigzag.view(np.uint64) >> np.uint64(1)).view(np.int64) ^ -(zigzag & 1)
    values = np.cumsum(differences, axis=1)
    rows = np.empty(count, row_type())
    rows["number"] = number
    for index, name in enumerate(COLUMNS):
        rows[name] = values[index]
    return rows


def write_sealed(path: Path, containers: Iterable[tuple[Definition, Packed]]) -> None:
    """Write a sealed window: under another name first, so that it is whole or not there. Raises OSError."""
    index: list[list[object]] = []
    first, last, total, highest, offset = 0, 0, 0, 0, 0
    with whole_file(path) as file:
        for definition, rows in containers:
            chunk = encode_columns(rows)
            file.write(chunk)
            when = times(rows)
            low, high = min(when), max(when)
            index.append([*definition, offset, len(chunk), len(when), low, high])
            offset += len(chunk)
            total += len(when)
            first, last = min(first or low, low), max(last, high)
            highest = max(highest, definition.number)
        packed = zstandard.ZstdCompressor(level=3).compress(orjson.dumps(index))
        footer = _FOOTER.pack(
            offset, len(packed), isal_zlib.crc32(packed), first, last, total, len(index), highest
        )
        file.write(packed + footer + _END.pack(isal_zlib.crc32(footer), _MAGIC))


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

    def rows_of(self, entries: Sequence[Entry], decode: Callable[[bytes, int], _T]) -> list[_T | Corrupt]:
        """The rows of some containers, each or why it cannot be read; ``decode`` is one of the two.

        Raises OSError.
        """
        found: list[_T | Corrupt] = []
        with self.path.open("rb") as file:
            for entry in entries:
                file.seek(entry.offset)
                try:
                    found.append(decode(file.read(entry.length), entry.definition.number))
                except (Corrupt, zstandard.ZstdError) as error:
                    found.append(Corrupt(f"{self.path}: {entry.definition.name}: {error}"))
        return found
