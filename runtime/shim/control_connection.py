"""The engine's end of a shim's control socket: requests and events as JSON lines, or a session of bytes.

What the words mean is the business of ``runtime/shim/client.py``; the shim's end is ``runtime/shim/control.py``.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import AsyncGenerator
from typing import Any

from runtime.shim.messages import encode_line

__all__ = ["ANSWER_SECONDS", "ControlConnection", "ShimError", "ShimGone", "open_session"]

log = logging.getLogger(__name__)

ANSWER_SECONDS = 60.0
_LINE_BYTES = 1 << 20


class ShimError(Exception):
    """A shim refused a request, or left before it answered."""


class ShimGone(ShimError):
    """There was no shim to answer: it died, or its container has ended."""


class ControlConnection:
    """Requests with numbers, events in between."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._next = 0

    @classmethod
    async def open(cls, sock: socket.socket) -> ControlConnection:
        """Over a connected socket."""
        sock.setblocking(False)
        return cls(*await asyncio.open_unix_connection(sock=sock, limit=_LINE_BYTES))

    def watch(self) -> None:
        """Have the shim say what it knows, and what happens from now on; ``events`` gets it."""
        self._writer.write(encode_line({"op": "watch", "id": 0}))

    async def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """The answer to a request. Raises ShimError, TimeoutError."""
        self._next += 1
        number = self._next
        future = self._answers[number] = asyncio.get_running_loop().create_future()
        self._writer.write(encode_line({**message, "id": number}))
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                answer = await future
        finally:
            self._answers.pop(number, None)
        if "error" in answer:
            raise ShimError(str(answer["error"]))
        return dict(answer)

    async def events(self) -> AsyncGenerator[dict[str, Any], None]:
        """Until the peer leaves; then every request that waits fails."""
        try:
            while line := await self._reader.readline():
                message = json.loads(line)
                if "event" in message:
                    yield message
                else:
                    future = self._answers.get(message["id"])
                    if future is not None and not future.done():
                        future.set_result(message)
        except (ConnectionError, ValueError) as error:
            log.warning("read from a shim: %s", error)
        finally:
            for future in self._answers.values():
                if not future.done():
                    future.set_exception(ShimGone("the shim left before it answered"))

    async def close(self) -> None:
        """Let go of the shim."""
        self._writer.close()
        await asyncio.sleep(0)  # the transport closes its socket in the loop's next turn


async def open_session(
    sock: socket.socket, request: dict[str, Any]
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, dict[str, Any]]:
    """Make a connected socket a session by a request (``attach``, ``exec``); with the answer. Raises ShimError."""
    sock.setblocking(False)
    reader, writer = await asyncio.open_unix_connection(sock=sock, limit=_LINE_BYTES)
    try:
        writer.write(encode_line({**request, "id": 0}))
        line = await reader.readline()
        if not line:
            raise ShimGone("the shim left before it answered")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ShimError(str(answer["error"]))
    except BaseException:
        writer.close()
        await asyncio.sleep(0)
        raise
    return reader, writer, answer
