"""``GET /containers/{name}/logs``: what a container wrote, from its journal, with every log driver.

The journal is on this host's disk, so logs of running and of stopped containers need no network and no
driver's cooperation; only ``none`` keeps nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from aiohttp import web

from logdrivers.journal import JournalReader, Position
from logdrivers.journals.files import journal_directory
from logdrivers.local import local_log_path
from runtime.api.hijack import MULTIPLEXED, RAW
from runtime.api.routing import Call, Routes
from runtime.api.times import parse_time
from runtime.container import Container
from runtime.errors import BadRequest
from runtime.log_changes import Following
from runtime.logview import LogView, Selection

__all__ = ["routes", "selection_of", "stream_logs"]

log = logging.getLogger(__name__)
routes = Routes()

#: One read of what is already there; the first is small, and often it is all that is asked for.
FIRST_BYTES = 1 << 15
HISTORY_BYTES = 1 << 20
FOLLOW_BYTES = 1 << 16
#: Between two looks at a log that is being written: what comes meanwhile goes out together.
FOLLOW_REST_S = 0.005


@routes.get("/containers/{name}/logs")
async def logs(call: Call) -> web.StreamResponse:
    """``docker logs``."""
    container = call.engine.containers.get(call.params["name"])
    selection = selection_of(call, container)
    if not (selection.stdout or selection.stderr):
        raise BadRequest("Bad parameters: you must choose at least one stream")
    tail = _tail(call.text("tail", "all"))
    reader = call.engine.logs.reader(container)
    try:
        response = call.stream(MULTIPLEXED if selection.framed and call.version >= (1, 42) else RAW)
        await response.prepare(call.request)
        view = LogView(selection, call.engine.logs.attributes(container))
        follow = call.flag("follow")
        directory = call.engine.logs.info(container).directory
        changes = call.engine.log_changes.follow(log_directories(directory)) if follow else None
        with changes or contextlib.nullcontext():
            async for data in stream_logs(container, reader, view, selection, tail, changes):
                await response.write(data)
        await response.write_eof()
        return response
    finally:
        reader.close()


def selection_of(call: Call, container: Container) -> Selection:
    """The options of a ``logs`` or ``attach`` request."""
    return Selection(
        stdout=call.flag("stdout"),
        stderr=call.flag("stderr"),
        since_ns=parse_time(call.text("since"), "since"),
        until_ns=parse_time(call.text("until"), "until"),
        timestamps=call.flag("timestamps"),
        details=call.flag("details"),
        framed=not container.definition.config.tty,
        frame_per_line=call.flag("follow"),
    )


def _tail(value: str) -> int | None:
    """A number of lines, None for all. As Docker, anything that is no number means all."""
    try:
        lines = int(value)
    except ValueError:
        return None
    return lines if lines >= 0 else None


async def stream_logs(
    container: Container,
    reader: JournalReader,
    view: LogView,
    selection: Selection,
    tail: int | None,
    changes: Following | None = None,
) -> AsyncIterator[bytes]:
    """The bytes for the client: what is there, then, with ``changes``, what comes until the run ends."""
    position, skip = await asyncio.to_thread(_start, reader, selection, tail)
    handle = container.handle
    limit = FIRST_BYTES
    while not view.done:
        # Asked before reading: what was written before the end is seen by the read after it.
        running = changes is not None and handle is not None and container.handle is handle
        data, position, skip = await asyncio.to_thread(_next, reader, view, position, skip, limit)
        limit = min(4 * limit, HISTORY_BYTES)
        if data is not None:
            if data:
                yield data
            continue
        if not running or changes is None or _past(selection.until_ns):
            return
        async for fresh, reached in _tail_of(container, reader, view, selection, position, changes):
            position = reached
            yield fresh


async def _tail_of(
    container: Container,
    reader: JournalReader,
    view: LogView,
    selection: Selection,
    position: Position,
    changes: Following,
) -> AsyncIterator[tuple[bytes, Position]]:
    """What comes while the container runs; small reads, in the loop itself."""
    handle = container.handle
    ended = container.waiters.next_exit()
    try:
        while container.handle is handle and handle is not None and not view.done:
            if _past(selection.until_ns):
                return
            data, position, _ = _next(reader, view, position, 0, FOLLOW_BYTES)
            if data is None:
                await changes.wait(ended, _seconds_to(selection.until_ns))
                continue
            if data:
                yield data, position
            await asyncio.sleep(FOLLOW_REST_S)
    finally:
        ended.cancel()


def _seconds_to(until_ns: int) -> float:
    """How long until that time has passed; long if there is none."""
    return max(0.0, (until_ns - time.time_ns()) / 1e9 + 0.001) if until_ns else 3600.0


def log_directories(directory: Path) -> Sequence[Path]:
    """Where drivers write in a container's log directory: json-file, local, the segments of all others."""
    return directory, local_log_path(directory).parent, journal_directory(directory)


def _past(until_ns: int) -> bool:
    return 0 < until_ns < time.time_ns()


def _next(
    reader: JournalReader, view: LogView, position: Position, skip: int, limit: int
) -> tuple[bytes | None, Position, int]:
    """Read and render once: the bytes (None: nothing new), the position behind, the lines left to skip."""
    batch = reader.read(position, limit)
    if batch.lost_lines:
        log.warning("%d lines had been removed by retention before they were read", batch.lost_lines)
    if not batch.entries:
        return None, position, skip
    out = []
    for block, _, _ in batch.entries:
        if skip >= block.lines:
            skip -= block.lines
            continue
        out.append(view.render(block, skip))
        skip = 0
        if view.done:
            break
    return b"".join(out), batch.entries[-1].end, skip


def _start(reader: JournalReader, selection: Selection, tail: int | None) -> tuple[Position, int]:
    """Where to begin, and how many lines to leave out there."""
    if tail == 0:
        return reader.end(), 0
    if tail is None:
        return (reader.locate(selection.since_ns) if selection.since_ns else reader.first()), 0
    position = reader.tail(tail)
    entries = reader.read(position, 1).entries
    return position, max(0, reader.end_line() - entries[0].first_line - tail) if entries else 0
