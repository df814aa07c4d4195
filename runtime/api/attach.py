"""``POST /containers/{name}/attach``: a client's terminal or pipes on a container's streams.

A client may attach before the container is started (``docker run`` does), so that nothing of the output is
missed. The shim reads no output until such a client is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from aiohttp import web

from logdrivers.block import Stream
from runtime.api.hijack import MULTIPLEXED, RAW, RawStream, frame, hijack
from runtime.api.logs import selection_of, stream_logs
from runtime.api.routing import Call, Routes
from runtime.container import Container
from runtime.errors import BadRequest, Conflict
from runtime.logview import LogView
from runtime.shim.client import ShimError
from runtime.shim.shims import AttachSession
from runtime.state import Status

__all__ = ["EscapeKeys", "connect_streams", "routes"]

log = logging.getLogger(__name__)
routes = Routes()

DEFAULT_DETACH_KEYS = "ctrl-p,ctrl-q"


@routes.post("/containers/{name}/attach", cancellable=True)
async def attach(call: Call) -> web.StreamResponse:
    """``docker attach``, and the foreground half of ``docker run``."""
    container = call.engine.containers.get(call.params["name"])
    if container.state.status is Status.PAUSED:
        raise Conflict(f"container {container.id} is paused, unpause the container before attach")
    if container.state.status is Status.RESTARTING:
        raise Conflict(f"container {container.id} is restarting, wait until the container is running")
    config = container.definition.config
    stdin = call.flag("stdin") and config.open_stdin
    keys = EscapeKeys(call.text("detachKeys") or DEFAULT_DETACH_KEYS) if config.tty else None
    media = MULTIPLEXED if not config.tty and call.version >= (1, 42) else RAW
    stream = call.flag("stream")
    container.emit("attach")
    started = container.waiters.expect_attach(container.handle is not None) if stream else None
    try:
        async with hijack(call.request, call.headers, media) as (raw, response):
            try:
                if call.flag("logs"):
                    await _history(call, container, raw)
                if started is not None and await _started(container, started, raw):
                    await _stream(call, container, raw, keys, stdin=stdin)
            except ConnectionError:
                log.debug("the client attached to %s has gone", container.name)
    finally:
        if started is not None:
            started.cancel()
    return response


async def _history(call: Call, container: Container, raw: RawStream) -> None:
    reader = call.engine.logs.reader(container)
    try:
        selection = selection_of(call, container)
        view = LogView(selection, call.engine.logs.attributes(container))
        async for data in stream_logs(container, reader, view, selection, None):
            await raw.write(data)
    finally:
        reader.close()


async def _started(container: Container, started: asyncio.Future[bool], raw: RawStream) -> bool:
    """Wait for the start; False if the container is removed, or could not start."""
    if container.handle is not None:
        return True
    return await started


async def _stream(
    call: Call, container: Container, raw: RawStream, keys: EscapeKeys | None, *, stdin: bool
) -> None:
    handle = container.handle
    if handle is None:
        return
    try:
        session = await handle.attach(stdin=stdin, stdout=call.flag("stdout"), stderr=call.flag("stderr"))
    except ShimError as error:
        log.info("cannot attach to %s, it has just ended: %s", container.name, error)
        return
    detached = await connect_streams(
        session, raw, framed=not container.definition.config.tty, stdin=stdin, keys=keys
    )
    if detached:
        container.emit("detach")


async def connect_streams(
    session: AttachSession, raw: RawStream, *, framed: bool, stdin: bool, keys: EscapeKeys | None
) -> bool:
    """Carry bytes both ways until the session ends; true if the client typed the detach keys."""
    output = asyncio.ensure_future(_output(session, raw, framed))
    typed = asyncio.ensure_future(_input(session, raw, keys)) if stdin else None
    try:
        detached = False
        if typed is not None:
            await asyncio.wait({output, typed}, return_when=asyncio.FIRST_COMPLETED)
            detached = typed.done() and not typed.cancelled() and typed.exception() is None and typed.result()
        if not detached:
            await output
        return detached
    finally:
        for task in (output, typed):
            if task is not None and not task.done():
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                    await task
        await session.close()


async def _output(session: AttachSession, raw: RawStream, framed: bool) -> None:
    async for stream, data in session:
        if data:
            await raw.write(frame(2 if stream is Stream.STDERR else 1, data) if framed else data)


async def _input(session: AttachSession, raw: RawStream, keys: EscapeKeys | None) -> bool:
    """The client's bytes to stdin; true when the detach keys came."""
    while data := await raw.read():
        if keys is not None:
            data = keys.feed(data)
        if data:
            try:
                await session.write_stdin(data)
            except ConnectionError:
                return False
        if keys is not None and keys.seen:
            return True
    session.end_stdin()
    return False


class EscapeKeys:
    """Finds the detach keys in what a client types; what might become them is held back meanwhile."""

    def __init__(self, text: str) -> None:
        self._keys = bytes(_key(part) for part in text.split(","))
        self._matched = 0
        self.seen = False

    def feed(self, data: bytes) -> bytes:
        """What goes to the container. ``seen`` is true once the keys are complete."""
        out = bytearray()
        for byte in data:
            if byte == self._keys[self._matched]:
                self._matched += 1
                if self._matched == len(self._keys):
                    self.seen = True
                    break
                continue
            out += self._keys[: self._matched]
            self._matched = 1 if byte == self._keys[0] else 0
            if not self._matched:
                out.append(byte)
        return bytes(out)


def _key(text: str) -> int:
    """One key: a character, or ``ctrl-`` and one of ``a``-``z``, ``@ [ \\ ] ^ _``."""
    if len(text) == 1 and text.isascii():
        return ord(text)
    if text.startswith("ctrl-") and len(text) == 6:
        code = ord(text[5].upper()) ^ 0x40
        if 0 <= code < 32:
            return code
    raise BadRequest(f"Invalid detach keys provided: unknown key {text!r}")
