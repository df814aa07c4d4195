"""Where syslog messages go: a server over UDP, TCP or TLS, a Unix socket, or the host's own.

A sink connects on first use and after every failure, and every wait has a deadline. Messages are made in
``logdrivers/codecs/syslog.py``.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence

from logdrivers.block import Block
from logdrivers.codecs.syslog import SyslogEncoder
from logdrivers.driver import EMPTY_LINE, Rejected, SinkDown
from logdrivers.sinks.datagrams import Pace
from logdrivers.sinks.dial import Dialer, peer_closed, write
from logdrivers.sinks.shared_socket import SharedSocket
from logdrivers.sinks.stream_sink import FrameSink
from logdrivers.sinks.syslog_address import SyslogAddress
from logdrivers.sinks.tls import Tls

__all__ = ["LOCAL_SOCKETS", "SyslogDatagramSink", "SyslogStreamSink"]

_CONNECT_SECONDS = 10.0
_WRITE_SECONDS = 10.0
#: Where a host's syslog daemon listens, in the order in which they are tried.
LOCAL_SOCKETS = ("/dev/log", "/var/run/syslog", "/var/run/log")


class SyslogStreamSink(FrameSink):
    """Messages over one connection: TCP, TLS or a Unix socket."""

    def __init__(self, address: SyslogAddress, encoder: SyslogEncoder, tls: Tls | None) -> None:
        super().__init__(
            address.host,
            address.port,
            encoder,
            _CONNECT_SECONDS,
            _WRITE_SECONDS,
            path=address.path,
            name=str(address),
            tls=tls,
        )


class SyslogDatagramSink:
    """One datagram per message: UDP below a rate, or a Unix socket, which waits by itself."""

    def __init__(self, address: SyslogAddress, encoder: SyslogEncoder, pace: Pace) -> None:
        self._address = address
        self._dialer = Dialer(address.host, address.port, socket.SOCK_DGRAM, _CONNECT_SECONDS)
        self._encoder = encoder
        self._pace = pace
        self._shared = SharedSocket()

    def send(self, blocks: Sequence[Block]) -> None:
        """Send every message. Raises SinkDown (nobody listens, no route), Rejected (``too_large``, ``empty_line``)."""
        before = self._encoder.empty_lines
        messages = [message for block in blocks for message in self._encoder.messages(block)]
        empty = self._encoder.empty_lines - before
        too_large = self._send(messages) if messages else 0
        Rejected.check({"too_large": too_large, EMPTY_LINE: empty})

    def _send(self, messages: Sequence[bytes]) -> int:
        """How many the system finds too large for a datagram."""
        with self._shared.used():
            try:
                sock = self._connection()
                if sock.type is socket.SOCK_STREAM:
                    sock.setblocking(True)
                    write(sock, b"".join(messages), _WRITE_SECONDS)
                    return 0
                return self._pace.send(sock, messages, _WRITE_SECONDS, str(self._address))
            except OSError as error:
                self.close()
                raise SinkDown(f"cannot send to {self._address}: {error}") from error
            except SinkDown:
                self.close()
                raise

    def _connection(self) -> socket.socket:
        udp = self._address.scheme == "udp"
        sock = self._shared.sock
        if sock is not None and (self._dialer.moved(sock) if udp else peer_closed(sock)):
            self.close()
            sock = None
        if sock is None:
            sock = self._dialer.connect() if udp else self._connect_unix()
            sock.setblocking(False)
            self._shared.connected(sock)
        return sock

    def _connect_unix(self) -> socket.socket:
        why: OSError | None = None
        for kind, path in self._unix_sockets():
            sock = socket.socket(socket.AF_UNIX, kind)
            try:
                sock.settimeout(_CONNECT_SECONDS)
                sock.connect(path)
            except OSError as error:
                sock.close()
                why = why or error
                continue
            return sock
        raise SinkDown(f"cannot connect to {self._address}: {why}")

    def _unix_sockets(self) -> Iterator[tuple[socket.SocketKind, str]]:
        if self._address.path:
            yield socket.SOCK_DGRAM, self._address.path
            return
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            for path in LOCAL_SOCKETS:
                yield kind, path

    def close(self) -> None:
        """Give up the socket at once, also under a thread that waits for it."""
        self._shared.give_up()
