"""A client's session with a container: its output as it comes, its stdin, or a further process in it.

The frames come from the shim as ``runtime/shim/attached.py`` and ``exec_session.py`` send them.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from logdrivers.block import Stream
from runtime.shim.messages import CONTROL_FRAME, FRAME_HEADER

__all__ = ["AttachSession", "ExecSession"]


class AttachSession:
    """A container's output as it comes: iterate over ``(stream, bytes)``; write to its stdin."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.end: dict[str, Any] = {}  #: how the session ended, empty if the connection broke

    async def __aiter__(self) -> AsyncIterator[tuple[Stream, bytes]]:
        """Output until the end of the session or of the container."""
        try:
            while True:
                stream, length = FRAME_HEADER.unpack(await self._reader.readexactly(FRAME_HEADER.size))
                data = await self._reader.readexactly(length)
                if stream == CONTROL_FRAME:
                    self.end = json.loads(data)
                    break
                yield Stream(stream), data
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        await self.close()

    async def write_stdin(self, data: bytes) -> None:
        """Write to stdin; waits while the container does not read."""
        self._writer.write(data)
        await self._writer.drain()

    def end_stdin(self) -> None:
        """No more stdin from this session."""
        if self._writer.can_write_eof():
            self._writer.write_eof()

    async def close(self) -> None:
        """Leave; the container goes on."""
        self._writer.close()
        await asyncio.sleep(0)


class ExecSession(AttachSession):
    """A further process in a container. ``exit_code`` is known once iterating has ended."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pid: int) -> None:
        super().__init__(reader, writer)
        self.pid = pid  #: as the host sees it

    @property
    def exit_code(self) -> int | None:
        """128 plus the signal's number if a signal ended it; None if the shim died before it ended."""
        code = self.end.get("exit_code")
        return None if code is None else int(code)
