"""What ``ReadLogs`` answers: a container's journal as frames, from a line or a time on, as long as it is asked.

The journal is on this host's disk, so logs of running and of stopped containers need no sink's cooperation.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Iterator

from logdrivers.block import Block, Encoding
from logdrivers.codecs import json_file
from logdrivers.journal import JournalReader, Position
from logdrivers.plugin.container import PluginContainer
from logdrivers.plugin.frames import encode
from logdrivers.plugin.requests import ReadConfig

__all__ = ["read_logs"]

log = logging.getLogger(__name__)

_READ_BYTES = 1 << 19
#: A follower looks again after so long even if nobody told it to.
_IDLE_SECONDS = 5.0


async def read_logs(
    container: PluginContainer, reader: JournalReader, config: ReadConfig
) -> AsyncGenerator[bytes, None]:
    """The frames for the engine: what is there, then, with ``follow``, what comes until logging ends."""
    loop = asyncio.get_running_loop()
    news = asyncio.Event()

    def tell() -> None:
        loop.call_soon_threadsafe(news.set)

    if config.follow:
        container.follow(tell)
    try:
        position, skip = await asyncio.to_thread(_start, reader, config)
        while True:
            news.clear()
            active = config.follow and container.active  # before reading: what came before the end is seen
            data, position, skip, done = await asyncio.to_thread(_next, reader, config, position, skip)
            if data:
                yield data
            if done:
                return
            if data is None:
                if not active or 0 < config.until_ns < time.time_ns():
                    return
                await _wait(news, config.until_ns)
    finally:
        container.unfollow(tell)


async def _wait(news: asyncio.Event, until_ns: int) -> None:
    seconds = _IDLE_SECONDS
    if until_ns:
        seconds = min(seconds, max(0.001, (until_ns - time.time_ns()) / 1e9))
    try:
        async with asyncio.timeout(seconds):
            await news.wait()
    except TimeoutError:
        pass


def _start(reader: JournalReader, config: ReadConfig) -> tuple[Position, int]:
    """Where to begin, and how many lines to leave out there."""
    if config.tail is None:
        return (reader.locate(config.since_ns) if config.since_ns else reader.first()), 0
    end = reader.end()
    if config.tail == 0:
        return end, 0
    start = position = reader.tail(config.tail)
    lines = 0
    while position < end and (entries := reader.read(position, _READ_BYTES).entries):
        lines += sum(entry.block.lines for entry in entries)
        position = entries[-1].end
    return start, max(0, lines - config.tail)


def _next(
    reader: JournalReader, config: ReadConfig, position: Position, skip: int
) -> tuple[bytes | None, Position, int, bool]:
    """Read once: the frames (None: nothing new), where to go on, lines left to skip, whether that was all."""
    batch = reader.read(position, _READ_BYTES)
    if batch.lost_lines:
        log.warning("%d lines had been removed by retention before they were read", batch.lost_lines)
    if not batch.entries:
        return None, position, skip, False
    out: list[bytes] = []
    for entry in batch.entries:
        block = entry.block
        if skip >= block.lines:
            skip -= block.lines
            continue
        if config.until_ns and block.first_ns > config.until_ns:
            return b"".join(out), entry.end, 0, True
        if block.last_ns >= config.since_ns:
            out += _frames(block, config, skip)
        skip = 0
    return b"".join(out), batch.entries[-1].end, skip, False


def _frames(block: Block, config: ReadConfig, skip: int) -> Iterator[bytes]:
    until_ns = config.until_ns or block.last_ns
    if block.encoding is Encoding.JSON_FILE:
        bad: list[bytes] = []
        for time_ns, stream, text, _ in json_file.decode(block.data, bad)[skip:]:
            if config.since_ns <= time_ns <= until_ns:
                yield encode(stream, time_ns, text)
        if bad:
            log.warning("passed over %d unreadable log records, the first %r", len(bad), bad[0][:80])
    elif block.partial is not None:
        newline = b"\n" if block.partial.last else b""
        yield encode(block.stream, block.first_ns, block.data + newline, block.partial)
    elif block.encoding is Encoding.MESSAGE:
        yield encode(block.stream, block.first_ns, block.data)
    else:
        for line in block.data.split(b"\n")[skip:-1]:
            yield encode(block.stream, block.first_ns, line + b"\n")
