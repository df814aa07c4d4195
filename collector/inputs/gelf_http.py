"""The GELF input over HTTP: what Graylog's GELF HTTP input takes, a message a request or many, a line each.

A request is answered once its messages are stored. Decoding is shared with ``collector/inputs/gelf.py``; storing is
``collector/inputs/received.py``, HTTP itself aiohttp.
"""

from __future__ import annotations

import asyncio
import logging
import ssl

from aiohttp import web

from collector.inputs.gelf import GelfLimits
from collector.inputs.gelf_batch import GelfBatch
from collector.inputs.intake import Intake, Sources
from collector.inputs.received import Collator, Delivery, InputCounters
from logdrivers.codecs.gelf_decode import GelfError, decompress

__all__ = ["GelfHttpInput"]

log = logging.getLogger(__name__)

#: Where Graylog's input takes messages, and so does this.
_PATH = "/gelf"
#: A sender whose messages could not be stored in this time is told to come again.
_STORE_SECONDS = 10.0
_BODY_SECONDS = 30.0
_HANDSHAKE_SECONDS = 10.0
_IDLE_SECONDS = 75.0
_RETRY = {"Retry-After": "1"}


class GelfHttpInput:
    """Receives on ``host:port``, with ``tls`` as https; port 0 takes a free one."""

    def __init__(
        self,
        host: str,
        port: int,
        intake: Intake,
        sources: Sources,
        limits: GelfLimits | None = None,
        *,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._host, self._port, self._tls = host, port, tls
        self._limits = limits or GelfLimits()
        self.counters = InputCounters()
        self._delivery = Delivery("gelf", intake, sources, self.counters, _nothing, _nothing)
        self._collator = Collator()
        self._batch = GelfBatch(self._collator, self._drop)
        self._pending_bytes = 0
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._address = ("", 0)

    @property
    def address(self) -> tuple[str, int]:
        """The bound host and port."""
        if self._server is None:
            raise RuntimeError("the GELF HTTP input is not started")
        return self._address

    async def start(self) -> None:
        """Bind. Raises OSError naming the address."""
        app = web.Application(client_max_size=self._limits.message_bytes)
        app.router.add_post(_PATH, self._post)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            keepalive_timeout=_IDLE_SECONDS,
            shutdown_timeout=1.0,
            auto_decompress=False,  # our own looks at the bytes, as Graylog's does, and knows a limit
        )
        await self._runner.setup()
        try:
            self._server = await asyncio.get_running_loop().create_server(
                self._protocol,
                self._host,
                self._port,
                reuse_address=True,
                ssl=self._tls,
                ssl_handshake_timeout=_HANDSHAKE_SECONDS if self._tls else None,
            )
        except OSError as error:
            await self._runner.cleanup()
            raise OSError(
                error.errno, f"cannot receive GELF over HTTP on {self._host}:{self._port}: {error.strerror}"
            ) from error
        self._address = self._server.sockets[0].getsockname()[:2]
        self._count()

    async def stop(self) -> None:
        """Answer the requests that have come, store, close."""
        if self._timer is not None:
            self._timer.cancel()
        if self._server is not None:
            self._server.close()
        if self._runner is not None:
            await self._runner.cleanup()
        self._delivery.close()
        if self._server is not None:
            await self._server.wait_closed()

    def _protocol(self) -> asyncio.BaseProtocol:
        """For a new connection: HTTP, or its end over the limit."""
        assert self._runner is not None
        server = self._runner.server
        assert server is not None
        if len(server.connections) >= self._limits.connections:
            self.counters.dropped["connections"] += 1
            return _Refused()
        self.counters.accepted += 1
        return server()

    def _count(self) -> None:
        """Bring the number of open connections up to date."""
        assert self._runner is not None
        server = self._runner.server
        self.counters.connections = len(server.connections) if server is not None else 0
        self._timer = asyncio.get_running_loop().call_later(1.0, self._count)

    async def _post(self, request: web.Request) -> web.Response:
        if self._delivery.paused:
            return web.Response(status=503, text="the store takes nothing at present\n", headers=_RETRY)
        size = request.content_length or self._limits.message_bytes
        if self._pending_bytes + size > self._limits.pending_bytes:
            return web.Response(status=429, text="too many requests at a time\n", headers=_RETRY)
        self._pending_bytes += size
        try:
            body = await asyncio.wait_for(request.read(), _BODY_SECONDS)
        except web.HTTPRequestEntityTooLarge:
            self.counters.received += 1
            self._drop(GelfError("message_too_large", f"more than {self._limits.message_bytes} bytes"))
            return web.Response(status=413, text=f"more than {self._limits.message_bytes} bytes\n")
        except TimeoutError:
            return web.Response(status=408, text=f"no end of the request in {_BODY_SECONDS:g} s\n")
        finally:
            self._pending_bytes -= size
        return await self._take(body)

    async def _take(self, body: bytes) -> web.Response:
        """Store what is in a body. 400 only if that is nothing: else a sender would send the good again."""
        self.counters.bytes += len(body)
        try:
            messages = _messages(decompress(body, self._limits.message_bytes))
        except GelfError as error:
            self.counters.received += 1
            self._drop(error)
            return web.Response(status=413 if error.cause == "message_too_large" else 400, text=f"{error}\n")
        before = self.counters.dropped.total()
        for message in messages:
            self.counters.received += 1
            self._batch.add(message)
        self._batch.flush()
        if self.counters.dropped.total() - before == len(messages):
            return web.Response(status=400, text="not a GELF message\n")
        stored = asyncio.Event()
        self._delivery.submit(self._collator.take(), stored.set)
        try:
            await asyncio.wait_for(stored.wait(), _STORE_SECONDS)
        except TimeoutError:
            return web.Response(status=503, text="not stored yet\n", headers=_RETRY)
        return web.Response(status=202)

    def _drop(self, error: GelfError) -> None:
        self.counters.dropped[error.cause] += 1
        log.debug("gelf input over HTTP: dropped a message: %s", error)


def _messages(body: bytes) -> list[bytes]:
    """The messages of a request: one, however it is laid out, or a line each."""
    if b"\n" not in body:
        return [body]
    lines = [line for line in (line.strip() for line in body.split(b"\n")) if line]
    if all(line[:1] == b"{" and line[-1:] == b"}" for line in lines):
        return lines or [body]
    return [body]


def _nothing() -> None:
    """While the store fails senders are told so; there is nothing to pause."""


class _Refused(asyncio.Protocol):
    """A connection over the limit."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Close it."""
        assert isinstance(transport, asyncio.Transport)
        transport.abort()
