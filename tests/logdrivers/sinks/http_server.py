"""An HTTP server for GELF that answers, closes and hangs as a test tells it to; tests import it by name."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import ssl
import threading
from collections.abc import Callable
from typing import NamedTuple


class Request(NamedTuple):
    """A request with messages in GELF."""

    connection: int  #: number of the connection it came on
    line: str
    headers: dict[str, str]
    body: bytes

    @property
    def texts(self) -> list[str]:
        """The messages' texts, in their order."""
        plain = gzip.decompress(self.body) if self.headers.get("content-encoding") == "gzip" else self.body
        return [json.loads(line)["short_message"] for line in plain.split(b"\n")]


def answer(status: int, more: str = "", body: bytes = b"") -> bytes:
    """An answer; ``more`` is further headers, each with its end of line."""
    return f"HTTP/1.1 {status} Because\r\n{more}Content-Length: {len(body)}\r\n\r\n".encode() + body


CLOSE = "Connection: close\r\n"
#: What a server says to a request: bytes; None to say nothing and close. An answer with CLOSE closes behind it.
Answering = Callable[[Request], bytes | None]


class Server:
    """An HTTP server that says what a test tells it to; requests sent ahead are answered in their order."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.answering: Answering = lambda request: answer(202)
        self.requests: list[Request] = []
        self.ahead = 0  #: the most requests that had come when the first of them was answered
        self.connections = 0
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            try:
                sock = self._context.wrap_socket(sock, server_side=True) if self._context else sock
            except OSError:
                sock.close()
                continue
            self.connections += 1
            self._open.append(sock)
            threading.Thread(target=self._serve, args=(sock, self.connections), daemon=True).start()

    def _serve(self, sock: socket.socket, number: int) -> None:
        buffer = b""
        try:
            while data := sock.recv(1 << 20):
                buffer += data
                requests, buffer = cut(buffer, number)
                self.ahead = max(self.ahead, len(requests))
                for request in requests:
                    self.requests.append(request)
                    said = self.answering(request)
                    if said is not None:
                        sock.sendall(said)
                    if said is None or CLOSE.encode() in said:
                        hang_up(sock)
                        return
        except OSError:
            pass
        finally:
            sock.close()

    def drop_connections(self) -> None:
        for sock in self._open:
            with contextlib.suppress(OSError):  # closed by itself
                socket.socket.shutdown(sock, socket.SHUT_RDWR)  # its thread closes it
        self._open.clear()

    @property
    def texts(self) -> list[str]:
        return [text for request in self.requests for text in request.texts]

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes its thread
        self._listener.close()
        self.drop_connections()


def hang_up(sock: socket.socket) -> None:
    """Close without a reset that would take the answers away."""
    sock.shutdown(socket.SHUT_WR)
    sock.settimeout(60)
    while sock.recv(65536):
        pass


def cut(buffer: bytes, number: int) -> tuple[list[Request], bytes]:
    """The whole requests at the start of what came on a connection, and the rest."""
    found: list[Request] = []
    while b"\r\n\r\n" in buffer:
        head, _, rest = buffer.partition(b"\r\n\r\n")
        line, *fields = head.decode().split("\r\n")
        headers = {name.lower(): value for name, value in (field.split(": ", 1) for field in fields)}
        length = int(headers["content-length"])
        if len(rest) < length:
            break
        found.append(Request(number, line, headers, rest[:length]))
        buffer = rest[length:]
    return found, buffer
