"""Steps of history as frames in a file: a header with checksum and times, then some steps, compressed together.

A growing file has a frame a step, a sealed one many steps a frame. Bytes to values only: files are
``step_log.py``'s, what a step's bytes mean is for whoever writes them.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

import zstandard
from isal import isal_zlib

__all__ = [
    "HEADER_BYTES",
    "MOST_BYTES",
    "BadFrame",
    "Header",
    "decode",
    "encode",
    "find_frame",
    "parse_header",
]

Step = tuple[int, bytes]  #: its time in microseconds since 1970, and what was written

#: A frame's steps take at most this when they are unpacked.
MOST_BYTES: Final = 64 << 20

_MAGIC: Final = b"TPST"
#: Magic, checksum of all that follows; length of the payload, steps, times of the oldest and the newest of them.
_HEADER: Final = struct.Struct("<4sIIIqq")
_STEP: Final = struct.Struct("<qI")  # time, bytes
HEADER_BYTES: Final = _HEADER.size
_COVERED: Final = 8  # the checksum covers what is behind it


class BadFrame(ValueError):
    """Bytes that are not what was written."""


class Header(NamedTuple):
    """What stands in front of a frame's payload."""

    checksum: int
    length: int  #: of the payload
    steps: int
    first_us: int
    last_us: int


def encode(steps: Sequence[Step], level: int) -> bytes:
    """A frame of these steps; a higher ``level`` takes more time and less room."""
    packed = zstandard.ZstdCompressor(level=level, write_checksum=False).compress(
        b"".join(_STEP.pack(time_us, len(data)) + data for time_us, data in steps)
    )
    times = [time_us for time_us, _ in steps]
    head = _HEADER.pack(_MAGIC, 0, len(packed), len(steps), min(times), max(times))
    checksum = isal_zlib.crc32(packed, isal_zlib.crc32(head[_COVERED:]))
    return _HEADER.pack(_MAGIC, checksum, len(packed), len(steps), min(times), max(times)) + packed


def parse_header(data: bytes) -> Header | None:
    """The header at the beginning of ``data``; None where there is none."""
    if len(data) < HEADER_BYTES:
        return None
    magic, *fields = _HEADER.unpack_from(data)
    return Header(*fields) if magic == _MAGIC else None


def decode(data: bytes) -> list[Step]:
    """The steps of a whole frame. Raises BadFrame."""
    header = parse_header(data)
    if header is None or len(data) != HEADER_BYTES + header.length:
        raise BadFrame(f"{len(data)} bytes that are no frame")
    if isal_zlib.crc32(data[_COVERED:]) != header.checksum:
        raise BadFrame("checksum does not fit")
    try:
        whole = zstandard.ZstdDecompressor().decompress(data[HEADER_BYTES:], max_output_size=MOST_BYTES)
    except zstandard.ZstdError as error:
        raise BadFrame(str(error)) from error
    steps = []
    at = 0
    while at < len(whole):
        time_us, length = _STEP.unpack_from(whole, at)
        at += _STEP.size
        steps.append((time_us, whole[at : at + length]))
        at += length
    return steps


def find_frame(data: bytes, start: int) -> int:
    """Where the next whole frame begins at or after ``start``; -1 for nowhere."""
    at = data.find(_MAGIC, start)
    while at >= 0:
        header = parse_header(data[at : at + HEADER_BYTES])
        end = at + HEADER_BYTES + (header.length if header else 0)
        if header and end <= len(data) and isal_zlib.crc32(data[at + _COVERED : end]) == header.checksum:
            return at
        at = data.find(_MAGIC, at + 1)
    return -1
