"""Blocks to Fluentd's Forward protocol v1: what Docker's fluentd driver sends, and packed chunks beside it.

Format: the Forward Protocol Specification v1 of the Fluentd project. The other direction is
``logdrivers/codecs/forward_decode.py``; connections and acknowledgement deadlines are ``logdrivers/sinks/fluentd.py``.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

import msgpack
from isal import isal_zlib

from logdrivers.block import Block, Encoding, Partial, Stream
from logdrivers.codecs.json_file_columns import columns
from logdrivers.driver import Info
from logdrivers.options import extra_attributes

__all__ = ["ForwardEncoder", "ack"]

_EMPTY_MAP = b"\x80"
_NS = 1_000_000_000
_GZIP = 31  #: zlib's window bits for a gzip file
#: An EventTime as fixext8: seconds, of which it has 32 bits, and nanoseconds.
_EVENT_TIME = struct.Struct(">BBII").pack
_EVENT_TIME_WRAPS = _NS << 32


def _string_header(length: int) -> bytes:
    if length < 32:
        return bytes((0xA0 | length,))
    if length < 1 << 8:
        return struct.pack(">BB", 0xD9, length)
    if length < 1 << 16:
        return struct.pack(">BH", 0xDA, length)
    return struct.pack(">BI", 0xDB, length)


#: Headers of short strings, by length: most lines find theirs here.
_HEADERS = tuple(_string_header(length) for length in range(4096))


def _string(data: bytes) -> bytes:
    length = len(data)
    return (_HEADERS[length] if length < 4096 else _string_header(length)) + data


def _texts(block: Block) -> list[bytes]:
    """The texts of a block that is no json-file, packed."""
    if block.partial is not None:
        return [_string(block.data)]
    if block.encoding is Encoding.MESSAGE:
        return [_string(block.data[:-1])]
    lines = block.data.split(b"\n")
    lines.pop()  # what follows the last newline: nothing
    try:
        return [_HEADERS[len(line)] + line for line in lines]
    except IndexError:
        return [_string(line) for line in lines]


def _map_header(length: int) -> bytes:
    return bytes((0x80 | length,)) if length < 16 else struct.pack(">BH", 0xDE, length)


def _integer(value: int) -> bytes:
    """The signed forms only, as Go's msgp writes an int64 (``d2`` for today's seconds, not ``ce``)."""
    if -32 <= value < 128:
        return struct.pack("b", value)
    for code, form, bits in ((0xD0, "b", 7), (0xD1, "h", 15), (0xD2, "i", 31), (0xD3, "q", 63)):
        if -(1 << bits) <= value < 1 << bits:
            return struct.pack(">B" + form, code, value)
    raise OverflowError(f"{value} does not fit into an int64")


class ForwardEncoder:
    """The messages of one container: everything but the line is packed once, or once per block."""

    def __init__(self, info: Info, tag: str, sub_second: bool = False) -> None:
        self._tag = _string(tag.encode())
        self._sub_second = sub_second
        fields = {"container_id": info.container_id, "container_name": info.container_name}
        fields |= extra_attributes(info)
        # Docker lets a label named "log" replace the line; the line is what must arrive.
        fields.pop("log", None)
        #: A label named "source" wins over the stream, as with Docker.
        self._own_source = "source" in fields
        self._fields = b"".join(_string(k.encode()) + _string(v.encode()) for k, v in fields.items())
        self._count = len(fields) + (1 if self._own_source else 2)

    def messages(self, block: Block) -> bytes:
        """One message per line, ``[tag, time, record, {}]``, as Docker's driver sends them."""
        return self._entries(block, b"\x94" + self._tag, _EMPTY_MAP)

    def acknowledged(self, block: Block, chunks: Sequence[str]) -> list[bytes]:
        """The same, each asking for an acknowledgement, as Docker's driver does: ``chunks`` has an id for each."""
        entries = self._each(block, b"\x94" + self._tag)
        if len(entries) != len(chunks):
            raise ValueError(f"{len(chunks)} chunk ids for {len(entries)} lines")
        return [
            entry + b"\x81\xa5chunk" + _string(chunk.encode())
            for entry, chunk in zip(entries, chunks, strict=True)
        ]

    def packed(self, block: Block, chunk: str = "", *, compressed: bool = False) -> bytes:
        """One PackedForward message for the whole block, to be acknowledged with ``chunk`` (base64) if there is one.

        ``compressed`` makes it CompressedPackedForward: gzip, by isal, which takes a tenth of zlib's time for
        the same size.
        """
        entries = self._entries(block, b"\x92", b"")
        option: dict[str, object] = {"chunk": chunk} if chunk else {}
        option["size"] = block.lines
        if compressed:
            option["compressed"] = "gzip"
            entries = isal_zlib.compress(entries, 1, _GZIP)
        head = struct.pack(">BI", 0xC6, len(entries))
        return b"".join((b"\x93", self._tag, head, entries, msgpack.packb(option)))

    def _entries(self, block: Block, head: bytes, tail: bytes) -> bytes:
        """Every line between ``head`` and ``tail``."""
        if block.encoding is Encoding.JSON_FILE:
            times, records, texts = self._json_parts(block)
            parts = [tail + head] * (4 * len(texts) + 1)
            parts[1::4], parts[2::4], parts[3::4] = times, records, texts
            parts[0], parts[-1] = head, tail
            return b"".join(parts) if texts else b""
        texts = _texts(block)
        before = head + self._before(block)  # the same for all
        return before + (tail + before).join(texts) + tail if texts else b""

    def _each(self, block: Block, head: bytes) -> list[bytes]:
        """Every line behind ``head``, one by one."""
        if block.encoding is Encoding.JSON_FILE:
            parts = zip(*self._json_parts(block), strict=True)
            return [head + time + record + text for time, record, text in parts]
        head += self._before(block)
        return [head + text for text in _texts(block)]

    def _json_parts(self, block: Block) -> tuple[list[bytes], list[bytes], list[bytes]]:
        """Of every record the time, the fields up to the text with the text's header, and the text."""
        times_ns, streams, logs = columns(block.data)
        texts = [log[:-1] if log[-1:] == b"\n" else log for log in logs]
        lengths = list(map(len, texts))
        # json-file keeps neither id nor ordinal of a piece: only that the line goes on.
        kinds = list(
            zip(
                streams,
                [len(log) != length for log, length in zip(logs, lengths, strict=True)],
                lengths,
                strict=True,
            )
        )
        records = {kind: self._json_record(*kind) for kind in set(kinds)}
        return self._times(times_ns), [records[kind] for kind in kinds], texts

    def _json_record(self, stream: Stream, whole: bool, length: int) -> bytes:
        record = self._record(stream.text, None, {} if whole else {"partial_message": "true"})
        return record + _string_header(length)

    def _before(self, block: Block) -> bytes:
        """Time and record up to the text, the same for all lines of a block."""
        (time,) = self._times((block.first_ns,))
        return time + self._record(block.stream.text, block.partial)

    def _times(self, times_ns: Sequence[int]) -> list[bytes]:
        """Each as an EventTime, or as an integer of seconds."""
        if self._sub_second:
            return [_EVENT_TIME(0xD7, 0, *divmod(time_ns % _EVENT_TIME_WRAPS, _NS)) for time_ns in times_ns]
        seconds = [time_ns // _NS for time_ns in times_ns]
        packed = {second: _integer(second) for second in set(seconds)}
        return [packed[second] for second in seconds]

    def _record(self, source: str, partial: Partial | None, more: Mapping[str, str] | None = None) -> bytes:
        """The record up to the header of the line itself."""
        fields = dict(more or {})
        if not self._own_source:
            fields["source"] = source
        if partial is not None:
            fields |= {
                "partial_message": "true",
                "partial_id": partial.id,
                "partial_ordinal": str(partial.ordinal),
                "partial_last": "true" if partial.last else "false",
            }
        count = self._count + len(fields) - (0 if self._own_source else 1)
        packed = b"".join(_string(k.encode()) + _string(v.encode()) for k, v in fields.items())
        return _map_header(count) + self._fields + packed + b"\xa3log"


def ack(chunk: str | bytes) -> bytes:
    """The answer to a message with this ``chunk``: ``{"ack": chunk}``."""
    return b"\x81\xa3ack" + _string(chunk.encode() if isinstance(chunk, str) else chunk)
