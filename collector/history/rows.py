"""One step of one container as a row of fixed size, and the frames that rows are appended to a file in.

A frame holds a step's rows of all containers, ordered by number, and the definitions of numbers the file
has not seen before; a checksum covers both. Bytes to values only: files are ``raw.py``'s and ``sealed.py``'s.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson
from isal import isal_zlib

__all__ = [
    "BEGAN",
    "BEGAN_AT",
    "CARRY",
    "COLUMNS",
    "COUNTERS",
    "HEADER_BYTES",
    "ROW",
    "Definition",
    "Frame",
    "Rows",
    "decode_definitions",
    "encode_frame",
    "parse_header",
    "payload_fits",
]

Rows = npt.NDArray[np.void]

#: Totals, as the kernel had them at the row's time (microseconds and bytes).
COUNTERS: Final = ("cpu_us", "rx_bytes", "tx_bytes", "read_bytes", "write_bytes", "throttled_us")

#: A row's fields. ``time_us`` is that of the step's last sample; averages are over the step's samples.
ROW: Final = np.dtype(
    [
        ("number", "<u4"),
        ("flags", "<u2"),
        ("samples", "<u2"),
        ("time_us", "<i8"),
        *((name, "<i8") for name in COUNTERS),
        ("memory_avg", "<i8"),  # usage; averages in whole KiB
        ("memory_max", "<i8"),
        ("working_avg", "<i8"),
        ("working_max", "<i8"),
        ("limit", "<i8"),  # 0 = none
        ("pids_avg", "<i4"),  # in thousandths
        ("pids_max", "<i4"),
    ]
)

#: Columns of a sealed container, in this order; all but the number it is filed under.
COLUMNS: Final = tuple(name for name in ROW.names or () if name != "number")

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
        return self.offset + self.rows * ROW.itemsize + self.definition_bytes


def encode_frame(step_us: int, rows: Rows, definitions: Sequence[Definition]) -> bytes:
    """The frame's bytes; ``rows`` ordered by number."""
    extra = orjson.dumps([list(one) for one in definitions]) if definitions else b""
    payload = rows.tobytes() + extra
    rest = struct.pack("<qII", step_us, len(rows), len(extra))
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
