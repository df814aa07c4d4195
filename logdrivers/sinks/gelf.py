"""Where the ``gelf`` driver's messages go over UDP, TCP and TLS; HTTP is ``logdrivers/sinks/gelf_http.py``.

A sink connects on first use and after every failure, and every wait has a deadline. The bytes are made in
``logdrivers/codecs/gelf.py``.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

from logdrivers.block import Block
from logdrivers.codecs.gelf import Datagrams, GelfEncoder
from logdrivers.driver import EMPTY_LINE, Rejected, SinkDown
from logdrivers.sinks.datagrams import DEFAULT_RATE, Pace
from logdrivers.sinks.dial import Dialer
from logdrivers.sinks.gelf_address import GelfAddress
from logdrivers.sinks.shared_socket import SharedSocket
from logdrivers.sinks.stream_sink import FrameSink
from logdrivers.sinks.tls import Tls

__all__ = ["GelfTcpSink", "GelfUdpSink"]

_CONNECT_SECONDS = 10.0
_WRITE_SECONDS = 10.0


class GelfTcpSink(FrameSink):
    """Frames over one connection, TCP or TLS."""

    def __init__(self, address: GelfAddress, encoder: GelfEncoder, tls: Tls | None = None) -> None:
        super().__init__(
            address.host, address.port, encoder, _CONNECT_SECONDS, _WRITE_SECONDS, name=str(address), tls=tls
        )


class GelfUdpSink:
    """Datagrams in small bursts, below a rate the receiver's buffer can take."""

    def __init__(
        self, address: GelfAddress, encoder: GelfEncoder, datagrams: Datagrams, rate: int = DEFAULT_RATE
    ) -> None:
        self._dialer = Dialer(address.host, address.port, socket.SOCK_DGRAM, _CONNECT_SECONDS)
        self._encoder = encoder
        self._datagrams = datagrams
        self._pace = Pace(rate)
        self._shared = SharedSocket()

    def send(self, blocks: Sequence[Block]) -> None:
        """Send every message. Raises SinkDown (nobody listens, no route), Rejected (``too_large``, ``empty_line``)."""
        empty, too_large = self._encoder.empty_lines, self._datagrams.too_large
        datagrams = [datagram for block in blocks for datagram in self._datagrams.encode(block)]
        if datagrams:
            self._send(datagrams)
        Rejected.check(
            {
                "too_large": self._datagrams.too_large - too_large,
                EMPTY_LINE: self._encoder.empty_lines - empty,
            }
        )

    def _send(self, datagrams: Sequence[bytes]) -> None:
        with self._shared.used():
            try:
                self._pace.send(self._connection(), datagrams, _WRITE_SECONDS, str(self._dialer))
            except OSError as error:
                self.close()
                raise SinkDown(f"cannot send to {self._dialer}: {error}") from error
            except SinkDown:
                self.close()
                raise

    def _connection(self) -> socket.socket:
        sock = self._shared.sock
        if sock is not None and self._dialer.moved(sock):
            self.close()
            sock = None
        if sock is None:
            sock = self._dialer.connect()
            sock.setblocking(False)
            self._shared.connected(sock)
        return sock

    def close(self) -> None:
        """Give up the socket at once, also under a thread that waits for it."""
        self._shared.give_up()
