"""A small HTTP client for unix sockets and agents on other hosts: what the command line asks with."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import orjson

from taffrail.errors import CommandError

__all__ = ["AgentClient"]


class _UnixConnection(http.client.HTTPConnection):
    """http.client over a unix socket."""

    def __init__(self, path: Path, timeout: float | None) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(self.timeout)
            sock.connect(str(self._path))
        except OSError:
            sock.close()
            raise
        self.sock = sock


class AgentClient:
    """Requests over one unix socket, a connection each. ``timeout`` is in seconds, None waits for ever."""

    def __init__(self, path: Path, timeout: float | None = 30.0) -> None:
        self._prefix = ""
        self._token = ""
        self._connection: Callable[[], http.client.HTTPConnection] = lambda: _UnixConnection(path, timeout)

    @classmethod
    def at(
        cls, url: str, timeout: float | None = 30.0, token: str = "", tls: ssl.SSLContext | None = None
    ) -> AgentClient:
        """A client of an agent's TCP address, ``http://host:port`` or ``https://host:port``.

        Raises CommandError naming the URL if it is neither.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError:  # a port that is no number
            host = ""
        if not host or parts.scheme not in ("http", "https") or parts.query or parts.username:
            raise CommandError(f"{url!r}: expected http://HOST:PORT or https://HOST:PORT")
        client = cls(Path("/"), timeout)
        client._prefix = parts.path.rstrip("/")
        client._token = token
        if parts.scheme == "https":
            client._connection = lambda: http.client.HTTPSConnection(host, port, timeout=timeout, context=tls)
        else:
            client._connection = lambda: http.client.HTTPConnection(host, port, timeout=timeout)
        return client

    def request(
        self, method: str, path: str, query: dict[str, str] | None = None, body: object = None
    ) -> http.client.HTTPResponse:
        """The answer, its body not yet read.

        Raises OSError if nobody answers there, CommandError with the server's own words for a status of 400 or above.
        """
        connection = self._connection()
        target = self._prefix + (f"{path}?{urlencode(query)}" if query else path)
        data = None if body is None else body if isinstance(body, bytes) else orjson.dumps(body)
        kind = "application/x-tar" if isinstance(body, bytes) else "application/json"
        headers = {"Connection": "close"}  # one request each: the answer's end closes the socket
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        if data is not None:
            headers["Content-Type"] = kind
        connection.request(method, target, body=data, headers=headers)
        answer = connection.getresponse()
        if answer.status >= 400:
            text = answer.read()
            try:
                message = orjson.loads(text)["message"]
            except (orjson.JSONDecodeError, KeyError, TypeError):
                message = text.decode(errors="replace") or answer.reason
            raise CommandError(message)
        return answer

    def get(self, path: str, query: dict[str, str] | None = None) -> bytes:
        """The whole body of a GET."""
        return self.request("GET", path, query).read()

    def json(self, path: str, query: dict[str, str] | None = None) -> object:
        """A GET's body, parsed."""
        return orjson.loads(self.get(path, query))

    def lines(self, path: str, query: dict[str, str] | None = None) -> Iterator[bytes]:
        """The lines of a body that streams (newline-delimited JSON)."""
        answer = self.request("GET", path, query)
        while line := answer.readline():
            yield line
