"""The API itself: versions, headers, errors, on a raw connection."""

from __future__ import annotations

import http.client
import json
import socket
import stat

import pytest
from engine_process import EngineProcess


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("engine")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


def ask(
    engine: EngineProcess, method: str, path: str, body: bytes | None = None
) -> tuple[int, dict[str, str], bytes]:
    connection = _Connection(str(engine.socket))
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", ["/_ping", "/v1.24/_ping", "/v1.50/_ping"])
def test_ping_tells_the_version(engine: EngineProcess, method: str, path: str) -> None:
    status, headers, body = ask(engine, method, path)
    assert (status, body) == (200, b"OK" if method == "GET" else b"")
    assert headers["api-version"] == "1.50"
    assert headers["ostype"] == "linux"
    assert headers["docker-experimental"] == "false"


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/nosuch", 404, "page not found"),
        ("GET", "/v1.50/nosuch", 404, "page not found"),
        ("PATCH", "/containers/json", 404, "page not found"),
        (
            "GET",
            "/v1.51/info",
            400,
            "client version 1.51 is too new. Maximum supported API version is 1.50",
        ),
        (
            "GET",
            "/v1.23/info",
            400,
            "client version 1.23 is too old. Minimum supported API version is 1.24, "
            "please upgrade your client to a newer version",
        ),
        ("GET", "/containers/nosuch/json", 404, "No such container: nosuch"),
        ("GET", "/images/nosuch/json", 404, "No such image: nosuch:latest"),
        ("GET", "/networks/nosuch", 404, "network nosuch not found"),
        ("GET", "/volumes/nosuch", 404, "get nosuch: no such volume"),
        ("GET", "/exec/nosuch/json", 404, "No such exec instance: nosuch"),
        (
            "GET",
            "/containers/json?limit=x",
            400,
            "invalid value 'x' for parameter limit: expected an integer",
        ),
        (
            "GET",
            "/containers/json?filters=%7B%22nosuch%22%3A%5B%22a%22%5D%7D",
            400,
            "invalid filter 'nosuch'",
        ),
    ],
)
def test_refusals(engine: EngineProcess, method: str, path: str, status: int, message: str) -> None:
    got, headers, body = ask(engine, method, path)
    assert (got, json.loads(body)) == (status, {"message": message})
    assert headers["content-type"].startswith("application/json")


def test_documented_operations_that_are_not_served_say_so(engine: EngineProcess) -> None:
    status, _, body = ask(engine, "POST", "/v1.50/build")
    assert status == 501
    assert "not served by this engine" in json.loads(body)["message"]


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (b"{", "invalid JSON"),
        (b"[]", "expected an object"),
        (b"{}", "Config cannot be empty"),
        (b'{"Image": 5}', "Image: expected a string, got the number 5"),
        (
            b'{"Image": "bb:1", "HostConfig": {"Memory": "64m"}}',
            "HostConfig.Memory: expected a 64-bit integer",
        ),
        (b'{"Image": "nosuch"}', "No such image: nosuch:latest"),
    ],
)
def test_bad_create_bodies_are_refused_by_field(engine: EngineProcess, body: bytes, part: str) -> None:
    status, _, answer = ask(engine, "POST", "/containers/create", body)
    assert status in (400, 404)
    assert part in json.loads(answer)["message"]


def test_the_socket_is_for_its_group_only(engine: EngineProcess) -> None:
    assert stat.S_IMODE(engine.socket.stat().st_mode) == 0o660
