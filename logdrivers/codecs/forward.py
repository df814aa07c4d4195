"""Fluentd's Forward protocol v1, both directions: blocks to what Docker's fluentd driver sends, and any mode
of the protocol to events.

Format: the Forward Protocol Specification v1 of the Fluentd project. Connections, acknowledgement deadlines
and what becomes of the events are left to ``logdrivers/fluentd.py`` and ``collector/inputs/forward.py``.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import msgpack
import zstandard
from isal import igzip_lib, isal_zlib

from logdrivers.block import Block, Encoding, Partial
from logdrivers.codecs.json_file import decode
from logdrivers.driver import Info
from logdrivers.options import extra_attributes

__all__ = ["DecodeError", "Event", "ForwardDecoder", "ForwardEncoder", "Handshake", "Message", "ack"]

_EMPTY_MAP = b"\x80"
_NS = 1_000_000_000
_PIECE = 256 << 10
_IsalError = cast(type[Exception], igzip_lib.IsalError)  # its stub declares an instance


class DecodeError(ValueError):
    """Bytes that are not a Forward message. ``cause`` is the label of the counter."""

    def __init__(self, cause: str, detail: str) -> None:
        super().__init__(f"{cause}: {detail}")
        self.cause = cause


# --- encoding ----------------------------------------------------------------------------------------


def _string(data: bytes) -> bytes:
    return _string_header(len(data)) + data


def _string_header(length: int) -> bytes:
    if length < 32:
        return bytes((0xA0 | length,))
    if length < 1 << 8:
        return struct.pack(">BB", 0xD9, length)
    if length < 1 << 16:
        return struct.pack(">BH", 0xDA, length)
    return struct.pack(">BI", 0xDB, length)


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


#: Headers of short strings, by length: most lines find theirs here.
_HEADERS = tuple(_string_header(length) for length in range(4096))


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
        head = b"\x94" + self._tag
        return b"".join(self._entries(block, head, _EMPTY_MAP))

    def packed(self, block: Block, chunk: str) -> bytes:
        """One PackedForward message for the whole block, to be acknowledged with ``chunk`` (base64)."""
        entries = b"".join(self._entries(block, b"\x92", b""))
        option = msgpack.packb({"chunk": chunk, "size": block.lines})
        return b"".join((b"\x93", self._tag, struct.pack(">BI", 0xC6, len(entries)), entries, option))

    def _entries(self, block: Block, head: bytes, tail: bytes) -> Iterator[bytes]:
        if block.encoding is Encoding.JSON_FILE:
            yield from self._json_entries(block, head, tail)
            return
        head += self._time(block.first_ns) + self._record(block.stream.text, block.partial)
        if block.partial is not None:
            yield head + _string(block.data) + tail
            return
        if block.encoding is Encoding.MESSAGE:
            yield head + _string(block.data[:-1]) + tail
            return
        lines = block.data.split(b"\n")
        lines.pop()  # what follows the last newline: nothing
        if not lines:
            return
        try:
            packed = [_HEADERS[len(line)] + line for line in lines]
        except IndexError:
            packed = [_string(line) for line in lines]
        yield head
        yield (tail + head).join(packed)
        yield tail

    def _json_entries(self, block: Block, head: bytes, tail: bytes) -> Iterator[bytes]:
        for time_ns, stream, log, _ in decode(block.data):
            # json-file keeps neither id nor ordinal of a piece: only that the line goes on.
            more = {} if log.endswith(b"\n") else {"partial_message": "true"}
            fields = self._record(stream.text, None, more)
            yield head + self._time(time_ns) + fields + _string(log.removesuffix(b"\n")) + tail

    def _time(self, time_ns: int) -> bytes:
        seconds, rest = divmod(time_ns, _NS)
        if self._sub_second:
            return struct.pack(">BBII", 0xD7, 0, seconds & 0xFFFFFFFF, rest)
        return _integer(seconds)

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


# --- decoding ----------------------------------------------------------------------------------------


class EventTime(int):
    """Nanoseconds since the epoch, told apart from a plain integer, which counts seconds."""


#: Keys and text as they came: bytes from MessagePack, str from JSON.
Record = Mapping[Any, Any]


@dataclass(frozen=True, slots=True)
class Event:
    """One event. Strings of a MessagePack record are bytes, of a JSON record str."""

    time_ns: int | None  #: None where the message has no usable time
    record: Record


@dataclass(frozen=True, slots=True)
class Message:
    """One message of any mode with its events. ``chunk`` asks for an acknowledgement."""

    tag: str
    events: Sequence[Event]
    chunk: bytes | None = None
    malformed: int = 0  #: entries that were not ``[time, record]``


@dataclass(frozen=True, slots=True)
class Handshake:
    """A HELO, PING or PONG."""

    kind: str
    fields: Sequence[Any]


class ForwardDecoder:
    """One connection's stream to messages; modes may alternate.

    Holds at most ``max_message_bytes`` of an incomplete message, and unpacks no compressed message beyond
    that. Raises DecodeError (cause ``malformed`` or ``message_too_large``), after which the stream is lost.
    """

    def __init__(self, max_message_bytes: int = 16 << 20) -> None:
        self._limit = max_message_bytes
        self._unpacker = _unpacker(max_message_bytes + _PIECE)
        self._json: _JsonStream | None = None
        self._started = False
        self._fed = self._taken = 0

    def feed(self, data: bytes) -> Iterator[Message | Handshake]:
        """The messages completed by ``data``. To be exhausted before the next call."""
        if not self._started and data:
            self._started = True
            # As in fluentd: '[' and '{' would be lone small integers in MessagePack.
            if data[:1] in (b"[", b"{"):
                self._json = _JsonStream(self._limit)
        try:
            if self._json is not None:
                for value in self._json.feed(data):
                    yield self._message(value)
                return
            yield from self._unpack(data)
        except (msgpack.BufferFull, OverflowError) as error:
            raise DecodeError("message_too_large", f"more than {self._limit} bytes: {error}") from error
        except DecodeError:
            raise
        except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
            raise DecodeError("malformed", f"not a Forward message: {error}") from error

    @property
    def pending_bytes(self) -> int:
        """Bytes of an incomplete message held."""
        if self._json is not None:
            return len(self._json.buffer)
        return self._fed - self._taken

    def _unpack(self, data: bytes) -> Iterator[Message | Handshake]:
        # The unpacker's own limit counts what it has not handed out yet: feed it in small pieces.
        for start in range(0, len(data), _PIECE):
            piece = data[start : start + _PIECE]
            self._unpacker.feed(piece)
            self._fed += len(piece)
            for value in self._unpacker:
                # Asked for now: later it counts what has been read of the next one, too.
                before, self._taken = self._taken, self._unpacker.tell()
                if self._taken - before > self._limit:
                    raise OverflowError(f"a message of {self._taken - before}")
                yield self._message(value)

    def _message(self, value: Any) -> Message | Handshake:
        if not isinstance(value, list) or len(value) < 2:
            raise DecodeError("malformed", f"expected [tag, …], got {_shown(value)}")
        tag = _text(value[0])
        if tag in ("HELO", "PING", "PONG") and (len(value) >= 5 or tag == "HELO"):
            return Handshake(tag, value[1:])
        second = value[1]
        if isinstance(second, list):
            return self._bulk(tag, second, _option(value, 2))
        if isinstance(second, bytes | str):
            option = _option(value, 2)
            packed = second if isinstance(second, bytes) else second.encode()
            return self._bulk(tag, self._packed(packed, option), option)
        if len(value) < 3 or not isinstance(value[2], dict):
            raise DecodeError("malformed", f"expected [tag, time, record], got {_shown(value)}")
        return Message(tag, (Event(_time_ns(second), value[2]),), _chunk(_option(value, 3)))

    def _packed(self, data: bytes, option: Record) -> Iterator[Any]:
        compressed = _text(option.get(b"compressed", option.get("compressed", b"text")))
        if compressed == "gzip":
            data = _gunzip(data, self._limit)
        elif compressed == "zstd":
            data = _unzstd(data, self._limit)
        elif compressed != "text":
            raise DecodeError("malformed", f"compressed {compressed!r}, expected gzip, zstd or text")
        unpacker = _unpacker(max(len(data), 1))
        unpacker.feed(data)
        end = 0
        for entry in unpacker:
            end = unpacker.tell()
            yield entry
        if end != len(data):
            raise DecodeError("malformed", f"entries end in the middle of one, at byte {end} of {len(data)}")

    def _bulk(self, tag: str, entries: Iterator[Any] | list[Any], option: Record) -> Message:
        events: list[Event] = []
        malformed = 0
        for entry in entries:
            if isinstance(entry, list) and len(entry) >= 2 and isinstance(entry[1], dict):
                events.append(Event(_time_ns(entry[0]), entry[1]))
            else:
                malformed += 1
        return Message(tag, events, _chunk(option), malformed)


class _JsonStream:
    """Concatenated JSON texts, as fluentd takes them beside MessagePack."""

    def __init__(self, limit: int) -> None:
        self.buffer = b""
        self._limit = limit
        self._decoder = json.JSONDecoder()

    def feed(self, data: bytes) -> Iterator[Any]:
        """The texts completed by ``data``."""
        self.buffer += data
        while b"]" in self.buffer:
            # One character per byte: the structure of JSON is ASCII, so ends are found at byte offsets.
            text = self.buffer.decode("latin-1")
            start = len(text) - len(text.lstrip(" \t\r\n"))
            try:
                end = self._decoder.raw_decode(text, start)[1]
            except ValueError:
                break
            value = self.buffer[start:end]
            self.buffer = self.buffer[end:]
            yield json.loads(value.decode("utf-8", "replace"))
        if len(self.buffer) > self._limit:
            raise DecodeError("message_too_large", f"more than {self._limit} bytes of JSON")


def _unpacker(limit: int) -> msgpack.Unpacker:
    return msgpack.Unpacker(
        raw=True, strict_map_key=False, max_buffer_size=limit, ext_hook=_extension, timestamp=0
    )


def _extension(code: int, data: bytes) -> object:
    if code == 0 and len(data) == 8:
        seconds, rest = struct.unpack(">II", data)
        return EventTime(seconds * _NS + rest)
    return msgpack.ExtType(code, data)


def _gunzip(data: bytes, limit: int) -> bytes:
    """All members of a gzip file; OverflowError beyond ``limit`` bytes."""
    out: list[bytes] = []
    size = 0
    while data:
        member = isal_zlib.decompressobj(31)
        try:
            piece = member.decompress(data, limit - size + 1)
        except _IsalError as error:
            raise DecodeError("malformed", f"entries are not gzip: {error}") from error
        size += len(piece)
        if size > limit:
            raise OverflowError(f"gzip entries unpack to more than {limit} bytes")
        if not member.eof:
            raise DecodeError("malformed", "gzip entries are cut off")
        out.append(piece)
        data = member.unused_data
    return b"".join(out)


def _unzstd(data: bytes, limit: int) -> bytes:
    try:
        unpacked = zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True).read(limit + 1)
    except zstandard.ZstdError as error:
        raise DecodeError("malformed", f"entries are not zstd: {error}") from error
    if len(unpacked) > limit:
        raise OverflowError(f"zstd entries unpack to more than {limit} bytes")
    return unpacked


def _option(value: list[Any], at: int) -> Record:
    option = value[at] if len(value) > at else None
    return option if isinstance(option, dict) else {}


def _chunk(option: Record) -> bytes | None:
    chunk = option.get(b"chunk", option.get("chunk"))
    if isinstance(chunk, str):
        return chunk.encode("utf-8", "replace")
    return chunk if isinstance(chunk, bytes) else None


def _time_ns(value: Any) -> int | None:
    """Nanoseconds of an EventTime, of whole or fractional seconds, or of a MessagePack timestamp."""
    if isinstance(value, EventTime):
        return int(value)
    if isinstance(value, msgpack.Timestamp):
        return int(value.to_unix_nano())
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1 << 33:
        return None
    return value * _NS if isinstance(value, int) else round(value * 1_000_000) * 1000


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, str):
        return value
    raise DecodeError("malformed", f"expected a string, got {_shown(value)}")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
