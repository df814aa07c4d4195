"""Fluentd's Forward protocol v1 as it is received: any mode to events, and handshake messages to their fields.

Format: the Forward Protocol Specification v1 of the Fluentd project. Who may send, acknowledging and what
becomes of the events are left to ``collector/inputs/forward.py``.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import msgpack
import zstandard
from isal import igzip_lib, isal_zlib

__all__ = ["DecodeError", "Event", "EventTime", "ForwardDecoder", "Handshake", "Message"]

_NS = 1_000_000_000
_PIECE = 256 << 10
_STRUCTURE = re.compile(rb'["\[\]{}]')
_IN_STRING = re.compile(rb'"|\\.', re.DOTALL)
_IsalError = cast(type[Exception], igzip_lib.IsalError)  # its stub declares an instance


class DecodeError(ValueError):
    """Bytes that are not a Forward message. ``cause`` is the label of the counter."""

    def __init__(self, cause: str, detail: str) -> None:
        super().__init__(f"{cause}: {detail}")
        self.cause = cause


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
            return self._json.pending_bytes
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
    """Concatenated JSON texts, as fluentd takes them beside MessagePack. Every byte is looked at once."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._scanned = self._depth = 0
        self._in_string = False

    @property
    def pending_bytes(self) -> int:
        """Bytes of an incomplete text held."""
        return len(self._buffer)

    def feed(self, data: bytes) -> Iterator[Any]:
        """The texts completed by ``data``."""
        self._buffer += data
        begin = 0
        while (end := self._end()) is not None:
            text = self._buffer[begin:end].decode("utf-8", "replace")
            begin = end
            yield json.loads(text)
        del self._buffer[:begin]
        self._scanned -= begin
        if not self._depth and not self._buffer.strip():
            self._buffer.clear()
            self._scanned = 0
        if len(self._buffer) > self._limit:
            raise DecodeError("message_too_large", f"more than {self._limit} bytes of JSON")

    def _end(self) -> int | None:
        """Where the next list or object ends. Brackets, quotes and backslashes are never part of a character."""
        buffer = self._buffer
        while True:
            found = (_IN_STRING if self._in_string else _STRUCTURE).search(buffer, self._scanned)
            if found is None:
                # A backslash at the end is looked at again, with what it escapes.
                held = self._in_string and buffer.endswith(b"\\") and len(buffer) > self._scanned
                self._scanned = len(buffer) - held
                return None
            self._scanned = found.end()
            token = found[0]
            if token == b'"':
                self._in_string = not self._in_string
            elif token in (b"[", b"{"):
                self._depth += 1
            elif token in (b"]", b"}"):
                self._depth -= 1
                if self._depth < 0:
                    raise DecodeError("malformed", "a JSON text ends that has not begun")
                if not self._depth:
                    return self._scanned


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
    """All frames; OverflowError beyond ``limit`` bytes."""
    zstd = zstandard.ZstdDecompressor()
    out: list[bytes] = []
    try:
        # It stops at the limit, but takes a frame that is cut off for a whole one; what follows does not.
        if len(zstd.stream_reader(data, read_across_frames=True).read(limit + 1)) > limit:
            raise OverflowError(f"zstd entries unpack to more than {limit} bytes")
        while data:
            frame = zstd.decompressobj()
            out.append(frame.decompress(data))
            if not frame.eof:
                raise DecodeError("malformed", "zstd entries are cut off")
            data = frame.unused_data
    except zstandard.ZstdError as error:
        raise DecodeError("malformed", f"entries are not zstd: {error}") from error
    return b"".join(out)


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
