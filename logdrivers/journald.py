"""The ``journald`` log driver: lines go to systemd's journal by its native protocol.

Lines come from our journal, so a journald that is away or slow costs nothing but time, and ``docker logs`` does
not need it. Entries are made in ``logdrivers/codecs/journald.py``; retrying is ``logdrivers/delivery.py``.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from logdrivers.block import Block
from logdrivers.codecs.journald import JournaldEncoder
from logdrivers.driver import Info, OptionError, Sink, SinkDown
from logdrivers.journal import Journal
from logdrivers.journaled import JOURNALED_OPTIONS, JournaledDriver
from logdrivers.journals.segment_reader import journal_directory, segment_numbers
from logdrivers.options import check_known
from logdrivers.sinks.datagrams import send_waiting
from logdrivers.sinks.shared_socket import SharedSocket

__all__ = ["JOURNALD_SOCKET", "JournaldDriver", "JournaldSink"]

JOURNALD_SOCKET = "/run/systemd/journal/socket"
_WRITE_SECONDS = 10.0
_SEND_BUFFER = 8 << 20
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


class JournaldDriver(JournaledDriver):
    """Docker's ``journald``, with a journal before it."""

    name = "journald"

    def __init__(self, socket_path: str = JOURNALD_SOCKET) -> None:
        self._socket_path = socket_path

    def validate(self, options: Mapping[str, str]) -> None:
        """Refuse what Docker refuses, in its words, and templates and patterns that cannot work."""
        check_known(self.name, options, JOURNALED_OPTIONS)
        super().validate(options)

    def journal(self, info: Info) -> Journal:
        """The container's segments.

        Raises OptionError in Docker's words on a host without journald, unless lines were kept before: those
        wait for one.
        """
        kept = journal_directory(info.directory)
        if not Path(self._socket_path).is_socket() and not (kept.is_dir() and segment_numbers(kept)):
            raise OptionError("journald is not enabled on this host")
        return super().journal(info)

    def sink(self, info: Info) -> Sink:
        """A sink to journald's socket, not yet connected."""
        return JournaldSink(self._socket_path, JournaldEncoder(info))


class JournaldSink:
    """One datagram per entry; one that is too large for a datagram goes as a sealed file."""

    def __init__(self, socket_path: str, encoder: JournaldEncoder) -> None:
        self._path = socket_path
        self._encoder = encoder
        self._shared = SharedSocket()

    def send(self, blocks: Sequence[Block]) -> None:
        """Return when journald's socket has taken every entry. Raises SinkDown."""
        before = self._encoder.ordinal
        entries = [entry for block in blocks for entry in self._encoder.entries(block)]
        with self._shared.used():
            try:
                sock = self._connection()
                for entry in entries:
                    self._send(sock, entry)
            except OSError as error:
                self._encoder.ordinal = before
                self.close()
                raise SinkDown(f"cannot send to journald at {self._path}: {error}") from error
            except SinkDown:
                self._encoder.ordinal = before
                self.close()
                raise

    def _send(self, sock: socket.socket, entry: bytes) -> None:
        try:
            try:
                sock.send(entry)
            except BlockingIOError:
                send_waiting(sock, lambda: sock.send(entry), _WRITE_SECONDS, f"journald at {self._path}")
        except OSError as error:
            if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                raise
            self._send_as_file(sock, entry)

    def _send_as_file(self, sock: socket.socket, entry: bytes) -> None:
        descriptor = os.memfd_create("journal-entry", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            left = memoryview(entry)
            while left:
                left = left[os.write(descriptor, left) :]
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
            send_waiting(
                sock,
                lambda: socket.send_fds(sock, [b""], [descriptor]),
                _WRITE_SECONDS,
                f"journald at {self._path}",
            )
        finally:
            os.close(descriptor)

    def _connection(self) -> socket.socket:
        sock = self._shared.sock
        if sock is None:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
                sock.setblocking(False)
                sock.connect(self._path)
            except OSError:
                sock.close()
                raise
            self._shared.connected(sock)
        return sock

    def close(self) -> None:
        """Give up the socket at once, also under a thread that waits for it."""
        self._shared.give_up()
