"""One sender of the Forward input: its handshake if the input has a shared key, then its messages.

Whoever is refused is told why in the protocol's words, counted by cause, and hung up on. What becomes of messages
is ``collector/inputs/forward.py``; the handshake's digests are ``logdrivers/codecs/forward_handshake.py``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from collector.inputs.sender_connection import SenderConnection, Senders
from logdrivers.codecs.forward_decode import DecodeError, ForwardDecoder, Handshake, Message
from logdrivers.codecs.forward_handshake import Security, Server

__all__ = ["HANDSHAKE_SECONDS", "ForwardConnection", "ForwardSettings"]

log = logging.getLogger(__name__)

#: How long a sender may take for its PING, or for TLS.
HANDSHAKE_SECONDS = 10.0
#: A PING is some 400 bytes; nobody unknown makes us hold more.
_HANDSHAKE_BYTES = 16 << 10


@dataclass(frozen=True, slots=True)
class ForwardSettings:
    """What all connections of one input share: who takes messages, and who may send them."""

    senders: Senders
    message_bytes: int  #: limit of one message, packed or unpacked
    take: Callable[[Message], None]
    flush: Callable[[ForwardConnection], None]  #: called when the messages of one read are taken
    security: Security | None


class ForwardConnection(SenderConnection):
    """One sender."""

    def __init__(self, settings: ForwardSettings, *, secured: bool = False) -> None:
        """``secured``: there is a TLS handshake before the connection is made."""
        super().__init__(settings.senders)
        self._settings = settings
        self._decoder = ForwardDecoder(settings.message_bytes)
        self._server: Server | None = None  #: until the sender has proved that it knows the key
        self._deadline: asyncio.TimerHandle | None = None
        self._peer: object = None
        if secured:
            loop = asyncio.get_running_loop()
            self._deadline = loop.call_later(HANDSHAKE_SECONDS + 1, self._without_tls)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, or refuse it over the limit; greet, if the input has a shared key."""
        self._end_wait()
        super().connection_made(transport)
        security = self._settings.security
        if self._transport is None:
            return
        self._peer = self._transport.get_extra_info("peername")
        if security is not None:
            self._server = Server(security)
            self._transport.write(self._server.helo())
            loop = asyncio.get_running_loop()
            self._deadline = loop.call_later(HANDSHAKE_SECONDS, self._without_handshake)

    def data_received(self, data: bytes) -> None:
        """Take the messages that are complete."""
        if self._transport is None:
            return
        self._senders.counters.bytes += len(data)
        try:
            for message in self._messages(data):
                self._settings.take(message)
            self._account(self._decoder.pending_bytes)
            if self._server is not None and self._decoder.pending_bytes > _HANDSHAKE_BYTES:
                raise DecodeError("handshake", f"more than {_HANDSHAKE_BYTES} bytes before a PING")
            if excess := self._senders.pending_excess():
                raise DecodeError("pending_bytes", excess)
        except DecodeError as error:
            self._settings.flush(self)  # what came before is stored, and answered
            self._refuse(error.cause, str(error))
        self._settings.flush(self)

    def _messages(self, data: bytes) -> Iterator[Message]:
        for message in self._decoder.feed(data):
            if self._server is not None:
                self._check(self._server, message)
            elif isinstance(message, Handshake):
                raise DecodeError("handshake", f"{message.kind}: this input has no shared key, or had a PING")
            else:
                yield message

    def _check(self, server: Server, message: Message | Handshake) -> None:
        """The first message of a sender: a PING that shows what it knows. Raises DecodeError."""
        if not isinstance(message, Handshake) or message.kind != "PING":
            raise DecodeError("handshake", "this input has a shared key, and the first message is no PING")
        answer, refusal = server.pong(message.fields)
        self.answer(answer)
        if refusal is not None:
            raise DecodeError(refusal.cause, str(refusal))
        self._server = None
        self._end_wait()

    def answer(self, data: bytes) -> None:
        """Send a PONG or an acknowledgement, if the sender is still there."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _without_tls(self) -> None:
        self._peer = "a sender"
        self._refuse("tls", f"no TLS handshake within {HANDSHAKE_SECONDS:g} s")

    def _without_handshake(self) -> None:
        self._refuse("handshake", f"no PING within {HANDSHAKE_SECONDS:g} s")

    def _refuse(self, cause: str, why: str) -> None:
        self._drop(cause)
        log.warning("forward input: closed %s: %s", self._peer, why)
        self._account(0)
        self.close()

    def _end_wait(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _hang_up(self, transport: asyncio.Transport) -> None:
        transport.close()  # with the answers given sent

    def _settle(self) -> None:
        self._end_wait()
        if self._accounted:
            self._account(0)
            self._drop("incomplete")

    def _drop(self, cause: str) -> None:
        self._senders.counters.received += 1
        self._senders.counters.dropped[cause] += 1
