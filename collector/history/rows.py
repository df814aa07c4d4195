"""One step of one container as a row of fixed size, and the frames that rows are appended to a file in.

A frame holds a step's rows of all containers, ordered by number, and the definitions of numbers the file
has not seen before; a checksum covers both. Bytes to values only: files are ``raw.py``'s and ``sealed.py``'s.
What writes handles packed rows and needs no numpy, whose memory an agent nobody asks for the past is spared.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Final, NamedTuple

import orjson
from isal import isal_zlib

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Rows = npt.NDArray[np.void]

__all__ = [
    "AT",
    "BEGAN",
    "BEGAN_AT",
    "CARRY",
    "COLUMNS",
    "COUNTERS",
    "FIELDS",
    "HEADER_BYTES",
    "ROW_BYTES",
    "TOTALS",
    "Definition",
    "Frame",
    "Packed",
    "Row",
    "Rows",
    "as_array",
    "decode_definitions",
    "encode_frame",
    "numbers",
    "pack",
    "parse_header",
    "payload_fits",
    "row_type",
    "times",
    "unpack",
]

#: A row's fields, in the order of ``FIELDS``.
Row = tuple[int, ...]
#: Rows one behind the other, as they are on disk.
Packed = bytes | bytearray

#: Totals, as the kernel had them at the row's time (microseconds and bytes).
COUNTERS: Final = ("cpu_us", "rx_bytes", "tx_bytes", "read_bytes", "write_bytes", "throttled_us")

#: A row's fields and how each is stored. ``time_us`` is that of the step's last sample; averages are over the
#: step's samples.
FIELDS: Final = {
    "number": "I",
    "flags": "H",
    "samples": "H",
    "time_us": "q",
    **dict.fromkeys(COUNTERS, "q"),
    "memory_avg": "q",  # usage; averages in whole KiB
    "memory_max": "q",
    "working_avg": "q",
    "working_max": "q",
    "limit": "q",  # 0 = none
    "pids_avg": "i",  # in thousandths
    "pids_max": "i",
}

#: Columns of a sealed container, in this order; all but the number it is filed under.
COLUMNS: Final = tuple(name for name in FIELDS if name != "number")

_ROW: Final = struct.Struct("<" + "".join(FIELDS.values()))
ROW_BYTES: Final = _ROW.size
#: Places in a ``Row``.
AT: Final = {name: place for place, name in enumerate(FIELDS)}
TOTALS: Final = slice(AT[COUNTERS[0]], AT[COUNTERS[-1]] + 1)

_NUMBER: Final = struct.Struct(f"<I{ROW_BYTES - 4}x")
_TIME: Final = struct.Struct(f"<8xq{ROW_BYTES - 16}x")

#: Flag of a row that stands before a container's row of a step in which totals began anew: by how much the growth
#: since the row before is more than the difference of the two rows' totals.
CARRY: Final = 1
#: The same for a container's first row: it grew from zero, and by this row's counters more, since ``BEGAN_AT``.
BEGAN: Final = 2
#: Where a row with the flag ``BEGAN`` has the time, in microseconds, the growth is counted from.
BEGAN_AT: Final = "memory_avg"

_MAGIC: Final = 0x31484154  # "TAH1", little endian
_HEADER: Final = struct.Struct("<IIqII")  # magic, checksum of what follows, step, rows, bytes of definitions
HEADER_BYTES: Final = _HEADER.size
_MAX_ROWS: Final = 1 << 24
_MAX_DEFINITIONS: Final = 1 << 28


class Definition(NamedTuple):
    """Whose rows a number's are."""

    number: int
    id: str
    name: str
    image: str
    engine: str


class Frame(NamedTuple):
    """Where one step's rows are in a file."""

    step_us: int  #: when the step began
    offset: int  #: of the first row
    rows: int
    definition_bytes: int
    checksum: int

    @property
    def end(self) -> int:
        """Offset behind it."""
        return self.offset + self.rows * ROW_BYTES + self.definition_bytes


def pack(rows: Iterable[Row]) -> bytes:
    """The rows packed. Raises struct.error for what does not fit."""
    return b"".join([_ROW.pack(*row) for row in rows])


def unpack(packed: Packed) -> Iterator[Row]:
    """The other way."""
    return _ROW.iter_unpack(packed)


def numbers(packed: Packed) -> list[int]:
    """Whose packed rows are."""
    return [number for (number,) in _NUMBER.iter_unpack(packed)]


def times(packed: Packed) -> list[int]:
    """The times of packed rows, in microseconds."""
    return [time_us for (time_us,) in _TIME.iter_unpack(packed)]


@cache
def row_type() -> np.dtype[np.void]:
    """A packed row as a row of an array."""
    import numpy as np

    return np.dtype([(name, f"<{code}") for name, code in FIELDS.items()])


def as_array(packed: Packed) -> Rows:
    """An array over packed rows, for reading."""
    import numpy as np

    return np.frombuffer(packed, row_type())


def encode_frame(step_us: int, rows: Packed, definitions: Sequence[Definition]) -> bytes:
    """The frame's bytes; ``rows`` packed, ordered by number."""
    extra = orjson.dumps([list(one) for one in definitions]) if definitions else b""
    payload = rows + extra
    rest = struct.pack("<qII", step_us, len(rows) // ROW_BYTES, len(extra))
    checksum = isal_zlib.crc32(payload, isal_zlib.crc32(rest))
    return struct.pack("<II", _MAGIC, checksum) + rest + payload


def parse_header(header: bytes, offset: int) -> Frame | None:
    """The frame whose header stands at ``offset``; None if these bytes are none."""
    if len(header) != HEADER_BYTES:
        return None
    magic, checksum, step_us, rows, extra = _HEADER.unpack(header)
    if magic != _MAGIC or rows > _MAX_ROWS or extra > _MAX_DEFINITIONS:
        return None
    return Frame(step_us, offset + HEADER_BYTES, rows, extra, checksum)


def payload_fits(frame: Frame, payload: bytes) -> bool:
    """Whether the bytes behind a header are what was written."""
    rest = struct.pack("<qII", frame.step_us, frame.rows, frame.definition_bytes)
    return (
        len(payload) == frame.end - frame.offset
        and isal_zlib.crc32(payload, isal_zlib.crc32(rest)) == frame.checksum
    )


def decode_definitions(extra: bytes) -> list[Definition]:
    """The definitions at a frame's end. Raises ValueError for bytes that are none."""
    return [Definition(*one) for one in orjson.loads(extra)] if extra else []
