"""The bytes of a journal segment: a header, then frames, each with its own checksum and its place in the journal.

A frame carries one block, raw or zstd, with the lines and source bytes that came before, so any intact frame
says where the journal stood: nothing else need survive. Files and their life are ``logdrivers/journals/segments.py``.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import zstandard

from logdrivers.block import Block, Encoding, Partial, Stream
from logdrivers.journal import Mark

__all__ = ["HEADER_SIZE", "Frame", "SegmentHeader", "block_of", "encode_frame", "frames"]

_SEGMENT = struct.Struct("<8sIQQQqQQ")  # magic, crc32 of the rest, the fields of SegmentHeader
_SEGMENT_MAGIC = b"TFSEGM01"
HEADER_SIZE = _SEGMENT.size

_MAGIC = b"\xf7TF\x1a"
#: magic, crc32 of all that follows, header length, flags, stream, raw and stored length, first and last time,
#: first line, lines, marks, bytes before, highest time before; a partial's ordinal and id follow.
_FRAME = struct.Struct("<4sIHBBIIqqQIQQQq")
_ORDINAL = struct.Struct("<I")
_CHECKED_FROM = 8
_ZSTD, _JSON_FILE, _PARTIAL, _LAST, _MESSAGE = 1, 2, 4, 8, 16
_ENCODING_FLAGS = {Encoding.LINES: 0, Encoding.JSON_FILE: _JSON_FILE, Encoding.MESSAGE: _MESSAGE}
_ENCODINGS = {flags: encoding for encoding, flags in _ENCODING_FLAGS.items()}
#: Below this, zstd's own frame costs more than it saves.
_SMALLEST_COMPRESSED = 200
_LONGEST_STORED = 1 << 30


class SegmentHeader(NamedTuple):
    """How the journal stood when a segment began."""

    number: int
    first_line: int
    bytes_before: int
    high_ns: int
    mark: Mark

    def pack(self) -> bytes:
        """The header's bytes."""
        fields = (self.number, self.first_line, self.bytes_before, self.high_ns, *self.mark)
        packed = _SEGMENT.pack(_SEGMENT_MAGIC, 0, *fields)
        return packed[:8] + struct.pack("<I", zlib.crc32(packed[12:])) + packed[12:]

    @classmethod
    def parse(cls, data: bytes) -> SegmentHeader | None:
        """The header at the start of ``data``; None if it is not one."""
        if len(data) < HEADER_SIZE or data[:8] != _SEGMENT_MAGIC:
            return None
        _, checksum, number, first_line, before, high_ns, stdout, stderr = _SEGMENT.unpack_from(data)
        if zlib.crc32(data[12:HEADER_SIZE]) != checksum:
            return None
        return cls(number, first_line, before, high_ns, Mark(stdout, stderr))


class Frame(NamedTuple):
    """A frame in some bytes, checked, not yet decompressed. Offsets are into these bytes."""

    start: int
    payload: int  #: where the stored bytes begin
    end: int
    flags: int
    stream: int
    raw_bytes: int
    first_ns: int
    last_ns: int
    first_line: int
    lines: int
    mark: Mark  #: covers this frame
    bytes_before: int
    high_ns: int  #: highest time before this frame
    partial: Partial | None

    @property
    def end_line(self) -> int:
        """Lines in the journal up to and with this frame."""
        return self.first_line + self.lines

    @property
    def source_bytes(self) -> int:
        """Bytes of the source in this frame."""
        return self.raw_bytes + (self.partial is not None and self.partial.last)


def encode_frame(
    block: Block,
    mark: Mark,
    first_line: int,
    bytes_before: int,
    high_ns: int,
    compressor: zstandard.ZstdCompressor,
) -> bytes:
    """One frame. ``mark`` holds once it is in."""
    flags = _ENCODING_FLAGS[block.encoding]
    extra = b""
    if block.partial is not None:
        flags |= _PARTIAL | (_LAST if block.partial.last else 0)
        extra = _ORDINAL.pack(block.partial.ordinal) + block.partial.id.encode()
    stored = block.data
    if len(stored) >= _SMALLEST_COMPRESSED:
        compressed = compressor.compress(stored)
        if len(compressed) < len(stored):
            stored, flags = compressed, flags | _ZSTD
    head = _FRAME.pack(
        _MAGIC,
        0,
        _FRAME.size + len(extra),
        flags,
        block.stream,
        len(block.data),
        len(stored),
        block.first_ns,
        block.last_ns,
        first_line,
        1 if block.partial else block.lines,
        *mark,
        bytes_before,
        high_ns,
    )
    checksum = zlib.crc32(stored, zlib.crc32(extra, zlib.crc32(head[_CHECKED_FROM:])))
    return b"".join((_MAGIC, checksum.to_bytes(4, "little"), head[_CHECKED_FROM:], extra, stored))


def block_of(frame: Frame, data: bytes, decompressor: zstandard.ZstdDecompressor) -> Block:
    """The block in a frame of ``data``. Raises ``zstandard.ZstdError`` if it does not decompress."""
    stored = data[frame.payload : frame.end]
    raw = decompressor.decompress(stored, frame.raw_bytes) if frame.flags & _ZSTD else stored
    encoding = _ENCODINGS[frame.flags & (_JSON_FILE | _MESSAGE)]
    stream = Stream(frame.stream)
    return Block(raw, encoding, stream, frame.first_ns, frame.last_ns, frame.lines, frame.partial)


def frames(data: bytes, at: int, sealed: bool) -> Iterator[Frame]:
    """The intact frames in ``data`` from ``at`` on; damaged bytes are passed over.

    In a segment that is still written, bytes at the end that could become a frame end the search; in a
    ``sealed`` one they are damage like any other.
    """
    while at < len(data):
        frame = _parse(data, at)
        if frame is not None:
            yield frame
            at = frame.end
            continue
        if not sealed and _may_grow(data, at):
            return
        at = data.find(_MAGIC, at + 1)
        if at < 0:
            return


def _may_grow(data: bytes, at: int) -> bool:
    """Whether ``data`` may end within a frame that begins at ``at``."""
    if len(data) - at < _FRAME.size:
        return _MAGIC.startswith(data[at : at + 4])
    magic, _, length, _, _, _, stored, *_ = _FRAME.unpack_from(data, at)
    return bool(magic == _MAGIC and stored < _LONGEST_STORED and at + length + stored > len(data))


def _parse(data: bytes, at: int) -> Frame | None:
    if len(data) - at < _FRAME.size or data[at : at + 4] != _MAGIC:
        return None
    (_, checksum, length, flags, stream, raw, stored, first_ns, last_ns, first_line, lines,
     stdout, stderr, before, high_ns) = _FRAME.unpack_from(data, at)  # fmt: skip
    end = at + length + stored
    if length < _FRAME.size or end > len(data) or stream > Stream.STDERR:
        return None
    if zlib.crc32(memoryview(data)[at + _CHECKED_FROM : end]) != checksum:
        return None
    partial = None
    if flags & _PARTIAL:
        (ordinal,) = _ORDINAL.unpack_from(data, at + _FRAME.size)
        identifier = data[at + _FRAME.size + 4 : at + length].decode()
        partial = Partial(identifier, ordinal, bool(flags & _LAST))
    return Frame(
        at, at + length, end, flags, stream, raw, first_ns, last_ns, first_line, lines,
        Mark(stdout, stderr), before, high_ns, partial,
    )  # fmt: skip
