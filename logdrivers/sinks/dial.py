"""Connections to sinks: names resolved anew, addresses tried in turn, every wait with a deadline.

A name whose address changes is what keeps a log driver shipping into the void, so a sink asks ``moved`` now
and then. What is sent, and what an answer means, is the sink's business.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import select
import socket
import struct
import termios
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from logdrivers.driver import SinkDown

__all__ = ["Dialer", "Resolver", "break_off", "dial_unix", "peer_closed", "readable", "writable", "write"]

_PIECE = 256 << 10

_Address = tuple[socket.AddressFamily, Any]
#: Looks a name up as ``socket.getaddrinfo`` does, by its first two parameters and ``type`` and ``flags``.
Resolver = Callable[..., Iterable[tuple[Any, ...]]]


class Dialer:
    """Connects to ``host:port``, remembering what the name resolved to and when."""

    def __init__(
        self,
        host: str,
        port: int,
        kind: socket.SocketKind,
        timeout_seconds: float,
        max_age_seconds: float = 60.0,
        resolver: Resolver | None = None,
    ) -> None:
        """``resolver`` is asked instead of the system's."""
        self._host, self._port, self._kind = host, port, kind
        self._timeout = timeout_seconds
        self._max_age = max_age_seconds
        self._resolved_seconds = 0.0
        self._resolver = resolver

    def connect(self) -> socket.socket:
        """A connected socket with the timeout set. Raises SinkDown naming the address and why."""
        addresses = self._resolve()
        deadline = time.monotonic() + self._timeout
        why: Exception | str = "the name has no address"
        for number, (family, address) in enumerate(addresses):
            # One address that does not answer leaves the others their share of the time.
            left = (deadline - time.monotonic()) / (len(addresses) - number)
            sock = socket.socket(family, self._kind)
            try:
                sock.settimeout(max(0.001, left))
                sock.connect(address)
                sock.settimeout(self._timeout)
            except OSError as error:
                sock.close()
                why = error
                continue
            return sock
        raise SinkDown(f"cannot connect to {self}: {why}")

    def moved(self, sock: socket.socket) -> bool:
        """Whether the name, looked up again once it is old enough, no longer has the socket's peer.

        A lookup that fails leaves the connection alone.
        """
        if time.monotonic() - self._resolved_seconds < self._max_age:
            return False
        try:
            peer = sock.getpeername()
            return all(address[:2] != peer[:2] for _, address in self._resolve())
        except SinkDown:
            self._resolved_seconds = time.monotonic()
            return False
        except OSError:  # no peer any more
            return True

    def __str__(self) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{'udp' if self._kind is socket.SOCK_DGRAM else 'tcp'}://{host}:{self._port}"

    def _resolve(self) -> list[_Address]:
        try:
            found = self._lookup(socket.AI_NUMERICHOST)
        except socket.gaierror:
            found = self._lookup_name()
        self._resolved_seconds = time.monotonic()
        return found

    def _lookup(self, flags: int = 0) -> list[_Address]:
        # As in Go, an address without a host is this host.
        host = self._host or "localhost"
        resolve = self._resolver or socket.getaddrinfo
        found = resolve(host, self._port, type=self._kind, flags=flags)
        return [(family, address) for family, _, _, _, address in found]

    def _lookup_name(self) -> list[_Address]:
        """Look the name up in a thread of its own: the resolver knows no deadline of ours."""
        found: list[_Address] = []
        failed: list[Exception] = []

        def look_up() -> None:
            try:
                found.extend(self._lookup())
            except (OSError, UnicodeError) as error:  # gaierror is an OSError
                failed.append(error)

        thread = threading.Thread(target=look_up, name=f"resolve {self._host}", daemon=True)
        thread.start()
        thread.join(self._timeout)
        if failed:
            raise SinkDown(f"cannot resolve {self._host}: {failed[0]}")
        if thread.is_alive():
            raise SinkDown(f"cannot resolve {self._host}: no answer within {self._timeout:g} s")
        return found


def dial_unix(path: str, timeout_seconds: float) -> socket.socket:
    """A connected stream socket on ``path``. Raises SinkDown naming it and why."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout_seconds)
        sock.connect(path)
    except OSError as error:
        sock.close()
        raise SinkDown(f"cannot connect to unix://{path}: {error}") from error
    return sock


def break_off(sock: socket.socket) -> None:
    """End both directions, so that a thread that waits for the socket learns it: from ``close`` it does not."""
    with contextlib.suppress(OSError):  # not connected any more
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def peer_closed(sock: socket.socket) -> bool:
    """Whether the peer has closed its side or reset the connection. Never blocks; takes no data."""
    return bool(_events(sock) & (select.POLLRDHUP | select.POLLHUP | select.POLLERR | select.POLLNVAL))


def readable(sock: socket.socket, seconds: float) -> bool:
    """Whether there is something to read, an end or an error included, within so many seconds."""
    return bool(_events(sock, select.POLLIN, seconds))


def writable(sock: socket.socket, seconds: float) -> bool:
    """Whether the socket takes something, or says why it will not, within so many seconds."""
    return bool(_events(sock, select.POLLOUT, seconds))


def _events(sock: socket.socket, wanted: int = select.POLLRDHUP, seconds: float = 0.0) -> int:
    _check_open(sock)
    poll = select.poll()  # select itself refuses descriptors above 1023, which an engine may well have
    poll.register(sock, wanted)
    return next((events for _, events in poll.poll(seconds * 1000)), 0)


def write(sock: socket.socket, data: bytes | Iterable[bytes], timeout_seconds: float) -> None:
    """Write ``data`` and wait until the peer's host has taken it, which a returned ``send`` does not say.

    Several pieces may be made while those before them are on their way. The deadline is for progress: it
    starts again whenever the peer takes bytes, so a slow link is no dead one. Raises SinkDown (no progress in
    time, the peer closed) or OSError; ``data`` is then to be sent again.
    """
    if sock.gettimeout() != timeout_seconds:  # costs a system call
        sock.settimeout(timeout_seconds)
    for piece in (data,) if isinstance(data, bytes) else data:
        view = memoryview(piece)
        while view:
            view = view[sock.send(view[:_PIECE]) :]
    _await_delivery(sock, timeout_seconds)
    # A peer that closes with bytes it has not read resets; one that closes having read them all does not.
    if _events(sock) & select.POLLERR or _unsent_bytes(sock):
        raise SinkDown("the peer closed the connection during a write")


def _await_delivery(sock: socket.socket, timeout_seconds: float) -> None:
    deadline = time.monotonic() + timeout_seconds
    pause = 0.0005
    before = 0
    while (unsent := _unsent_bytes(sock)) and not peer_closed(sock):
        if unsent != before:
            before, deadline = unsent, time.monotonic() + timeout_seconds
        elif time.monotonic() > deadline:
            raise SinkDown(f"{unsent} bytes not taken within {timeout_seconds:g} s")
        time.sleep(pause)
        pause = min(pause * 2, 0.05)


def _unsent_bytes(sock: socket.socket) -> int:
    """Bytes the peer has not acknowledged (``SIOCOUTQ``, which is ``TIOCOUTQ``)."""
    _check_open(sock)
    return int(struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))[0])


def _check_open(sock: socket.socket) -> None:
    if sock.fileno() < 0:
        raise OSError(errno.EBADF, "the connection was given up meanwhile")
