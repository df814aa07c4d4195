"""Carries blocks to a server that speaks Fluentd's Forward protocol: handshake, messages, acknowledgements.

The bytes are made in ``logdrivers/codecs/forward.py`` and ``forward_handshake.py`` beside it; how the connection
is made is ``logdrivers/sinks/stream_sink.py``, what the options say ``logdrivers/fluentd_options.py``.
"""

from __future__ import annotations

import base64
import itertools
import os
import socket
import ssl
import struct
import time
from collections.abc import Iterator, Sequence
from typing import Any

import msgpack

from logdrivers.block import Block
from logdrivers.codecs.forward import ForwardEncoder
from logdrivers.codecs.forward_decode import DecodeError, ForwardDecoder, Handshake
from logdrivers.codecs.forward_handshake import Client, HandshakeError
from logdrivers.driver import OptionError, SinkDown
from logdrivers.fluentd_options import FluentdAddress, SecretSource
from logdrivers.sinks.dial import readable, write
from logdrivers.sinks.stream_sink import StreamSink
from logdrivers.sinks.tls import Tls

__all__ = ["READ_SECONDS", "WRITE_SECONDS", "FluentdSink"]

# fluent-logger packs and sends one event per call, keeps no acknowledgement and drops what overflows its
# buffer; blocks, chunks with an answer, and SinkDown need our own sender. Tests use it as a foreign client.

#: Docker waits for ever where no timeout is given; ours are then these.
WRITE_SECONDS = 10.0
READ_SECONDS = 60.0
_CONNECT_SECONDS = 3.0
#: How long a server may take for its half of the handshake.
_HANDSHAKE_SECONDS = 10.0
_HANDSHAKE_BYTES = 64 << 10
#: A server that wants a shared key says so at once. This, and two times what connecting took, it is given.
_FIRST_WORD_SECONDS = 0.1
#: Messages sent before their answers are read, which must find room in the receive buffer meanwhile.
_WINDOW = 1000
#: Bytes of messages that are handed over in one go.
_PIECE = 64 << 10
_WANTS_KEY = "it asks for a shared key, and neither fluentd-shared-key nor fluentd-shared-key-file is set"


class FluentdSink(StreamSink):
    """Blocks over one connection: a message per line in Docker's bytes, or a packed chunk per block."""

    #: Either it does, or the sink listens itself.
    _server_answers = True

    def __init__(
        self,
        address: FluentdAddress,
        encoder: ForwardEncoder,
        *,
        mode: str = "message",
        request_ack: bool = False,
        tls: Tls | None = None,
        secrets: SecretSource | None = None,
        write_seconds: float = WRITE_SECONDS,
        read_seconds: float = READ_SECONDS,
    ) -> None:
        super().__init__(
            address.host, address.port, _CONNECT_SECONDS, path=address.path, name=str(address), tls=tls
        )
        self._encoder = encoder
        self._packed = mode != "message"
        self._compressed = mode == "compressed"
        self._request_ack = request_ack
        self._secrets = secrets
        self._write_seconds = write_seconds
        self._read_seconds = read_seconds
        self._keepalive = True
        #: Ids of blocks sent but not acknowledged: sent again, they keep their id, so that a server that has
        #: them can tell.
        self._unanswered: list[tuple[Block, bytes]] = []
        self._answered = 0  #: how many of their chunks were acknowledged, from the first on

    def send(self, blocks: Sequence[Block]) -> None:
        """Return when the server's host has all blocks, or, with acknowledgement, the server has. SinkDown."""
        blocks = [block for block in blocks if block.lines]
        if not blocks:
            return
        self._speak(lambda sock: self._send_blocks(sock, blocks))
        if not self._keepalive:
            self.close()

    def _send_blocks(self, sock: socket.socket, blocks: Sequence[Block]) -> None:
        if self._request_ack:
            self._send_acknowledged(sock, blocks)
            return
        if self._packed:
            data = [self._encoder.packed(block, compressed=self._compressed) for block in blocks]
        else:
            data = [self._encoder.messages(block) for block in blocks]
        write(sock, b"".join(data), self._write_seconds)
        if self._secrets is None and (word := _received(sock)):
            self._check_word(word)

    # --- acknowledgement -----------------------------------------------------------------------------

    def _send_acknowledged(self, sock: socket.socket, blocks: Sequence[Block]) -> None:
        again = self._unanswered
        self._unanswered = [
            (block, again[i][1] if i < len(again) and again[i][0] == block else os.urandom(16))
            for i, block in enumerate(blocks)
        ]
        if again != self._unanswered[: len(again)]:
            self._answered = 0
        chunks = itertools.islice(self._chunks(), self._answered, None)
        answers = msgpack.Unpacker(raw=True, max_buffer_size=1 << 20)
        # Answers are some 35 bytes each: they wait in the receive buffer until a window is written.
        while window := self._send_window(sock, itertools.islice(chunks, _WINDOW)):
            self._await_acks(sock, answers, set(window))
            self._answered += len(window)
        self._unanswered, self._answered = [], 0

    def _send_window(self, sock: socket.socket, chunks: Iterator[tuple[bytes, str]]) -> list[bytes]:
        """Send them in pieces of some size; their ids."""
        sock.settimeout(self._write_seconds)
        ids: list[bytes] = []
        piece: list[bytes] = []
        size = 0
        for message, chunk in chunks:
            ids.append(chunk.encode())
            piece.append(message)
            size += len(message)
            if size >= _PIECE:
                sock.sendall(b"".join(piece))
                piece, size = [], 0
        if piece:
            sock.sendall(b"".join(piece))
        return ids

    def _chunks(self) -> Iterator[tuple[bytes, str]]:
        """What is to be acknowledged, with its id."""
        for block, number in self._unanswered:
            if self._packed:
                chunk = _chunk(number)
                yield self._encoder.packed(block, chunk, compressed=self._compressed), chunk
            else:
                chunks = [_chunk(number[:12] + struct.pack("<I", line)) for line in range(block.lines)]
                yield from zip(self._encoder.acknowledged(block, chunks), chunks, strict=True)

    def _await_acks(self, sock: socket.socket, answers: Any, open_chunks: set[bytes]) -> None:
        """The deadline is for progress: a server that answers slowly is no dead one."""
        deadline, before = 0.0, 0
        while open_chunks:
            if len(open_chunks) != before:
                before, deadline = len(open_chunks), time.monotonic() + self._read_seconds
            sock.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                data = sock.recv(65536)
            except TimeoutError:
                raise SinkDown(
                    f"{self._name} has not acknowledged {len(open_chunks)} chunks in {self._read_seconds:g} s"
                ) from None
            if not data:
                raise SinkDown(f"{self._name} closed with {len(open_chunks)} chunks not acknowledged")
            if self._secrets is None:
                self._check_word(data)
            try:
                answers.feed(data)
                for answer in answers:
                    if isinstance(answer, dict):
                        open_chunks.discard(answer.get(b"ack", b""))
            except (ValueError, msgpack.UnpackException) as error:
                raise SinkDown(f"{self._name} answered what is no acknowledgement: {error}") from error

    # --- handshake -----------------------------------------------------------------------------------

    def _connect(self) -> socket.socket:
        begin = time.monotonic()
        sock = super()._connect()
        try:
            if self._secrets is not None:
                self._shake_hands(sock, self._secrets)
            elif not self._request_ack:
                self._listen(sock, _FIRST_WORD_SECONDS + 2 * (time.monotonic() - begin))
        except (OSError, SinkDown):
            sock.close()
            raise
        return sock

    def _shake_hands(self, sock: socket.socket, secrets: SecretSource) -> None:
        """Prove that we know the shared key, and have the server prove it. Raises SinkDown, OSError."""
        decoder = ForwardDecoder(_HANDSHAKE_BYTES)
        deadline = time.monotonic() + _HANDSHAKE_SECONDS
        try:
            client = Client(secrets.read())
            helo = self._hear(sock, decoder, deadline, "HELO")
            sock.sendall(client.ping(helo))
            client.check(self._hear(sock, decoder, deadline, "PONG"))
        except (HandshakeError, OptionError) as error:
            raise SinkDown(f"cannot connect to {self._name}: {error}") from None
        except DecodeError as error:
            raise SinkDown(f"cannot connect to {self._name}: no handshake of Forward: {error}") from None
        self._keepalive = client.keepalive

    def _hear(
        self, sock: socket.socket, decoder: ForwardDecoder, deadline: float, kind: str
    ) -> Sequence[Any]:
        """The fields of the server's next message, which must be of this kind."""
        why = f"cannot connect to {self._name}: no {kind}"
        while True:
            sock.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                data = sock.recv(65536)
            except TimeoutError:
                hint = "; a server without a shared key sends none" if kind == "HELO" else ""
                raise SinkDown(f"{why} within {_HANDSHAKE_SECONDS:g} s{hint}") from None
            if not data:
                raise SinkDown(f"{why}, it closed the connection")
            for message in decoder.feed(data):
                if not isinstance(message, Handshake) or message.kind != kind:
                    raise SinkDown(f"{why}, but another message")
                return message.fields

    def _listen(self, sock: socket.socket, wait_seconds: float) -> None:
        """Hear what the server says first: nothing, or that it wants a key, or over TLS ours is no certificate."""
        deadline = time.monotonic() + wait_seconds
        while (left := deadline - time.monotonic()) > 0 and readable(sock, left):
            word = _received(sock)
            if word == b"":
                raise SinkDown(f"{self._name} closed the connection before anything was sent")
            if word:
                self._check_word(word)

    def _check_word(self, word: bytes) -> None:
        if b"HELO" in word[:8]:
            raise SinkDown(f"cannot send to {self._name}: {_WANTS_KEY}")


def _received(sock: socket.socket) -> bytes | None:
    """What is there to read; None for nothing yet, ``b""`` for the end."""
    timeout = sock.gettimeout()
    sock.setblocking(False)
    try:
        return sock.recv(4096)
    except (BlockingIOError, ssl.SSLWantReadError):
        return None
    finally:
        sock.settimeout(timeout)


def _chunk(number: bytes) -> str:
    return base64.b64encode(number).decode()
