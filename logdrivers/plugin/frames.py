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
import numpy.typing as npt

from logdrivers.block import Partial, Stream

__all__ = ["MAX_FRAME", "FrameError", "Frames", "decode", "encode", "encode_plain"]

#: The longest frame a Docker Engine takes or makes, with room to spare.
MAX_FRAME = 2_000_000

Column = npt.NDArray[np.int64]

_LENGTH = struct.Struct(">I")
_SOURCES = {b"stdout": Stream.STDOUT, b"stderr": Stream.STDERR}


class FrameError(ValueError):
    """Bytes that are no frame: nothing behind them can be told apart any more."""


@dataclass(frozen=True, slots=True)
class Frames:
    """Whole frames of a stream, as columns of equal length."""

    streams: Column  #: values of Stream
    times_ns: Column
    lines: list[bytes]  #: without newline
    ends: Column  #: where each frame ends in the data it was decoded from
    partials: Mapping[int, Partial]  #: by index: those frames that are a piece of a longer line

    def __len__(self) -> int:
        return len(self.lines)


def decode(data: bytes) -> Frames:
    """All whole frames from the start of ``data``; an incomplete one at the end is left over.

    Raises FrameError, if not even the first can be one; else the frames before the bad one are returned.
    """
    usual = _UsualFrames(data)
    streams: list[Column] = []
    times: list[Column] = []
    ends: list[Column] = []
    lines: list[bytes] = []
    partials: dict[int, Partial] = {}
    at, total = 0, len(data)
    while at + 4 <= total:
        run = usual.run(at)
        if run.start < run.stop:
            streams.append(usual.streams[run])
            times.append(usual.times_ns[run])
            ends.append(usual.ends[run])
            lines += usual.lines(run)
            at = int(usual.ends[run.stop - 1])
            continue
        end = at + 4 + int.from_bytes(data[at : at + 4], "big")
        if end > total:
            if end - at > MAX_FRAME:
                _refuse(lines, f"a frame of {end - at - 4} bytes, expected at most {MAX_FRAME}")
            break
        try:
            stream, time_ns, line, partial = _entry(data, at + 4, end)
        except (ValueError, IndexError) as error:
            _refuse(lines, f"a frame that is no log entry: {data[at:end][:60]!r}: {error}")
            break
        if partial is not None:
            partials[len(lines)] = partial
        streams.append(np.array([stream]))
        times.append(np.array([time_ns]))
        ends.append(np.array([end]))
        lines.append(line)
        at = end
    return Frames(_column(streams), _column(times), lines, _column(ends), partials)


def _column(parts: list[Column]) -> Column:
    return np.concatenate(parts, dtype=np.int64) if parts else np.empty(0, np.int64)


def _refuse(lines: list[bytes], text: str) -> None:
    if not lines:
        raise FrameError(text)


#: How nearly every frame begins: a source, a time between 1975 and 2262 (nine bytes), a line's length.
_HEAD = np.dtype(
    [
        ("size", ">u4"),
        ("source", "<u8"),
        ("time_key", "u1"),
        ("time_low", "<u8"),
        ("time_high", "u1"),
        ("line_key", "u1"),
        ("length", "u1"),
        ("length_high", "u1"),
    ]
)
_STDOUT, _STDERR = (int.from_bytes(b"\n\x06" + name, "little") for name in (b"stdout", b"stderr"))
_MORE = np.uint64(0x8080808080808080)  # the bit of each byte of a number that another follows
#: Folds seven-bit groups together, two and two: which bits move, how far.
_FOLDS = tuple(
    (np.uint64(stays), np.uint64(moves), np.uint64(bits))
    for stays, moves, bits in (
        (0x007F007F007F007F, 0x7F007F007F007F00, 1),
        (0x00003FFF00003FFF, 0x3FFF00003FFF0000, 2),
        (0x000000000FFFFFFF, 0x0FFFFFFF00000000, 4),
    )
)


class _UsualFrames:
    """The frames of usual shape in some data, found and taken apart all at once.

    A line has no newline and the source's field begins with one, so few other places have to be looked at.
    Whether a place is a frame shows only when the frame before ends there: ``run`` says so.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        octets = np.frombuffer(data, np.uint8)
        room = max(0, len(data) - _HEAD.itemsize + 1)
        places = np.flatnonzero(octets[4 : 4 + room] == 0x0A)
        places = places[octets[places + 5] == 0x06]
        heads = np.ndarray((room,), f"V{_HEAD.itemsize}", data, strides=(1,))[places]
        head = heads.view(_HEAD)
        long = head["length"] >= 0x80
        length = head["length"].astype(np.int64)
        length[long] += (head["length_high"][long].astype(np.int64) - 1) << 7
        self._starts = places
        self._line_starts = places + 24 + long
        self.ends = places + 4 + head["size"]
        self.streams = np.where(head["source"] == _STDOUT, int(Stream.STDOUT), int(Stream.STDERR))
        self.times_ns = _times(head["time_low"], head["time_high"])
        usual = (
            ((head["source"] == _STDOUT) | (head["source"] == _STDERR))
            & (head["time_key"] == 0x10)
            & (head["time_low"] & _MORE == _MORE)
            & (head["time_high"] < 0x80)
            & (head["line_key"] == 0x1A)
            & (~long | (head["length_high"] < 0x80))
            & (self._line_starts + length == self.ends)
            & (self.ends <= len(data))
        )
        follows = np.empty(len(places), bool)
        follows[:-1] = self.ends[:-1] == places[1:]
        follows[-1:] = False
        self._strange = np.flatnonzero(~usual)
        self._last = np.flatnonzero(~(usual & follows))

    def run(self, at: int) -> slice:
        """The usual frames that begin at ``at`` and follow one another without a gap; empty if there is none."""
        first = int(np.searchsorted(self._starts, at))
        if first == len(self._starts) or self._starts[first] != at:
            return slice(first, first)
        last = int(self._last[np.searchsorted(self._last, first)])
        strange = np.searchsorted(self._strange, last)
        is_strange = strange < len(self._strange) and self._strange[strange] == last
        return slice(first, last + (not is_strange))

    def lines(self, run: slice) -> list[bytes]:
        """The lines of a run."""
        data = self._data
        starts, ends = self._line_starts[run].tolist(), self.ends[run].tolist()
        return [data[start:end] for start, end in zip(starts, ends, strict=True)]


def _times(low: npt.NDArray[np.uint64], high: npt.NDArray[np.uint8]) -> Column:
    """Nanoseconds of nine-byte numbers, of which ``low`` has eight bytes."""
    value = low.astype(np.uint64)
    for stays, moves, bits in _FOLDS:
        value = (value & stays) | ((value & moves) >> bits)
    return (value | (high.astype(np.uint64) << np.uint64(56))).astype(np.int64)


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
