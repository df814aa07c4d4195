"""Turning an HTTP exchange into a raw byte stream, as attach and exec do.

With ``Upgrade: tcp`` the answer is 101, without it 200; after the head the connection carries the
container's bytes both ways. The client may close its writing half (end of stdin) and go on reading, which
HTTP handling would take for a disconnect; so the transport gets a plain stream protocol for that time.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from aiohttp import web

__all__ = ["RawStream", "frame", "hijack"]

MULTIPLEXED = "application/vnd.docker.multiplexed-stream"
RAW = "application/vnd.docker.raw-stream"

_HEADER = struct.Struct(">BxxxI")


def frame(stream: int, data: bytes) -> bytes:
    """One frame of the multiplexed stream: ``stream`` 1 is stdout, 2 stderr; any length below 4 GiB."""
    return _HEADER.pack(stream, len(data)) + data


class RawStream:
    """The connection after the head."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self, limit: int = 1 << 16) -> bytes:
        """What the client sent; ``b""`` when it closed its writing half."""
        return await self._reader.read(limit)

    async def write(self, data: bytes) -> None:
        """Send, and wait while the client is behind. ConnectionError when it has gone."""
        self._writer.write(data)
        await self._writer.drain()


class _Tail:
    """Takes the bytes that came in the same packet as the request's head."""

    def __init__(self) -> None:
        self.data = bytearray()

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """aiohttp's payload parser interface."""
        self.data += data
        return False, b""

    def feed_eof(self) -> None:
        """aiohttp's payload parser interface."""


@asynccontextmanager
async def hijack(
    request: web.BaseRequest, headers: Mapping[str, str], media_type: str
) -> AsyncIterator[tuple[RawStream, web.StreamResponse]]:
    """Send the head and yield the stream, with the response object the handler returns at the end."""
    transport, protocol = request.transport, request.protocol
    if transport is None:
        raise ConnectionResetError("the client has gone before the stream began")
    upgrade = "upgrade" in request.headers.get("Connection", "").lower()
    tail = _Tail()
    if upgrade:
        protocol.set_parser(tail)  # type: ignore[arg-type]
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(loop=loop)
    raw = asyncio.StreamReaderProtocol(reader, loop=loop)
    # One step without an await: no byte can arrive between the two protocols.
    transport.set_protocol(raw)
    raw.connection_made(transport)
    if tail.data:
        reader.feed_data(bytes(tail.data))
    transport.resume_reading()
    transport.write(_head(upgrade, headers, media_type))
    response = web.Response(status=200)
    response.force_close()
    try:
        yield RawStream(reader, asyncio.StreamWriter(transport, raw, reader, loop)), response
    finally:
        # aiohttp gets its connection back just to see it close, after what is buffered has been sent.
        transport.set_protocol(protocol)
        transport.close()


def _head(upgrade: bool, headers: Mapping[str, str], media_type: str) -> bytes:
    lines = ["HTTP/1.1 101 UPGRADED" if upgrade else "HTTP/1.1 200 OK", f"Content-Type: {media_type}"]
    if upgrade:
        lines += ["Connection: Upgrade", "Upgrade: tcp"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
