"""The Forward input: what Docker's fluentd driver, Fluentd, Fluent Bit or a fluent-logger sends.

An acknowledgement leaves when the lines are stored, not before. Limits on message size and connections have
their cause in ``counters.dropped``. The protocol is ``logdrivers/codecs/forward_decode.py``; storing is
``collector/inputs/received.py``.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import orjson

from collector.inputs.intake import Intake, Sources
from collector.inputs.received import Collator, Delivery, InputCounters, Origin, read_out, render_attributes
from collector.inputs.sender_connection import SenderConnection, Senders
from logdrivers.block import Stream
from logdrivers.codecs.forward import ack
from logdrivers.codecs.forward_decode import DecodeError, Event, ForwardDecoder, Handshake, Message

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
        self, host: str, port: int, intake: Intake, sources: Sources, limits: ForwardLimits | None = None
    ) -> None:
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
        self._collator = Collator()
        self._chunks: OrderedDict[tuple[bytes, str, int, int], None] = OrderedDict()
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
                lambda: _Connection(self), self._host, self._port, reuse_address=True
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

    def _message(self, message: Message, connection: _Connection) -> None:
        """Take one message; whoever asked for an acknowledgement gets it once it is stored."""
        self.counters.received += len(message.events) + message.malformed
        if message.malformed:
            self.counters.dropped["malformed"] += message.malformed
        chunk = message.chunk
        if chunk is None:
            self._add(message)
            return
        # The lines before it go first, so that each container's stay in order.
        self._flush()
        # With the message's ends: there are clients that know one chunk id only.
        sent = (chunk, message.tag, len(message.events), _ends(message))
        if sent in self._chunks:
            self.counters.duplicates += len(message.events)
            self._delivery.submit((), lambda: connection.answer(ack(chunk)))
            return
        self._add(message)
        self._chunks[sent] = None
        if len(self._chunks) > _REMEMBERED:
            self._chunks.popitem(last=False)
        self._delivery.submit(self._collator.take(), lambda: connection.answer(ack(chunk)))

    def _add(self, message: Message) -> None:
        for event in message.events:
            origin, stream, text, attributes, whole = _line(message.tag, event)
            time_ns = time.time_ns() if event.time_ns is None else event.time_ns
            self._collator.add(origin, stream, time_ns, text, attributes, whole=whole)

    def _flush(self) -> None:
        blocks = self._collator.take()
        if blocks:
            self._delivery.submit(blocks)


def _ends(message: Message) -> int:
    """A fingerprint of the first and the last event."""
    return hash((repr(message.events[:1]), repr(message.events[-1:])))


# --- events to lines -----------------------------------------------------------------------------------

_LOG_KEYS = ((b"log", "log"), (b"message", "message"))
_TEXTS = frozenset({bytes, str})
_CACHEABLE = 4096
_Line = tuple[Origin, Stream, bytes, bytes, bool]


def _line(tag: str, event: Event) -> _Line:
    """What an event says: whose line, which stream, the text, the further fields, whether it ends there."""
    record = dict(event.record)
    text: object = None
    for packed, plain in _LOG_KEYS:
        text = record.pop(packed, None)
        if text is None:
            text = record.pop(plain, None)
        if text is not None:
            break
    if text is None:  # an application's own event: all of it is the line
        text = orjson.dumps(_plain(record))
        record = {}
    values = record.values()
    # Texts only: equal numbers and booleans read differently; and small: what is remembered takes memory.
    same = _TEXTS.issuperset(map(type, values)) and sum(map(len, values)) < _CACHEABLE
    describe = _described if same else _describe
    origin, stream, attributes, whole = describe(tag, tuple(record.items()))
    return (
        origin,
        stream,
        text if type(text) is bytes else _text(text).encode("utf-8", "replace"),
        attributes,
        whole,
    )


def _describe(tag: str, items: tuple[tuple[Any, Any], ...]) -> tuple[Origin, Stream, bytes, bool]:
    fields = {_text(key): _text(value) for key, value in items}
    container_id = fields.pop("container_id", "")
    name = fields.pop("container_name", "").removeprefix("/") or tag
    stream = Stream.STDERR if fields.get("source") == "stderr" else Stream.STDOUT
    if fields.get("source") in ("stdout", "stderr"):
        del fields["source"]
    whole = fields.pop("partial_message", "") != "true" or fields.get("partial_last") == "true"
    fields.setdefault("tag", tag)
    origin = Origin(container_id, name, fields.pop("image_name", ""))
    return origin, stream, render_attributes(tuple(fields.items())), whole


#: A container's lines differ in nothing but the text, mostly.
_described = lru_cache(maxsize=1024)(_describe)


def _plain(value: Any) -> Any:
    """A MessagePack value as JSON has it."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, dict):
        return {_text(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | float | str):
        return value
    if isinstance(value, int):
        return value if -(1 << 63) <= value < 1 << 64 else str(value)
    return str(value)


def _text(value: Any) -> str:
    if type(value) is bytes:
        return value.decode("utf-8", "replace")
    if type(value) is str:
        return value
    return orjson.dumps(_plain(value), option=orjson.OPT_NON_STR_KEYS).decode()


# --- connections ---------------------------------------------------------------------------------------


class _Connection(SenderConnection):
    """One sender."""

    def __init__(self, owner: ForwardInput) -> None:
        super().__init__(owner._senders)
        self._owner = owner
        self._decoder = ForwardDecoder(owner._limits.message_bytes)

    def data_received(self, data: bytes) -> None:
        """Take the messages that are complete."""
        if self._transport is None:
            return
        owner = self._owner
        owner.counters.bytes += len(data)
        try:
            for message in self._messages(data):
                owner._message(message, self)
            self._account(self._decoder.pending_bytes)
            if excess := self._senders.pending_excess():
                raise DecodeError("pending_bytes", excess)
        except DecodeError as error:
            self._drop(error.cause)
            log.warning("forward input: closed %s: %s", self._transport.get_extra_info("peername"), error)
            self._account(0)
            self.close()
        owner._flush()

    def _messages(self, data: bytes) -> Iterator[Message]:
        for message in self._decoder.feed(data):
            if isinstance(message, Handshake):
                raise DecodeError("handshake", f"{message.kind}: this input has no shared key")
            yield message

    def answer(self, data: bytes) -> None:
        """Send an acknowledgement, if the sender is still there."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _hang_up(self, transport: asyncio.Transport) -> None:
        transport.close()  # with the answers given sent

    def _settle(self) -> None:
        if self._accounted:
            self._account(0)
            self._drop("incomplete")

    def _drop(self, cause: str) -> None:
        self._owner.counters.received += 1
        self._owner.counters.dropped[cause] += 1


class _Heartbeat(asyncio.DatagramProtocol):
    """Echoes fluentd's UDP heartbeat, one NUL byte."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport to answer on."""
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Answer."""
        self._transport.sendto(b"\0", addr)
