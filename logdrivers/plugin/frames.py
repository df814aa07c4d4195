"""The frames of Docker's log plugin protocol, both ways: what comes out of a FIFO, what ``ReadLogs`` answers.

A frame is a big-endian u32 length and a protobuf LogEntry: 1 source, 2 time_nano, 3 line without newline,
4 partial, 5 {1 last, 2 id, 3 ordinal}. Pure functions on whole pieces of a stream; which blocks the frames
become is ``plugin/blocks.py``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from logdrivers.block import Partial, Stream

__all__ = ["MAX_FRAME", "FrameError", "Frames", "decode", "encode", "encode_plain"]

#: The longest frame a Docker Engine takes or makes, with room to spare.
MAX_FRAME = 2_000_000

_LENGTH = struct.Struct(">I")
_SOURCES = {b"stdout": Stream.STDOUT, b"stderr": Stream.STDERR}
#: The first bytes of nearly every entry: the source and the key of the time.
_HEADS = {b"\n\x06" + name + b"\x10": stream for name, stream in _SOURCES.items()}
_TIME_BYTES = 9  # of a time after 1972 and before 2262
_SHIFTS = np.arange(0, 7 * _TIME_BYTES, 7, dtype=np.int64)
_GOES_ON = np.arange(_TIME_BYTES) < _TIME_BYTES - 1


class FrameError(ValueError):
    """Bytes that are no frame: nothing behind them can be told apart any more."""


@dataclass(frozen=True, slots=True)
class Frames:
    """Whole frames of a stream, as columns of equal length."""

    streams: list[Stream]
    times_ns: list[int]
    lines: list[bytes]  #: without newline
    ends: list[int]  #: where each frame ends in the data it was decoded from
    partials: Mapping[int, Partial]  #: by index: those frames that are a piece of a longer line

    def __len__(self) -> int:
        return len(self.lines)


def decode(data: bytes) -> Frames:
    """All whole frames from the start of ``data``; an incomplete one at the end is left over.

    Raises FrameError, if not even the first can be one; else the frames before the bad one are returned.
    """
    frames = _decode(data, _HEADS)
    if frames is None:
        frames = _decode(data, {})
    assert frames is not None  # only a usual shape that was not one after all
    return frames


def _decode(data: bytes, heads: Mapping[bytes, Stream]) -> Frames | None:
    """None if a time did not have the shape that ``heads`` (of the usual frames) promised."""
    streams: list[Stream] = []
    times: list[bytes] = []
    lines: list[bytes] = []
    ends: list[int] = []
    partials: dict[int, Partial] = {}
    to_int = int.from_bytes
    at, total = 0, len(data)
    while at + 4 <= total:
        end = at + 4 + to_int(data[at : at + 4], "big")
        if end > total:
            if end - at > MAX_FRAME:
                _refuse(lines, f"a frame of {end - at - 4} bytes, expected at most {MAX_FRAME}")
            break
        # Nearly every frame has this shape: a nine-byte time, a line of one or two bytes of length, no more.
        stream = heads.get(data[at + 4 : at + 13])
        start = at + 24
        if stream is not None and end > start and data[at + 22] == 0x1A:
            length = data[at + 23]
            if length >= 0x80:
                length += (data[start] << 7) - 0x80
                start += 1
            if end - start == length:
                streams.append(stream)
                times.append(data[at + 13 : at + 22])
                lines.append(data[start:end])
                ends.append(end)
                at = end
                continue
        try:
            stream, time_ns, line, partial = _entry(data, at + 4, end)
        except (ValueError, IndexError) as error:
            _refuse(lines, f"a frame that is no log entry: {data[at:end][:60]!r}: {error}")
            break
        if partial is not None:
            partials[len(lines)] = partial
        streams.append(stream)
        times.append(_padded(time_ns))
        lines.append(line)
        ends.append(end)
        at = end
    times_ns = _times(times)
    return None if times_ns is None else Frames(streams, times_ns, lines, ends, partials)


def _refuse(lines: list[bytes], text: str) -> None:
    if not lines:
        raise FrameError(text)


def _times(raw: list[bytes]) -> list[int] | None:
    """Nanoseconds of nine-byte varints; None if there is one that is not nine bytes."""
    digits = np.frombuffer(b"".join(raw), np.uint8).reshape(-1, _TIME_BYTES)
    if ((digits >= 0x80) != _GOES_ON).any():
        return None
    values: list[int] = ((digits & 0x7F).astype(np.int64) << _SHIFTS).sum(axis=1).tolist()
    return values


def _padded(time_ns: int) -> bytes:
    """Any time below 2^63 as a nine-byte varint."""
    return bytes((time_ns >> shift & 0x7F) | (0x80 if shift < 56 else 0) for shift in _SHIFTS.tolist())


def _entry(data: bytes, at: int, end: int) -> tuple[Stream, int, bytes, Partial | None]:
    """Any log entry, field by field."""
    stream, time_ns, line, is_partial, partial = Stream.MIXED, 0, b"", False, None
    for number, value in _fields(data, at, end):
        match number, value:
            case 1, bytes() if value in _SOURCES:
                stream = _SOURCES[value]
            case 2, int():
                time_ns = value if value < 1 << 63 else 0  # before 1970: no clock says so in earnest
            case 3, bytes():
                line = value
            case 4, int():
                is_partial = bool(value)
            case 5, bytes():
                partial = _partial(value)
            case _:
                if number <= 5:
                    raise ValueError(f"field {number} is {value!r}")
    if stream is Stream.MIXED:
        raise ValueError("no source, expected stdout or stderr")
    if is_partial and partial is None:
        partial = Partial("", 0, False)  # an engine older than partial metadata
    return stream, time_ns, line, partial if is_partial else None


def _partial(data: bytes) -> Partial:
    values = dict(_fields(data, 0, len(data)))
    identifier, ordinal = values.get(2, b""), values.get(3, 0)
    if not isinstance(identifier, bytes) or not isinstance(ordinal, int):
        raise ValueError(f"partial metadata {values!r}")
    return Partial(identifier.decode("ascii", "replace"), ordinal & 0xFFFFFFFF, bool(values.get(1)))


def _fields(data: bytes, at: int, end: int) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a protobuf message; fixed-size ones are passed over."""
    while at < end:
        key, at = _varint(data, at, end)
        match key & 7:
            case 0:
                value, at = _varint(data, at, end)
                yield key >> 3, value
            case 2:
                length, at = _varint(data, at, end)
                if at + length > end:
                    raise ValueError(f"a field of {length} bytes where {end - at} are left")
                yield key >> 3, data[at : at + length]
                at += length
            case 1 | 5 as kind:
                at += 8 if kind == 1 else 4
            case kind:
                raise ValueError(f"wire type {kind}")
    if at != end:
        raise ValueError("a field goes beyond the frame")


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("an unfinished number")


# --- encoding ------------------------------------------------------------------------------------------


def _number(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


#: Headers of lines, by length: most lines find theirs here.
_LINE_HEADERS = tuple(b"\x1a" + _number(length) for length in range(4096))
_STREAM_HEADERS = {
    stream: b"\n" + _number(len(stream.text)) + stream.text.encode() + b"\x10" for stream in Stream
}


def encode(stream: Stream, time_ns: int, line: bytes, partial: Partial | None = None) -> bytes:
    """One frame. ``line`` is written as it is: ``ReadLogs`` wants the newline in it, a FIFO does not."""
    rest = b""
    if partial is not None:
        meta = (b"\x08\x01" if partial.last else b"") + b"\x12" + _number(len(partial.id))
        meta += partial.id.encode() + b"\x18" + _number(partial.ordinal)
        rest = b"\x20\x01\x2a" + _number(len(meta)) + meta
    return encode_plain(_STREAM_HEADERS[stream] + _number(time_ns), (line,), rest)


def encode_plain(head: bytes, lines: tuple[bytes, ...] | list[bytes], rest: bytes = b"") -> bytes:
    """Frames of lines that share ``head`` (everything before the line) and ``rest`` (everything after)."""
    pack, headers = _LENGTH.pack, _LINE_HEADERS
    fixed = len(head) + len(rest)
    out: list[bytes] = []
    for line in lines:
        length = len(line)
        header = headers[length] if length < 4096 else b"\x1a" + _number(length)
        out += (pack(fixed + len(header) + length), head, header, line, rest)
    return b"".join(out)
