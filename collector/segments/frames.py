"""Frames: how one block stands in a raw segment, with a checksum over everything.

A frame is a fixed header, an extra part (the checkpoint that came with the block, the piece's place in a
longer line) and the block's bytes, compressed. Headers are kept in memory as one array per segment, so
that times and sources of thousands of frames are compared at once.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final, NamedTuple

import msgpack
import zstandard
from isal import isal_zlib

from logdrivers.block import Block, Encoding, Partial, Stream

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    FrameArray = npt.NDArray[np.void]

__all__ = [
    "HEADER_BYTES",
    "HELD_BYTES",
    "MAGIC",
    "MAX_PAYLOAD",
    "Corrupt",
    "Extra",
    "Frame",
    "FrameArray",
    "check_block",
    "count_newlines",
    "crc32",
    "decode_block",
    "decode_extra",
    "decode_payload",
    "encode_extra",
    "frames",
    "pack_header",
    "parse_headers",
    "unpack_frames",
    "valid_header",
]

MAGIC: Final = 0x31464154  # "TAF1", little endian
#: Larger lengths in a header are damage, not data.
MAX_PAYLOAD: Final = 1 << 30

#: The header, in the order of the file.
_HEADER = struct.Struct("<4IIHBBIIIIQQqq")
_CHECKED = struct.Struct("<IIIHBBIIIIQQqq")
HEADER_BYTES: Final = _HEADER.size
_HELD = struct.Struct("<4IIHBBIIIIQQqqQ")
#: A header in memory, followed by its offset.
HELD_BYTES: Final = _HELD.size

_PLAIN: Final = 1  # flag: the payload is not compressed

_STREAMS = tuple(Stream)
_ENCODINGS = tuple(Encoding)

crc32 = isal_zlib.crc32


def count_newlines(data: bytes) -> int:
    """How many lines end in ``data``; ten times the speed of ``bytes.count`` on blocks."""
    if len(data) < 2048:
        return data.count(b"\n")
    import numpy as np  # here and below: memory an agent without logs is spared

    return int(np.count_nonzero(np.frombuffer(data, np.uint8) == 10))


def check_block(block: Block) -> None:
    """Raise ValueError for a block whose count of lines is not that of its data: numbers depend on it."""
    lines = 1 if block.partial is not None else count_newlines(block.data)
    if lines != block.lines or (block.partial is None and block.data and block.data[-1:] != b"\n"):
        raise ValueError(
            f"block of {block.lines} lines holds {lines} ended by a newline, {len(block.data)} bytes in all"
        )
    if block.partial is not None and block.encoding is not Encoding.LINES:
        raise ValueError("a piece of a longer line is expected in the encoding LINES")


class Corrupt(ValueError):
    """A frame or chunk whose bytes are not what was written."""


@dataclass(frozen=True, slots=True)
class Extra:
    """What stands beside a block's bytes."""

    checkpoint: tuple[str, bytes] | None = None
    partial: Partial | None = None


def encode_extra(checkpoint: tuple[str, bytes] | None, partial: Partial | None) -> bytes:
    """The extra part; empty when there is nothing to say."""
    if checkpoint is None and partial is None:
        return b""
    piece = (partial.id, partial.ordinal, partial.last) if partial is not None else None
    key, value = checkpoint if checkpoint is not None else (None, None)
    packed: bytes = msgpack.packb((key, value, piece))
    return packed


def decode_extra(data: bytes) -> Extra:
    """The other way. Raises Corrupt."""
    if not data:
        return Extra()
    try:
        key, value, piece = msgpack.unpackb(data)
        return Extra(
            None if key is None else (key, value),
            None if piece is None else Partial(*piece),
        )
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise Corrupt(f"extra part of {len(data)} bytes cannot be read: {error}") from error


def pack_header(
    block: Block,
    source: int,
    first_line: int,
    ordinal: int,
    lines_before: int,
    extra: bytes,
    payload: bytes,
    plain: bool,
) -> bytes:
    """The header of a frame."""
    checked = _CHECKED.pack(
        crc32(payload, crc32(extra)),
        len(payload),
        len(block.data),
        len(extra),
        block.encoding,
        block.stream,
        _PLAIN if plain else 0,
        source,
        block.lines,
        ordinal,
        lines_before,
        first_line,
        block.first_ns,
        block.last_ns,
    )
    return struct.pack("<II", MAGIC, crc32(checked)) + checked


@cache
def _frame_type() -> np.dtype[np.void]:
    """A header in memory as a row of an array."""
    import numpy as np

    return np.dtype(
        [
            ("magic", "<u4"),
            ("header_crc", "<u4"),  # of the header from ``payload_crc`` on
            ("payload_crc", "<u4"),  # of extra and payload
            ("payload_bytes", "<u4"),
            ("raw_bytes", "<u4"),  # of the block's data, before compression
            ("extra_bytes", "<u2"),
            ("encoding", "u1"),
            ("stream", "u1"),
            ("flags", "<u4"),
            ("source", "<u4"),
            ("lines", "<u4"),
            ("ordinal", "<u4"),  # of the frame in its segment: gaps show damage
            ("lines_before", "<u8"),  # lines in this segment before this frame
            ("first_line", "<u8"),  # of its source
            ("first_ns", "<i8"),
            ("last_ns", "<i8"),
            ("offset", "<u8"),  # not in the file: where the frame begins
        ]
    )


def parse_headers(index: bytes | bytearray) -> FrameArray:
    """The array over packed headers, each followed by its offset in the file."""
    import numpy as np

    return np.frombuffer(index, _frame_type())


def unpack_frames(index: bytes | bytearray) -> Iterator[Frame]:
    """The same, one by one."""
    return map(Frame._make, _HELD.iter_unpack(index))


class Frame(NamedTuple):
    """One row of the array, as Python numbers."""

    magic: int
    header_crc: int
    payload_crc: int
    payload_bytes: int
    raw_bytes: int
    extra_bytes: int
    encoding: int
    stream: int
    flags: int
    source: int
    lines: int
    ordinal: int
    lines_before: int
    first_line: int
    first_ns: int
    last_ns: int
    offset: int

    @property
    def size(self) -> int:
        """Bytes of the frame in the file."""
        return HEADER_BYTES + self.extra_bytes + self.payload_bytes


def frames(array: FrameArray) -> list[Frame]:
    """The rows of an array."""
    return [Frame._make(row) for row in array.tolist()]


def valid_header(header: bytes) -> bool:
    """Whether these bytes are a frame header, whole."""
    if len(header) != HEADER_BYTES:
        return False
    magic, checksum = struct.unpack_from("<II", header)
    if magic != MAGIC or crc32(header[8:]) != checksum:
        return False
    sizes = _HEADER.unpack(header)
    return bool(sizes[3] <= MAX_PAYLOAD and sizes[4] <= MAX_PAYLOAD and sizes[6] < 2 and sizes[7] < 3)


def decode_payload(
    frame: Frame, body: bytes, decompressor: zstandard.ZstdDecompressor
) -> tuple[bytes, bytes]:
    """Extra part and data of a frame from what follows its header. Raises Corrupt."""
    if len(body) != frame.extra_bytes + frame.payload_bytes or crc32(body) != frame.payload_crc:
        raise Corrupt(f"frame {frame.ordinal}: checksum does not fit")
    extra, payload = body[: frame.extra_bytes], body[frame.extra_bytes :]
    if frame.flags & _PLAIN:
        return extra, payload
    try:
        return extra, decompressor.decompress(payload, max_output_size=frame.raw_bytes)
    except zstandard.ZstdError as error:
        raise Corrupt(f"frame {frame.ordinal}: {error}") from error


def decode_block(frame: Frame, extra: bytes, data: bytes) -> Block:
    """The block a frame holds."""
    return Block(
        data,
        _ENCODINGS[frame.encoding],
        _STREAMS[frame.stream],
        frame.first_ns,
        frame.last_ns,
        frame.lines,
        decode_extra(extra).partial if extra else None,
    )
