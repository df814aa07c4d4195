"""A shim's control socket: connections that speak JSON lines and turn into streams of bytes.

Every connection starts with JSON lines; ``attach`` and ``exec`` turn it into a stream: frames towards the
client, raw stdin bytes from it. What the words do is the shim's business.
"""

from __future__ import annotations

import json
import logging
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runtime.shim.messages import SHIM_SOCKET, encode_line
from runtime.shim.reactor import READ, WRITE, Reactor

__all__ = ["Connection", "ControlServer"]

log = logging.getLogger(__name__)

_MAX_LINE = 1 << 20


class Connection:
    """One peer. ``on_line`` gets its JSON objects until ``on_data`` is set, which then gets its bytes."""

    def __init__(self, sock: socket.socket, reactor: Reactor, server: ControlServer) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._reactor = reactor
        self._server = server
        self._input = b""
        self._output: deque[bytes] = deque()
        self._reading = True
        self._leaving = False
        self.queued = 0  #: bytes that wait to be sent
        self.progress = time.monotonic()  #: when the peer last took something
        self.open = True
        self.watching = False  #: gets events
        self.on_data: Callable[[bytes], None] | None = None
        self.on_close: Callable[[], None] | None = None
        self.on_drained: Callable[[], None] | None = None  #: everything queued is out
        reactor.watch(sock.fileno(), READ, self._ready)

    @property
    def at_rest(self) -> bool:
        """Whether nothing is under way, so that another process may go on with it."""
        return self.open and not (self._leaving or self._input or self._output or self.on_data)

    def fileno(self) -> int:
        """Its descriptor."""
        return self._sock.fileno()

    def send(self, data: bytes) -> None:
        """Send without waiting; what does not go out is queued."""
        if not self.open:
            return
        if not self._output:
            data = self._try(data)
            if not data:
                return
        self._output.append(data)
        self.queued += len(data)
        self._update()

    def answer(self, message: dict[str, Any], fds: list[int] | None = None) -> None:
        """Send one JSON line, with descriptors on the way if there are any."""
        if fds and self.open and not self._output:
            socket.send_fds(self._sock, [encode_line(message)], fds)
        else:
            self.send(encode_line(message))

    def pause_reading(self, paused: bool) -> None:
        """Stop or go on taking the peer's bytes."""
        if self.open and self._reading == paused:
            self._reading = not paused
            self._update()

    def finish(self) -> None:
        """Close once everything queued is out."""
        self._leaving = True
        if not self._output:
            self.close()

    def close(self) -> None:
        """Close now."""
        if self.open:
            self.open = False
            self._reactor.forget(self._sock.fileno())
            self._sock.close()
            self._server.gone(self)
            if self.on_close is not None:
                self.on_close()

    def _update(self) -> None:
        events = (READ if self._reading else 0) | (WRITE if self._output else 0)
        self._reactor.change(self._sock.fileno(), events)

    def _try(self, data: bytes) -> bytes:
        try:
            sent = self._sock.send(data, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return data
        except OSError:
            self.close()
            return b""
        self.progress = time.monotonic()
        return data[sent:]

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._flush()
        if self.open and events & ~WRITE:
            self._read(gone=bool(events & select.EPOLLHUP))

    def _flush(self) -> None:
        while self._output and self.open:
            data = self._output[0]
            rest = self._try(data)
            self.queued -= len(data) - len(rest)
            if rest:
                self._output[0] = rest
                return
            self._output.popleft()
        if self.open:
            self._update()
            if self._leaving:
                self.close()
            elif self.on_drained is not None:
                self.on_drained()

    def _read(self, gone: bool) -> None:
        """Take what has come; ``gone`` if the peer has closed both ways, and not only its sending side."""
        try:
            data = self._sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if self.on_data is not None:
            if not data:
                self.pause_reading(True)
            self.on_data(data)
            if not data and gone:
                self.close()
            return
        if not data:
            self.close()
            return
        self._input += data
        self._lines()

    def _lines(self) -> None:
        while self.on_data is None and (newline := self._input.find(b"\n")) >= 0:
            line, self._input = self._input[:newline], self._input[newline + 1 :]
            self._server.dispatch(self, line)
        if self.on_data is not None and self._input:
            data, self._input = self._input, b""
            self.on_data(data)
        elif len(self._input) > _MAX_LINE:
            log.warning("a request of more than %d bytes: closing the connection", _MAX_LINE)
            self.close()


class ControlServer:
    """Listens on the shim's socket and hands requests to ``handle(connection, request)``.

    ``handle`` returns the answer, or None if it answers later itself; ValueError, KeyError, OSError become
    an error for the peer.
    """

    def __init__(
        self,
        reactor: Reactor,
        handle: Callable[[Connection, dict[str, Any]], dict[str, Any] | None],
        listener: socket.socket | None = None,
    ) -> None:
        self._reactor = reactor
        self._handle = handle
        self.connections: set[Connection] = set()
        self._listener = _listen() if listener is None else listener
        self._listener.setblocking(False)
        reactor.watch(self._listener.fileno(), READ, self._accept)

    def fileno(self) -> int:
        """The descriptor that is listened on."""
        return self._listener.fileno()

    def add(self, sock: socket.socket) -> Connection:
        """Serve a connected socket."""
        connection = Connection(sock, self._reactor, self)
        self.connections.add(connection)
        return connection

    def gone(self, connection: Connection) -> None:
        """A connection was closed."""
        self.connections.discard(connection)

    def tell(self, event: dict[str, Any]) -> None:
        """Send an event to everybody who watches."""
        for connection in list(self.connections):
            if connection.watching:
                connection.answer(event)

    def close(self) -> None:
        """Take no more connections, and send what is queued as far as the peers take it at once."""
        self._reactor.forget(self._listener.fileno())
        self._listener.close()
        Path(SHIM_SOCKET).unlink(missing_ok=True)

    def dispatch(self, connection: Connection, line: bytes) -> None:
        """Serve one request."""
        number: object = None
        try:
            request = json.loads(line)
            if not isinstance(request, dict):
                raise ValueError("a request has to be a JSON object")
            number = request.get("id")
            answer = self._handle(connection, request)
        except (ValueError, KeyError, TypeError, OSError) as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        if answer is not None:
            connection.answer({"id": number, **answer})

    def _accept(self, _events: int) -> None:
        try:
            sock, _ = self._listener.accept()
        except BlockingIOError:
            return
        self.add(sock)


def _listen() -> socket.socket:
    # One that is there was left by a predecessor: the lock is ours.
    Path(SHIM_SOCKET).unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(SHIM_SOCKET)
    Path(SHIM_SOCKET).chmod(0o600)
    listener.listen(16)
    return listener
