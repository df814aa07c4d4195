"""The GELF input: what Docker's gelf driver, ours, or anything that logs to Graylog sends over UDP, TCP and TLS.

Limits on message size, connections and unfinished bytes each have their cause in ``counters.dropped``. The
format is ``logdrivers/codecs/gelf_decode.py``; storing is ``collector/inputs/received.py``; HTTP is
``collector/inputs/gelf_http.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
import struct
import time
from collections import Counter
from dataclasses import dataclass

from collector.inputs.gelf_batch import GelfBatch
from collector.inputs.intake import Intake, Sources
from collector.inputs.received import Collator, Delivery, InputCounters, read_out
from collector.inputs.sender_connection import SenderConnection, Senders
from logdrivers.codecs.gelf import CHUNK_MAGIC
from logdrivers.codecs.gelf_decode import ChunkAssembler, GelfError, NulFrames, decompress

__all__ = ["GelfInput", "GelfLimits"]

log = logging.getLogger(__name__)

#: Datagrams taken per wakeup; other work of the loop comes in between.
_WAKEUP_DATAGRAMS = 1024
#: After a wakeup that found fewer, how long datagrams may gather: one block instead of many.
_GATHER_SECONDS = 0.005
_HANDSHAKE_SECONDS = 10.0
_SO_RCVBUFFORCE = 33
_SO_MEMINFO, _MEMINFO_DROPS = 55, 8


@dataclass(frozen=True, slots=True)
class GelfLimits:
    """What the input takes, in bytes unless it says otherwise."""

    message_bytes: int = 8 << 20  #: one message, unpacked (``message_too_large``)
    connections: int = 1024  #: open at a time (``connections``)
    pending_bytes: int = 64 << 20  #: unfinished messages of all connections together (``pending_bytes``)
    chunk_messages: int = 1024  #: unfinished chunked messages (``chunks_overflow``)
    chunk_bytes: int = 32 << 20  #: their bytes (``chunks_overflow``)
    chunk_seconds: float = 5.0  #: until an unfinished chunked message is given up (``chunks_expired``)
    socket_buffer: int = 16 << 20  #: asked of the kernel for datagrams (``kernel``)


class GelfInput:
    """Receives on ``host:port``, UDP and TCP, the latter with ``tls`` around it; port 0 takes a free one."""

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
        self._delivery = Delivery("gelf", intake, sources, self.counters, self._pause, self._resume)
        self._collator = Collator()
        self._batch = GelfBatch(self._collator, self._drop)
        self._chunks = ChunkAssembler(
            self._limits.chunk_seconds, self._limits.chunk_messages, self._limits.chunk_bytes
        )
        self._chunk_drops: Counter[str] = Counter()
        self._senders = Senders(
            self.counters,
            self._limits.connections,
            self._limits.pending_bytes,
            lambda: self._delivery.paused,
        )
        self._udp: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._gather: asyncio.TimerHandle | None = None
        self._expiry: asyncio.TimerHandle | None = None

    @property
    def address(self) -> tuple[str, int]:
        """The bound host and port, the same for UDP and TCP."""
        if self._udp is None:
            raise RuntimeError("the GELF input is not started")
        host, port = self._udp.getsockname()[:2]
        return host, port

    async def start(self) -> None:
        """Bind both sockets. Raises OSError naming the address."""
        loop = asyncio.get_running_loop()
        tcp, self._udp = _bind_pair(self._host, self._port, self._limits.socket_buffer)
        self._server = await loop.create_server(
            lambda: _Connection(self),
            sock=tcp,
            ssl=self._tls,
            ssl_handshake_timeout=_HANDSHAKE_SECONDS if self._tls else None,
        )
        loop.add_reader(self._udp, self._readable)
        self._expire()

    async def stop(self) -> None:
        """Take what has arrived, store it, close."""
        loop = asyncio.get_running_loop()
        for timer in (self._gather, self._expiry):
            if timer is not None:
                timer.cancel()
        if self._server is not None:
            self._server.close()
            await read_out(self.counters)
        self._senders.close()
        if self._udp is not None:
            if not self._delivery.paused:
                while self._receive() == _WAKEUP_DATAGRAMS:
                    pass
            loop.remove_reader(self._udp)
            self._udp.close()
        self._chunks.drop_all("chunks_stopped")
        self._count_drops()
        self._delivery.close()
        if self._server is not None:
            await self._server.wait_closed()

    # --- UDP ---

    def _readable(self) -> None:
        assert self._udp is not None
        if self._receive() < _WAKEUP_DATAGRAMS and not self._delivery.paused:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._udp)
            self._gather = loop.call_later(_GATHER_SECONDS, self._listen)

    def _listen(self) -> None:
        self._gather = None
        if self._udp is not None and self._udp.fileno() >= 0 and not self._delivery.paused:
            asyncio.get_running_loop().add_reader(self._udp, self._readable)

    def _receive(self) -> int:
        """Take datagrams until there are none or it is enough; store what they were. How many."""
        assert self._udp is not None
        receive = self._udp.recvfrom
        count = 0
        with contextlib.suppress(BlockingIOError):
            for count in range(1, _WAKEUP_DATAGRAMS + 1):  # noqa: B007
                datagram, sender = receive(65536)
                self._datagram(datagram, sender)
            count += 1
        count -= 1
        self._flush()
        self._count_drops()
        return count

    def _datagram(self, datagram: bytes, sender: object) -> None:
        self.counters.bytes += len(datagram)
        if datagram[:2] == CHUNK_MAGIC:
            whole = self._chunks.add(datagram, sender, time.monotonic())
            if whole is None:
                return
            datagram = whole
        self._payload(datagram)

    def _count_drops(self) -> None:
        """Bring the assembler's and the kernel's counts up to date."""
        dropped = self.counters.dropped
        if self._chunks.dropped != self._chunk_drops:
            new = self._chunks.dropped - self._chunk_drops
            self._chunk_drops += new
            dropped.update(new)
            self.counters.received += new.total()
        if self._udp is not None and self._udp.fileno() >= 0:
            info = self._udp.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 36)
            dropped["kernel"] = struct.unpack("9I", info)[_MEMINFO_DROPS]

    def _expire(self) -> None:
        self._chunks.expire(time.monotonic())
        self._count_drops()
        self._expiry = asyncio.get_running_loop().call_later(1.0, self._expire)

    # --- both ---

    def _payload(self, payload: bytes) -> None:
        """Take one message, to be stored with the others of its container."""
        self.counters.received += 1
        try:
            self._batch.add(decompress(payload, self._limits.message_bytes))
        except GelfError as error:
            self._drop(error)

    def _drop(self, error: GelfError) -> None:
        self.counters.dropped[error.cause] += 1
        log.debug("gelf input: dropped a message: %s", error)

    def _flush(self) -> None:
        self._batch.flush()
        blocks = self._collator.take()
        if blocks:
            self._delivery.submit(blocks)

    def _pause(self) -> None:
        if self._udp is not None:
            asyncio.get_running_loop().remove_reader(self._udp)
        self._senders.pause()

    def _resume(self) -> None:
        self._listen()
        self._senders.resume()


class _Connection(SenderConnection):
    """One TCP sender."""

    def __init__(self, owner: GelfInput) -> None:
        super().__init__(owner._senders)
        self._owner = owner
        self._frames = NulFrames(owner._limits.message_bytes)

    def data_received(self, data: bytes) -> None:
        """Take the messages that are complete."""
        if self._transport is None:
            return
        owner = self._owner
        owner.counters.bytes += len(data)
        try:
            for payload in self._frames.feed(data):
                owner._payload(payload)
            self._account(self._frames.pending_bytes)
            if excess := self._senders.pending_excess():
                raise GelfError("pending_bytes", excess)
        except GelfError as error:
            owner.counters.received += 1
            owner._drop(error)
            log.warning("gelf input: closed %s: %s", self._transport.get_extra_info("peername"), error)
            self._frames.take()
            self.close()
        owner._flush()

    def _settle(self) -> None:
        """A message the sender did not end is taken if it is whole JSON, and counted if it is not."""
        rest = self._frames.take()
        self._account(0)
        if rest and not rest.isspace():
            self._owner._payload(rest)
            self._owner._flush()


def _bind_pair(host: str, port: int, buffer_bytes: int) -> tuple[socket.socket, socket.socket]:
    """A TCP and a UDP socket on one address."""
    family, _, _, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    for attempts_left in range(20, -1, -1):
        tcp, udp = socket.socket(family, socket.SOCK_STREAM), socket.socket(family, socket.SOCK_DGRAM)
        try:
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tcp.bind(address)
            udp.bind(tcp.getsockname())
        except OSError as error:
            tcp.close()
            udp.close()
            if port == 0 and error.errno == errno.EADDRINUSE and attempts_left:
                continue
            raise OSError(error.errno, f"cannot receive GELF on {host}:{port}: {error.strerror}") from error
        try:
            udp.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, buffer_bytes)
        except PermissionError:  # not root: up to net.core.rmem_max
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        tcp.setblocking(False)
        udp.setblocking(False)
        return tcp, udp
    raise AssertionError("unreachable")
