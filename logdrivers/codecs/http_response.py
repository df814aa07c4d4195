"""HTTP/1.1 responses out of a stream of bytes (RFC 9112), read strictly: what is not clear is an error.

Many answers to requests sent ahead may come in one piece. Requests are made by whoever sends them; what a
status means is theirs, too.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

__all__ = ["HttpError", "Response", "ResponseReader"]

_HEAD_END = b"\r\n\r\n"
_HEAD_BYTES = 64 << 10
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: ([^\r\n]*))?")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\0]*?)[ \t]*")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?")
_UNTIL_CLOSED = -1
_CHUNKED = -2


class HttpError(ValueError):
    """Bytes that are no HTTP response, or one beyond the limits."""


class Response(NamedTuple):
    """One final answer."""

    status: int
    reason: str  #: the words behind the status, and where a redirection leads
    keep_alive: bool  #: whether the connection takes a further request
    body: bytes


class _Head(NamedTuple):
    status: int
    reason: str
    keep_alive: bool
    length: int  #: of the body in bytes, _UNTIL_CLOSED or _CHUNKED


class ResponseReader:
    """Gathers what a connection brings. Answers to HEAD and CONNECT are not for it."""

    def __init__(self, body_bytes: int = 1 << 20) -> None:
        self._limit = body_bytes
        self._buffer = b""

    @property
    def pending_bytes(self) -> int:
        """Bytes of an answer that is not complete."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[Response]:
        """The answers that ``data`` completes. Raises HttpError."""
        buffer, at = self._buffer + data if self._buffer else data, 0
        found: list[Response] = []
        while (end := buffer.find(_HEAD_END, at, at + _HEAD_BYTES)) >= 0:
            head = _parse_head(buffer[at:end])
            begin = end + len(_HEAD_END)
            if head.status < 200:  # "100 Continue" and the like announce the answer
                at = begin
                continue
            body = self._body(buffer, begin, head.length)
            if body is None:
                break
            content, at = body
            found.append(Response(head.status, head.reason, head.keep_alive, content))
        else:
            if len(buffer) - at >= _HEAD_BYTES:
                raise HttpError(f"no end of a response's head within {_HEAD_BYTES} bytes")
        self._buffer = buffer[at:]
        return found

    def end(self) -> Response | None:
        """The peer has closed: the answer whose end that is, if there is one."""
        buffer, self._buffer = self._buffer, b""
        end = buffer.find(_HEAD_END)
        if end < 0:
            return None
        head = _parse_head(buffer[:end])
        if head.length != _UNTIL_CLOSED:
            return None
        return Response(head.status, head.reason, False, buffer[end + len(_HEAD_END) :])

    def _body(self, buffer: bytes, begin: int, length: int) -> tuple[bytes, int] | None:
        """The body and where it ends; None if it is not all there."""
        if length == _CHUNKED:
            return self._chunks(buffer, begin)
        if length > self._limit or (length == _UNTIL_CLOSED and len(buffer) - begin > self._limit):
            raise HttpError(f"a response of more than {self._limit} bytes")
        if length == _UNTIL_CLOSED or len(buffer) - begin < length:
            return None
        return buffer[begin : begin + length], begin + length

    def _chunks(self, buffer: bytes, at: int) -> tuple[bytes, int] | None:
        if len(buffer) - at > 2 * self._limit:
            raise HttpError(f"a response of more than {self._limit} bytes")
        parts: list[bytes] = []
        while (end := buffer.find(b"\r\n", at)) >= 0:
            match = _CHUNK_SIZE.fullmatch(buffer, at, end)
            if match is None:
                raise HttpError(f"not the size of a chunk: {buffer[at : min(end, at + 40)]!r}")
            size, at = int(match[1], 16), end + 2
            if size == 0:
                return _trailer(buffer, at, b"".join(parts))
            if size > self._limit:
                raise HttpError(f"a response of more than {self._limit} bytes")
            if len(buffer) < at + size + 2:
                return None
            if buffer[at + size : at + size + 2] != b"\r\n":
                raise HttpError("a chunk longer than it says")
            parts.append(buffer[at : at + size])
            at += size + 2
        return None


def _trailer(buffer: bytes, at: int, body: bytes) -> tuple[bytes, int] | None:
    while (end := buffer.find(b"\r\n", at)) >= 0:
        if end == at:
            return body, at + 2
        at = end + 2
    return None


@lru_cache(maxsize=16)
def _parse_head(head: bytes) -> _Head:
    """Answers of one second are mostly alike to the byte."""
    first, *lines = head.split(b"\r\n")
    match = _STATUS.fullmatch(first)
    if match is None:
        raise HttpError(f"not an HTTP response: {first[:60]!r}")
    fields = _fields(lines)
    status, reason = int(match[2]), (match[3] or b"").decode("latin-1")
    if status == 101:
        raise HttpError("the server wants to speak another protocol")
    if 300 <= status < 400 and "location" in fields:
        reason += f" to {fields['location']}"
    options = {option.strip() for option in fields.get("connection", "").lower().split(",")}
    keep_alive = "close" not in options if match[1] == b"1" else "keep-alive" in options
    length = _length(status, fields)
    return _Head(status, reason, keep_alive and length != _UNTIL_CLOSED, length)


def _fields(lines: list[bytes]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in lines:
        match = _FIELD.fullmatch(line)
        if match is None:
            raise HttpError(f"not a header field: {line[:60]!r}")
        name, value = match[1].decode().lower(), match[2].decode("latin-1")
        if name == "content-length" and fields.get(name, value) != value:
            raise HttpError("two lengths of one response")
        fields[name] = f"{fields[name]}, {value}" if name in fields and name != "content-length" else value
    return fields


def _length(status: int, fields: dict[str, str]) -> int:
    coding, length = fields.get("transfer-encoding"), fields.get("content-length")
    if status in (204, 304):
        return 0
    if coding is not None:
        if length is not None or coding.lower() != "chunked":
            raise HttpError(f"a body whose end is unclear: transfer-encoding {coding}, length {length}")
        return _CHUNKED
    if length is None:
        return _UNTIL_CLOSED
    if not re.fullmatch(r"[0-9]{1,12}", length):
        raise HttpError(f"not a length: {length[:40]!r}")
    return int(length)
