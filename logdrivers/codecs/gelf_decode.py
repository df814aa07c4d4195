"""Graylog's GELF 1.1, decoding: datagrams, chunks and TCP frames to messages, within limits.

Format: the GELF specification of Graylog. Every message that cannot be had raises or is counted by cause;
sockets and what becomes of a message are ``collector/inputs/gelf.py``.
"""

from __future__ import annotations

import json
import math
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import orjson
from isal import igzip_lib, isal_zlib

from logdrivers.codecs.gelf import MAX_CHUNKS

__all__ = ["ChunkAssembler", "GelfError", "GelfMessage", "NulFrames", "decode", "decompress"]

#: Fields of the format itself, which have no underscore and a place of their own in a GelfMessage.
_OWN = frozenset({"version", "host", "short_message", "full_message", "timestamp", "level"})
_IsalError = cast(type[Exception], igzip_lib.IsalError)  # its stub declares an instance
_GZIP_MAGIC = b"\x1f\x8b"


class GelfError(ValueError):
    """A message that cannot be taken. ``cause`` is the label of the counter."""

    def __init__(self, cause: str, detail: str) -> None:
        super().__init__(f"{cause}: {detail}")
        self.cause = cause


@dataclass(frozen=True, slots=True)
class GelfMessage:
    """One message."""

    text: str  #: the full message where it says more than the short one
    host: str
    time_ns: int | None  #: None where the message has no usable timestamp
    level: int | None  #: syslog severity
    fields: Mapping[str, str]  #: additional fields without their underscore, values as text


def decode(payload: bytes) -> GelfMessage:
    """A message from its JSON. Raises GelfError (``malformed``, ``no_message``)."""
    fields = _parse(payload)
    short, full = fields.get("short_message"), fields.get("full_message")
    text = _text(short) if short is not None else ""
    if full is not None and len(longer := _text(full)) > len(text):
        text = longer
    if not text:
        raise GelfError("no_message", f"no short_message in {payload[:80]!r}")
    return GelfMessage(
        text,
        _text(fields.get("host", "")),
        _time_ns(fields.get("timestamp")),
        _level(fields.get("level")),
        {
            key[1:] if key[:1] == "_" else key: value if type(value) is str else _text(value)
            for key, value in fields.items()
            if key not in _OWN
        },
    )


def _parse(payload: bytes) -> dict[str, Any]:
    try:
        fields = orjson.loads(payload)
    except orjson.JSONDecodeError:
        # orjson is strict on what is only the text's fault: invalid UTF-8, lone surrogates, control bytes.
        try:
            loose = json.loads(payload.decode("utf-8", "replace"), strict=False)
            fields = json.loads(json.dumps(loose, ensure_ascii=False).encode("utf-8", "replace"))
        except (ValueError, RecursionError) as error:
            raise GelfError("malformed", f"not JSON: {error}: {payload[:80]!r}") from error
    if not isinstance(fields, dict):
        raise GelfError("malformed", f"not a JSON object: {payload[:80]!r}")
    return fields


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    return orjson.dumps(value, option=orjson.OPT_PASSTHROUGH_SUBCLASS).decode()


def _time_ns(value: object) -> int | None:
    """Nanoseconds of a timestamp in seconds; a float of today holds microseconds, not more."""
    try:
        seconds = float(value) if isinstance(value, str | int | float) else math.nan
    except (ValueError, OverflowError):
        return None
    if not 0 <= seconds < 1 << 33 or isinstance(value, bool):
        return None
    return round(seconds * 1_000_000) * 1000


def _level(value: object) -> int | None:
    if isinstance(value, str) and value.isdecimal() and len(value) < 4:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


# --- compression ---------------------------------------------------------------------------------------


def decompress(payload: bytes, limit: int) -> bytes:
    """The JSON of a whole payload: gzip, zlib or plain, told apart by its first bytes.

    Raises GelfError: ``message_too_large`` beyond ``limit`` bytes, ``malformed`` for a broken stream.
    """
    magic = payload[:2]
    if magic == _GZIP_MAGIC:
        window = 31
    elif magic[:1] == b"\x78" and len(magic) == 2 and int.from_bytes(magic, "big") % 31 == 0:
        window = 15
    elif len(payload) > limit:
        raise GelfError("message_too_large", f"more than {limit} bytes")
    else:
        return payload
    stream = isal_zlib.decompressobj(window)
    try:
        data = stream.decompress(payload, limit + 1)
    except (_IsalError, zlib.error) as error:
        raise GelfError("malformed", f"cannot decompress {payload[:16]!r}: {error}") from error
    if len(data) > limit:
        raise GelfError("message_too_large", f"unpacks to more than {limit} bytes")
    if not stream.eof:
        raise GelfError("malformed", f"compressed data of {len(payload)} bytes is cut off")
    return data


# --- chunks --------------------------------------------------------------------------------------------


class _Pending:
    __slots__ = ("count", "first_seconds", "parts", "size")

    def __init__(self, count: int, now_seconds: float) -> None:
        self.count = count
        self.first_seconds = now_seconds
        self.parts: dict[int, bytes] = {}
        self.size = 0


class ChunkAssembler:
    """Puts chunked messages together again, within 5 s and within memory.

    ``dropped`` counts messages (not chunks) by cause: ``chunks_expired`` (not complete in time),
    ``chunks_overflow`` (the oldest made room for newer ones), ``chunks_malformed`` (header that cannot be).
    """

    def __init__(
        self, timeout_seconds: float = 5.0, max_messages: int = 1024, max_bytes: int = 32 << 20
    ) -> None:
        self.dropped: Counter[str] = Counter()
        self.pending_bytes = 0
        self._timeout = timeout_seconds
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        #: In the order of their first chunk, so the oldest are found at the front.
        self._pending: dict[tuple[object, bytes], _Pending] = {}

    def __len__(self) -> int:
        return len(self._pending)

    def add(self, datagram: bytes, sender: object, now_seconds: float) -> bytes | None:
        """Take one chunk (a datagram that begins with ``CHUNK_MAGIC``); the payload if it was the last."""
        self.expire(now_seconds)
        if len(datagram) < 12 or not datagram[10] < datagram[11] <= MAX_CHUNKS:
            self.dropped["chunks_malformed"] += 1
            return None
        key, number, count = (sender, datagram[2:10]), datagram[10], datagram[11]
        message = self._pending.get(key)
        if message is None:
            message = self._pending[key] = _Pending(count, now_seconds)
        elif message.count != count:
            self._drop(key, "chunks_malformed")
            return None
        if number not in message.parts:
            message.parts[number] = datagram[12:]
            message.size += len(datagram)
            self.pending_bytes += len(datagram)
        if len(message.parts) == count:
            self._remove(key)
            return b"".join(message.parts[i] for i in range(count))
        while len(self._pending) > self._max_messages or self.pending_bytes > self._max_bytes:
            self._drop(next(iter(self._pending)), "chunks_overflow")
        return None

    def expire(self, now_seconds: float) -> None:
        """Drop what is older than the timeout. Call now and then when nothing arrives."""
        while self._pending:
            key = next(iter(self._pending))
            if now_seconds - self._pending[key].first_seconds <= self._timeout:
                return
            self._drop(key, "chunks_expired")

    def drop_all(self, cause: str) -> None:
        """Give up on everything incomplete (the input stops)."""
        for key in list(self._pending):
            self._drop(key, cause)

    def _drop(self, key: tuple[object, bytes], cause: str) -> None:
        self._remove(key)
        self.dropped[cause] += 1

    def _remove(self, key: tuple[object, bytes]) -> None:
        self.pending_bytes -= self._pending.pop(key).size


class NulFrames:
    """A TCP connection's bytes to payloads, each ended by NUL."""

    def __init__(self, limit: int) -> None:
        self.pending_bytes = 0  #: of the payload that has no end yet
        self._pending: list[bytes] = []
        self._limit = limit

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The payloads completed by ``data``, whatever their size; to be exhausted before the next call.

        Raises GelfError (``message_too_large``), behind them, once what is unfinished passes the limit.
        """
        first, *more = data.split(b"\0")
        self._pending.append(first)
        self.pending_bytes += len(first)
        if more:
            more.insert(0, b"".join(self._pending))
            last = more.pop()
            self._pending, self.pending_bytes = [last], len(last)
            for frame in more:
                if frame and not frame.isspace():
                    yield frame
        if self.pending_bytes > self._limit:
            raise GelfError("message_too_large", f"a message of more than {self._limit} bytes")

    def take(self) -> bytes:
        """What has no end yet, and will not get one: the sender closed."""
        rest = b"".join(self._pending)
        self._pending, self.pending_bytes = [], 0
        return rest
