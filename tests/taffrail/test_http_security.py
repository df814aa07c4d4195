"""Who gets in: over TCP with a token, over the unix socket without, and TLS where it is configured."""

from __future__ import annotations

import asyncio
import base64
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from taffrail.config import HttpConfig
from taffrail.errors import CommandError
from taffrail.http_security import http_tls, refuse_if_open, token_check
from taffrail.tokens import read_tokens


@pytest.fixture
def short() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(dir="/tmp"))
    yield directory
    shutil.rmtree(directory)


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def ask(short: Path, authorization: str | None, *, unix: bool = False) -> tuple[int, Any, Any]:
    async def go() -> tuple[int, Any, Any]:
        async def hello(_request: web.Request) -> web.Response:
            return web.json_response("hello")

        app = web.Application(middlewares=[token_check(("s3cret", "næste"))])
        app.router.add_get("/metrics", hello)
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            port = runner.addresses[0][1]
            await web.UnixSite(runner, str(short / "s")).start()
            connector = aiohttp.UnixConnector(str(short / "s")) if unix else None
            headers = {} if authorization is None else {"Authorization": authorization}
            async with aiohttp.ClientSession(connector=connector) as client:
                async with client.get(f"http://127.0.0.1:{port}/metrics", headers=headers) as answer:
                    return answer.status, await answer.json(), answer.headers
        finally:
            await runner.cleanup()

    return asyncio.run(go())


@pytest.mark.parametrize(
    "header",
    ["Bearer s3cret", "bearer  s3cret", "Bearer næste", basic("anyone", "s3cret"), basic("", "næste")],
)
def test_each_token_lets_in(short: Path, header: str) -> None:
    assert ask(short, header)[:2] == (200, "hello")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (None, "no token shown"),
        ("Digest x", "no token shown"),
        ("Bearer s3cre", "not one of"),
        ("Bearer s3cret2", "not one of"),
        ("Bearer ", "not one of"),
        (basic("s3cret", "x"), "not one of"),
        ("Basic !!!", "not one of"),
    ],
)
def test_without_one_the_answer_is_401_and_says_what_is_expected(
    short: Path, header: str | None, message: str
) -> None:
    status, body, headers = ask(short, header)
    assert status == 401
    assert message in body["message"]
    assert "Authorization: Bearer TOKEN" in body["message"]
    assert "s3cret" not in body["message"]
    assert headers["WWW-Authenticate"].startswith('Bearer realm="taffrail"')


def test_the_unix_socket_asks_for_none(short: Path) -> None:
    assert ask(short, None, unix=True)[0] == 200


def test_tokens_come_a_line_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text("one\n\n  two \n")
    assert read_tokens(str(file), "[http] token_file") == ("one", "two")
    file.write_text("\n \n")
    with pytest.raises(CommandError, match=r"\[http\] token_file .*tokens: expected a token on a line"):
        read_tokens(str(file), "[http] token_file")
    with pytest.raises(CommandError, match="No such file"):
        read_tokens(str(tmp_path / "none"), "[http] token_file")


def test_tls_needs_files_that_can_be_used(tmp_path: Path) -> None:
    assert http_tls(HttpConfig()) is None
    with pytest.raises(CommandError, match="tls_key needs tls_cert"):
        http_tls(HttpConfig(tls_key="x"))
    with pytest.raises(CommandError, match="No such file"):
        http_tls(HttpConfig(tls_cert=str(tmp_path / "none")))
    command = "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=x -keyout k -out c"
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    assert http_tls(HttpConfig(tls_cert=str(tmp_path / "c"), tls_key=str(tmp_path / "k"))) is not None


@pytest.mark.parametrize(
    ("config", "missing"),
    [
        (HttpConfig(), ""),
        (HttpConfig(address="[::1]:1"), ""),
        (HttpConfig(address="localhost:1"), ""),
        (HttpConfig(address="0.0.0.0:1"), "http.token_file and http.tls_cert"),
        (HttpConfig(address="10.0.0.1:1", token_file="x"), "http.tls_cert"),
        (HttpConfig(address="10.0.0.1:1", token_file="x", tls_cert="y"), ""),
    ],
)
def test_an_address_open_to_others_is_refused_unless_allowed(
    config: HttpConfig, missing: str, caplog: pytest.LogCaptureFixture
) -> None:
    if missing:
        with pytest.raises(CommandError, match=f"without {missing}: set them, or http.allow_insecure=true"):
            refuse_if_open(config)
    else:
        refuse_if_open(config)
    refuse_if_open(replace(config, allow_insecure=True))
    assert (missing in caplog.text) if missing else not caplog.text
