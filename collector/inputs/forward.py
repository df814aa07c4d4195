"""The Forward input: what Docker's fluentd driver, Fluentd, Fluent Bit or a fluent-logger sends.

An acknowledgement leaves when the lines are stored, not before. Limits on message size and connections have
their cause in ``counters.dropped``. The protocol is ``logdrivers/codecs/forward_decode.py``; storing is
``collector/inputs/received.py``, a single connection ``collector/inputs/forward_connection.py``.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, cast

from collector.inputs.forward_connection import HANDSHAKE_SECONDS, ForwardConnection, ForwardSettings
from collector.inputs.forward_lines import line
from collector.inputs.intake import Intake, Sources
from collector.inputs.received import Collator, Delivery, InputCounters, read_out
from collector.inputs.sender_connection import Senders
from logdrivers.codecs.forward import ack
from logdrivers.codecs.forward_decode import Message
from logdrivers.codecs.forward_handshake import Security

__all__ = ["ForwardInput", "ForwardLimits"]

log = logging.getLogger(__name__)

#: Acknowledged chunk ids remembered: a client whose answer got lost sends the chunk again.
_REMEMBERED = 8192


@dataclass(frozen=True, slots=True)
class ForwardLimits:
    """What the input takes."""

    message_bytes: int = 16 << 20  #: one message, packed or unpacked (``message_too_large``)
    connections: int = 1024  #: open at a time (``connections``)
    pending_bytes: int = 128 << 20  #: unfinished messages of all connections together (``pending_bytes``)


class ForwardInput:
    """Receives on ``host:port``; port 0 takes a free one. Answers heartbeats on the same UDP port."""

    def __init__(
        self,
        host: str,
        port: int,
        intake: Intake,
        sources: Sources,
        limits: ForwardLimits | None = None,
        *,
        security: Security | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """With ``security`` every sender has to prove that it knows the shared key; with ``tls`` it speaks TLS."""
        self._host, self._port = host, port
        self._limits = limits or ForwardLimits()
        self.counters = InputCounters()
        self._senders = Senders(
            self.counters,
            self._limits.connections,
            self._limits.pending_bytes,
            lambda: self._delivery.paused,
        )
        self._delivery = Delivery(
            "fluentd", intake, sources, self.counters, self._senders.pause, self._senders.resume
        )
        self._settings = ForwardSettings(
            self._senders, self._limits.message_bytes, self._message, self._flush, security
        )
        self._tls = tls
        self._collator = Collator()
        self._chunks: OrderedDict[tuple[bytes, str, int, int], None] = OrderedDict()
        self._answers: list[bytes] = []  # to the connection that is being read
        self._server: asyncio.Server | None = None
        self._heartbeat: asyncio.DatagramTransport | None = None
        self._address = ("", 0)

    @property
    def address(self) -> tuple[str, int]:
        """The bound host and port."""
        if self._server is None:
            raise RuntimeError("the Forward input is not started")
        return self._address

    async def start(self) -> None:
        """Bind. Raises OSError naming the address."""
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(
                lambda: ForwardConnection(self._settings, secured=self._tls is not None),
                self._host,
                self._port,
                reuse_address=True,
                ssl=self._tls,
                ssl_handshake_timeout=HANDSHAKE_SECONDS if self._tls else None,
            )
        except OSError as error:
            raise OSError(
                error.errno, f"cannot receive Forward on {self._host}:{self._port}: {error.strerror}"
            ) from error
        host, port = self._server.sockets[0].getsockname()[:2]
        self._address = host, port
        try:
            self._heartbeat, _ = await loop.create_datagram_endpoint(_Heartbeat, local_addr=(host, port))
        except OSError as error:  # only old fluentd configurations ask for it
            log.warning("forward input: no UDP heartbeat on %s:%d: %s", host, port, error)

    async def stop(self) -> None:
        """Take what has arrived, store it, close."""
        if self._server is not None:
            self._server.close()
            await read_out(self.counters)
        if self._heartbeat is not None:
            self._heartbeat.close()
        self._senders.close()
        self._delivery.close()
        if self._server is not None:
            await self._server.wait_closed()

    def _message(self, message: Message) -> None:
        """Take one message; whoever asked for an acknowledgement gets it once it is stored."""
        self.counters.received += len(message.events) + message.malformed
        if message.malformed:
            self.counters.dropped["malformed"] += message.malformed
        chunk = message.chunk
        if chunk is not None:
            self._answers.append(ack(chunk))
            # With the message's ends: there are clients that know one chunk id only.
            sent = (chunk, message.tag, len(message.events), _ends(message))
            if sent in self._chunks:
                self.counters.duplicates += len(message.events)
                return
            self._chunks[sent] = None
            if len(self._chunks) > _REMEMBERED:
                self._chunks.popitem(last=False)
        self._add(message)

    def _add(self, message: Message) -> None:
        for event in message.events:
            origin, stream, text, attributes, whole = line(message.tag, event)
            time_ns = time.time_ns() if event.time_ns is None else event.time_ns
            self._collator.add(origin, stream, time_ns, text, attributes, whole=whole)

    def _flush(self, connection: ForwardConnection) -> None:
        """Store what one read of a connection brought; then its answers leave, also for what it sent again."""
        answers = b"".join(self._answers)
        self._answers.clear()
        blocks = self._collator.take()
        if answers:
            self._delivery.submit(blocks, lambda: connection.answer(answers))
        elif blocks:
            self._delivery.submit(blocks)


def _ends(message: Message) -> int:
    """A fingerprint of the first and the last event."""
    return hash((repr(message.events[:1]), repr(message.events[-1:])))


class _Heartbeat(asyncio.DatagramProtocol):
    """Echoes fluentd's UDP heartbeat, one NUL byte."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport to answer on."""
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Answer."""
        self._transport.sendto(b"\0", addr)
