"""The socket of a sink: used by the thread that sends, given up by any thread.

A descriptor that is closed under a thread at work may be another file's number by the time that thread uses it,
and OpenSSL's connections are not made for two threads: so giving up ends the connection, which wakes whoever
waits for it, and the thread that uses it closes it.
"""

from __future__ import annotations

import errno
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from logdrivers.sinks.dial import break_off
from logdrivers.sinks.tls import take_in

__all__ = ["SharedSocket"]


class SharedSocket:
    """At most one connection, and who uses it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sock: socket.socket | None = None
        self._user: int | None = None  # the thread that is at it
        self._given_up: list[socket.socket] = []  # to be closed by the user
        self._spare: socket.socket | None = None  # another descriptor of the connection being made
        self._refused = False  # given up while it was being made

    @property
    def sock(self) -> socket.socket | None:
        """The connection, for the thread that uses it."""
        return self._sock

    @contextmanager
    def used(self) -> Iterator[None]:
        """The calling thread uses the connection meanwhile; one thread at a time."""
        with self._lock:
            self._user, self._refused = threading.get_ident(), False
        try:
            yield
        finally:
            with self._lock:
                self._user = None
                given_up, self._given_up = self._given_up, []
            for sock in given_up:
                _close(sock)

    def connecting(self, sock: socket.socket) -> None:
        """A connection is there on which more has to be said before it is kept; ``give_up`` ends it."""
        with self._lock:
            self._drop_spare()
            self._spare = sock.dup()  # TLS takes the socket itself away
            if self._refused:
                _refuse(self._spare)

    def connected(self, sock: socket.socket | None) -> None:
        """Keep a connection, or none that came about. Raises OSError when it was given up meanwhile."""
        with self._lock:
            self._drop_spare()
            if not self._refused:
                self._sock = sock
                return
        if sock is not None:
            _close(sock)
            raise OSError(errno.ECANCELED, "the connection was given up meanwhile")

    def give_up(self) -> None:
        """End the connection at once, from any thread."""
        with self._lock:
            sock, self._sock = self._sock, None
            elsewhere = self._user not in (None, threading.get_ident())
            if elsewhere and sock is None:
                self._refused = True
            if sock is not None:
                break_off(sock)
            if self._spare is not None:
                _refuse(self._spare)
            if elsewhere and sock is not None:
                self._given_up.append(sock)
                sock = None
        if sock is not None:
            _close(sock)

    def _drop_spare(self) -> None:
        if self._spare is not None:
            self._spare.close()
            self._spare = None


def _refuse(sock: socket.socket) -> None:
    """Nothing more comes in: a handshake fails. It stays connected until then, for OpenSSL to make sense of it."""
    with suppress(OSError):  # the server was faster
        sock.shutdown(socket.SHUT_RD)


def _close(sock: socket.socket) -> None:
    break_off(sock)
    if isinstance(sock, ssl.SSLSocket):
        take_in(sock)  # session tickets, at least
    sock.close()
