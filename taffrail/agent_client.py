"""A small HTTP client for unix sockets: what the command line asks the agent and the engine with."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

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
        self._path = path
        self._timeout = timeout

    def request(
        self, method: str, path: str, query: dict[str, str] | None = None, body: object = None
    ) -> http.client.HTTPResponse:
        """The answer, its body not yet read.

        Raises OSError if nobody answers there, CommandError with the server's own words for a status of 400 or above.
        """
        connection = _UnixConnection(self._path, self._timeout)
        target = f"{path}?{urlencode(query)}" if query else path
        data = None if body is None else body if isinstance(body, bytes) else orjson.dumps(body)
        kind = "application/x-tar" if isinstance(body, bytes) else "application/json"
        headers = {"Connection": "close"}  # one request each: the answer's end closes the socket
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
