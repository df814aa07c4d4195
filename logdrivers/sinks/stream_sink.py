"""Sinks that send over one stream connection: made on first use, given up on every failure.

How addresses are found and bytes are written is ``logdrivers/sinks/dial.py``, TLS around the connection
``logdrivers/sinks/tls.py``; what is said over it is the log driver's own. Retrying is ``logdrivers/delivery.py``.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Protocol

from logdrivers.block import Block
from logdrivers.driver import EMPTY_LINE, Rejected, SinkDown
from logdrivers.sinks.dial import Dialer, dial_unix, peer_closed, write
from logdrivers.sinks.shared_socket import SharedSocket
from logdrivers.sinks.tls import Tls, secure

__all__ = ["FrameEncoder", "FrameSink", "StreamSink"]


class StreamSink:
    """A connection to ``host:port``, or to a Unix socket if there is a path, for a sink to speak over."""

    #: Whether the server says something before lines count as sent.
    _server_answers = False

    def __init__(
        self,
        host: str,
        port: int,
        connect_seconds: float,
        *,
        path: str = "",
        name: str = "",
        tls: Tls | None = None,
    ) -> None:
        self._host = host
        self._tls = tls
        self._dialer = Dialer(host, port, socket.SOCK_STREAM, connect_seconds)
        self._path = path
        self._connect_seconds = connect_seconds
        self._name = name or str(self._dialer)  #: the address, for messages
        self._shared = SharedSocket()

    @property
    def _sock(self) -> socket.socket | None:
        return self._shared.sock

    def _speak(self, exchange: Callable[[socket.socket], None], attempt: str = "cannot write") -> None:
        """Run ``exchange`` on the connection. Raises SinkDown, the connection given up, if it cannot be done."""
        with self._shared.used():
            try:
                exchange(self._connection())
            except OSError as error:
                self.close()
                raise SinkDown(f"{attempt} to {self._name}: {error}") from error
            except SinkDown:
                self.close()
                raise

    def _connection(self) -> socket.socket:
        sock = self._sock
        if sock is not None and (peer_closed(sock) or (not self._path and self._dialer.moved(sock))):
            self.close()
            sock = None
        if sock is None:
            try:
                sock = self._connect()
            finally:
                self._shared.connected(sock)
        return sock

    def _connect(self) -> socket.socket:
        if self._path:
            return dial_unix(self._path, self._connect_seconds)
        sock = self._dialer.connect()
        self._shared.connecting(sock)
        if self._tls is None:
            return sock
        try:
            return secure(sock, self._tls, self._host, self._name, server_answers=self._server_answers)
        except (OSError, SinkDown):  # ssl.SSLError is an OSError
            sock.close()
            raise

    def close(self) -> None:
        """Give up the connection at once, also under a thread that waits for it."""
        self._shared.give_up()


class FrameEncoder(Protocol):
    """Makes a block's bytes, and counts the lines without text, which are not in them."""

    empty_lines: int

    def frames(self, block: Block) -> bytes:
        """The block's messages, each marked off from the next."""


class FrameSink(StreamSink):
    """Messages in frames; a batch counts as sent when the receiving host has it."""

    def __init__(
        self,
        host: str,
        port: int,
        encoder: FrameEncoder,
        connect_seconds: float,
        write_seconds: float,
        *,
        path: str = "",
        name: str = "",
        tls: Tls | None = None,
    ) -> None:
        super().__init__(host, port, connect_seconds, path=path, name=name, tls=tls)
        self._encoder = encoder
        self._write_seconds = write_seconds

    def send(self, blocks: Sequence[Block]) -> None:
        """Send all blocks, each encoded when it is its turn, so that its bytes are still in the processor's cache.

        Raises SinkDown, to be sent again; Rejected (``empty_line``).
        """
        before = self._encoder.empty_lines
        pieces = filter(None, map(self._encoder.frames, blocks))
        first = next(pieces, None)
        if first is not None:  # lines without text need no server
            self._write(chain((first,), pieces))
        empty = self._encoder.empty_lines - before
        Rejected.check({EMPTY_LINE: empty})

    def _write(self, pieces: Iterable[bytes]) -> None:
        self._speak(lambda sock: write(sock, pieces, self._write_seconds))
