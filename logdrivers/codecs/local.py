"""The records of Docker's ``local`` driver: a length, a protobuf ``LogEntry``, the length again.

``[u32 BE n][LogEntry][u32 BE n]`` with LogEntry 1 source, 2 time_nano (varint), 3 line (without newline),
4 partial, 5 {1 last, 2 id, 3 ordinal}, 6 attributes {1 key, 2 value}; what is empty is left out, as Docker
leaves it. Encoding works on whole blocks: lines of one length share all their framing.
"""

from __future__ import annotations

import logging
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from logdrivers.block import Block, Encoding, Partial, Stream
from logdrivers.codecs.json_file_columns import columns

__all__ = ["LocalEncoder", "LocalRecords", "Record", "decode"]

_log = logging.getLogger(__name__)

_SIZE = struct.Struct(">I")
_AROUND = 2 * _SIZE.size
_SOURCE, _TIME, _LINE, _PARTIAL, _METADATA, _ATTRIBUTE = 0x0A, 0x10, 0x1A, 0x20, 0x2A, 0x32
_LAST, _ID, _ORDINAL = 0x08, 0x12, 0x18
_KEY, _VALUE = 0x0A, 0x12
_STREAMS = {b"stdout": Stream.STDOUT, b"stderr": Stream.STDERR}
_CHUNK = 1 << 20
#: The lowest bits of a number, seven in each of the first bytes of its varint, where more follow.
_LOW_BITS = 28
_LOW_LIMIT = 1 << _LOW_BITS
_LOW = struct.Struct("<I").pack
#: A piece of a line of which nothing but that is known (records of others may lack the metadata).
_UNKNOWN_PIECE = Partial("", 0, False)


class Record(NamedTuple):
    """One record, decoded."""

    end: int  #: the offset behind it in the data it was decoded from
    time_ns: int
    stream: Stream
    line: bytes  #: without newline
    partial: Partial | None


# --- writing -------------------------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def _varint(number: int) -> bytes:
    number &= (1 << 64) - 1  # protobuf writes negative numbers as if unsigned
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _varints(numbers: Sequence[int]) -> list[bytes]:
    """Times as varints: of those close together the upper bits are the same, and the lower fill four bytes."""
    if not numbers or min(numbers) < _LOW_LIMIT:
        return [_varint(number) for number in numbers]
    uppers = {upper: _varint(upper) for upper in {number >> _LOW_BITS for number in numbers}}
    return [
        _LOW(
            number & 0x7F
            | (number & 0x3F80) << 1
            | (number & 0x1FC000) << 2
            | (number & 0xFE00000) << 3
            | 0x80808080
        )
        + uppers[number >> _LOW_BITS]
        for number in numbers
    ]


def _field(tag: int, data: bytes) -> bytes:
    return b"%c%s%s" % (tag, _varint(len(data)), data) if data else b""


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


class LocalEncoder:
    """Encodes one container's blocks; its attributes are rendered once."""

    def __init__(self, attrs: Mapping[str, str] | None = None) -> None:
        self._attrs = b"".join(
            _field(_ATTRIBUTE, _field(_KEY, _utf8(key)) + _field(_VALUE, _utf8(value)))
            for key, value in sorted((attrs or {}).items())
        )

    def encode(self, block: Block) -> bytes:
        """The block as records. Raises ValueError for a block that is not what its fields say."""
        if block.encoding is Encoding.JSON_FILE:
            return self._from_json(block.data)
        data = block.data
        if block.partial is not None:
            return self._records(block.first_ns, block.stream, [data], _metadata(block.partial))
        if not data.endswith(b"\n"):
            raise ValueError(f"block of {block.lines} lines does not end in a newline: {data[-40:]!r}")
        if block.encoding is Encoding.MESSAGE:
            return self._records(block.first_ns, block.stream, [data[:-1]])
        lines = data.split(b"\n")
        lines.pop()
        if len(lines) != block.lines:
            raise ValueError(f"block of {block.lines} lines holds {len(lines)}: {data[:40]!r}")
        return self._records(block.first_ns, block.stream, lines)

    def _from_json(self, data: bytes) -> bytes:
        """Json-file records; what differs from one to the next is looked up or put together at once for all."""
        times_ns, streams, logs = columns(data)
        lines = [log[:-1] if log[-1:] == b"\n" else log for log in logs]
        lengths = list(map(len, lines))
        times = _varints(times_ns)
        # Of a record, all but the time and the line follows from these.
        kinds = list(
            zip(
                streams,
                lengths,
                [len(log) != length for log, length in zip(logs, lengths, strict=True)],
                map(len, times),
                strict=True,
            )
        )
        frames = {kind: self._frame(*kind) for kind in set(kinds)}
        found = [frames[kind] for kind in kinds]
        parts = [b""] * (5 * len(lines))
        parts[0::5] = [frame[0] for frame in found]
        parts[1::5] = times
        parts[2::5] = [frame[1] for frame in found]
        parts[3::5] = lines
        parts[4::5] = [frame[2] for frame in found]
        return b"".join(parts)

    def _frame(
        self, stream: Stream, length: int, whole: bool, time_length: int
    ) -> tuple[bytes, bytes, bytes]:
        """What stands before a record's time, between time and line, and behind the line."""
        head = _field(_SOURCE, stream.text.encode()) + b"%c" % _TIME
        tag = b"%c%s" % (_LINE, _varint(length)) if length else b""
        tail = (b"" if whole else b"%c\x01" % _PARTIAL) + self._attrs
        size = _SIZE.pack(len(head) + time_length + len(tag) + length + len(tail))
        return size + head, tag, tail + size

    def _records(self, time_ns: int, stream: Stream, lines: list[bytes], piece: bytes = b"") -> bytes:
        head = _field(_SOURCE, stream.text.encode()) + b"%c%s" % (_TIME, _varint(time_ns))
        tail = piece + self._attrs
        before: dict[int, bytes] = {}
        behind: dict[int, bytes] = {}
        lengths = list(map(len, lines))
        for length in set(lengths):
            tag = b"%c%s" % (_LINE, _varint(length)) if length else b""
            size = _SIZE.pack(len(head) + len(tag) + length + len(tail))
            before[length] = size + head + tag
            behind[length] = tail + size
        parts = [b""] * (3 * len(lines))
        parts[0::3] = map(before.__getitem__, lengths)
        parts[1::3] = lines
        parts[2::3] = map(behind.__getitem__, lengths)
        return b"".join(parts)


def _metadata(partial: Partial) -> bytes:
    fields = b"%c\x01" % _LAST if partial.last else b""
    fields += _field(_ID, partial.id.encode())
    if partial.ordinal:
        fields += b"%c%s" % (_ORDINAL, _varint(partial.ordinal))
    return b"%c\x01%c%s%s" % (_PARTIAL, _METADATA, _varint(len(fields)), fields)


# --- reading -------------------------------------------------------------------------------------------


def decode(data: bytes) -> Iterator[Record]:
    """The whole records in ``data``, which begins at one.

    A record whose inside is no LogEntry is handed out as a line of its raw bytes, with the time of the one
    before: nothing is passed over, and a reader is not held up.
    """
    at = 0
    time_ns = 0
    head, head_stream = b"\xff", Stream.MIXED  # of the last plain record, up to its line
    for end in _ends(data):
        begin, stop = at + _SIZE.size, end - _SIZE.size
        at = end
        if data.startswith(head, begin):
            line_at = begin + len(head)
            length = data[line_at] if line_at < stop else 0
            line_at += 1
            if length < 0x80 and line_at + length == stop:
                yield Record(end, time_ns, head_stream, data[line_at:stop], None)
                continue
        try:
            record, line_tag = _entry(data, begin, stop, end)
        except (ValueError, IndexError) as error:
            _log.warning("a record of %d bytes is no LogEntry, shown as it is: %s", stop - begin, error)
            yield Record(end, time_ns, Stream.MIXED, data[begin:stop].replace(b"\n", b" "), None)
            continue
        time_ns = record.time_ns
        head, head_stream = (data[begin : line_tag + 1] if line_tag else b"\xff"), record.stream
        yield record


def _ends(data: bytes) -> Iterator[int]:
    """Where each whole record ends, up to the first that is torn or none."""
    at, size_at, end_of_data = 0, _SIZE.unpack_from, len(data)
    while at + _AROUND <= end_of_data:
        (size,) = size_at(data, at)
        end = at + _AROUND + size
        if end > end_of_data or size_at(data, end - _SIZE.size)[0] != size:
            return
        yield end
        at = end


def _number(data: bytes, at: int) -> tuple[int, int]:
    """A varint and the offset behind it."""
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def _fields(data: bytes, at: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
    """Tag, value (the length of a text), where the text begins, where the field's tag is."""
    while at < stop:
        tag_at = at
        tag, at = _number(data, at)
        kind = tag & 7
        if kind == 1 or kind == 5:
            value, begin, at = 0, at, at + (8 if kind == 1 else 4)
        elif kind == 0 or kind == 2:
            value, begin = _number(data, at)
            at = begin + value if kind == 2 else begin
        else:
            raise ValueError(f"field of wire type {kind}")
        if at > stop:
            raise ValueError("a field reaches beyond its record")
        yield tag, value, begin, tag_at


def _entry(data: bytes, begin: int, stop: int, end: int) -> tuple[Record, int]:
    """The record, and where its line's tag is if it can serve as the head of others (0 if not)."""
    time_ns, stream, line, partial, line_tag = 0, Stream.MIXED, b"", None, 0
    plain = True
    for tag, value, at, tag_at in _fields(data, begin, stop):
        if tag == _SOURCE:
            stream = _STREAMS.get(data[at : at + value], Stream.MIXED)
        elif tag == _TIME:
            time_ns = value - (1 << 64) if value >> 63 else value
        elif tag == _LINE:
            line, line_tag = data[at : at + value], tag_at
        else:
            plain = False
            if tag == _PARTIAL and value:
                partial = partial or _UNKNOWN_PIECE
            elif tag == _METADATA:
                partial = _piece(data, at, at + value)
    return Record(end, time_ns, stream, line, partial), line_tag if plain else 0


def _piece(data: bytes, begin: int, stop: int) -> Partial:
    identifier, ordinal, last = "", 0, False
    for tag, value, at, _ in _fields(data, begin, stop):
        if tag == _LAST:
            last = bool(value)
        elif tag == _ID:
            identifier = data[at : at + value].decode("utf-8", "replace")
        elif tag == _ORDINAL:
            ordinal = value
    return Partial(identifier, ordinal, last)


class LocalRecords:
    """The RecordFormat of these records."""

    def whole(self, data: bytes) -> int:
        """How many bytes of ``data`` are whole records."""
        end = 0
        for end in _ends(data):  # noqa: B007
            pass
        return end

    def whole_in_file(self, descriptor: int) -> int:
        """How many bytes of a file are whole records, read from its start."""
        offset, size = 0, _CHUNK
        while data := os.pread(descriptor, size, offset):
            whole = self.whole(data)
            if not whole and len(data) < size:
                break
            size = _CHUNK if whole else size * 4
            offset += whole
        return offset

    def through(self, data: bytes, begin: int, size: int) -> int:
        """The end of the record that has the ``size``-th byte behind ``begin``, of at least one record."""
        at, wanted = begin, begin + max(size, 1)
        while at < wanted and at < len(data):
            at += _SIZE.unpack_from(data, at)[0] + _AROUND
        return at

    def behind(self, data: bytes, count: int) -> int:
        """The offset behind so many records. Raises ValueError if there are fewer."""
        if not count:
            return 0
        for number, end in enumerate(_ends(data), 1):
            if number == count:
                return end
        raise ValueError(f"fewer than {count} records in {len(data)} bytes")

    def count(self, data: bytes) -> int:
        """How many records whole data holds."""
        return sum(1 for _ in _ends(data))

    def source_bytes(self, data: bytes) -> int:
        """How many bytes a container wrote to give these records."""
        return sum(len(r.line) + (r.partial is None or r.partial.last) for r in decode(data))

    def stream(self, data: bytes) -> Stream:
        """The stream all records are of, or MIXED."""
        streams = {record.stream for record in decode(data)}
        return streams.pop() if len(streams) == 1 else Stream.MIXED

    def time_range(self, data: bytes) -> tuple[int, int]:
        """The lowest and highest time of the records; (0, 0) for none."""
        times = {record.time_ns for record in decode(data)}
        return (min(times), max(times)) if times else (0, 0)

    def first_since(self, data: bytes, time_ns: int) -> int | None:
        """The offset of the first record of this time or later."""
        offset = 0
        for record in decode(data):
            if record.time_ns >= time_ns:
                return offset
            offset = record.end
        return None

    def blocks(self, data: bytes) -> Iterator[tuple[int, Block]]:
        """A block per run of lines of one time and stream, per message of several lines, and per piece."""
        begin = end = time_ns = 0
        stream = Stream.MIXED
        lines: list[bytes] = []
        for record in decode(data):
            alone = record.partial is not None or b"\n" in record.line
            alike = record.time_ns == time_ns and record.stream is stream
            if lines and (alone or not alike):
                yield end - begin, _lines_block(lines, stream, time_ns)
                begin, lines = end, []
            end, time_ns, stream = record.end, record.time_ns, record.stream
            if not alone:
                lines.append(record.line)
            else:
                yield end - begin, _single(record)
                begin = end
        if lines:
            yield end - begin, _lines_block(lines, stream, time_ns)


def _lines_block(lines: list[bytes], stream: Stream, time_ns: int) -> Block:
    data = b"\n".join(lines) + b"\n"
    return Block(data, Encoding.LINES, stream, time_ns, time_ns, len(lines))


def _single(record: Record) -> Block:
    """A piece of a longer line, or a message of several lines."""
    _, time_ns, stream, line, partial = record
    if partial is not None:
        return Block(line, Encoding.LINES, stream, time_ns, time_ns, 1, partial)
    return Block(line + b"\n", Encoding.MESSAGE, stream, time_ns, time_ns, 1)
