"""GELF over HTTP: stored before it is answered, and every refusal counted; our own sink at the other end, too."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from memory_intake import sources

from collector.inputs import gelf_http
from collector.inputs.gelf import GelfInput, GelfLimits
from collector.inputs.gelf_http import GelfHttpInput
from logdrivers.block import Block, Encoding, Stream
from logdrivers.driver import Info, Rejected, Sink
from logdrivers.gelf import GelfDriver


@contextlib.asynccontextmanager
async def started(
    intake: Any, *, tls: ssl.SSLContext | None = None, **limits: Any
) -> AsyncIterator[tuple[GelfHttpInput, aiohttp.ClientSession, str]]:
    receiver = GelfHttpInput("127.0.0.1", 0, intake, sources, GelfLimits(**limits), tls=tls)
    await receiver.start()
    try:
        async with aiohttp.ClientSession() as session:
            yield receiver, session, f"http://127.0.0.1:{receiver.address[1]}/gelf"
    finally:
        await receiver.stop()
    counters = receiver.counters
    lost = sum(count for cause, count in counters.dropped.items() if cause != "connections")
    assert counters.received == counters.stored + lost


async def status(session: aiohttp.ClientSession, url: str, body: bytes, **headers: str) -> int:
    async with session.post(url, data=body, headers=headers) as response:
        await response.read()
        return response.status


def message(text: str, **more: Any) -> bytes:
    return json.dumps({"version": "1.1", "host": "h", "short_message": text, **more}).encode()


def test_a_request_is_answered_when_its_messages_are_stored(intake: Any) -> None:
    async def run() -> None:
        async with started(intake) as (_, session, url):
            assert await status(session, url, message("one", _container_id="ab" * 32, level=3)) == 202
            assert intake.messages("ab" * 32) == [b"one"]
            assert await status(session, url, message("a") + b"\n" + message("b") + b"\r\n") == 202
            laid_out = json.dumps(json.loads(message("laid out")), indent=2).encode()
            assert await status(session, url, laid_out) == 202
            packed = gzip.compress(message("c"))
            assert await status(session, url, packed, **{"Content-Encoding": "gzip"}) == 202
            assert await status(session, url, packed) == 202  # as Graylog: the bytes say so themselves
        assert intake.messages() == [b"one", b"a", b"b", b"laid out", b"c", b"c"]

    asyncio.run(run())


def test_what_is_no_message_is_refused_and_counted(intake: Any) -> None:
    async def run() -> None:
        async with started(intake, message_bytes=1000) as (receiver, session, url):
            assert await status(session, url, b"hello") == 400
            assert await status(session, url, b"") == 400
            assert await status(session, url, b'{"short_message":"a"}\n{"short":"b"}') == 202  # one is good
            assert await status(session, url, message("x" * 2000)) == 413
            bomb = gzip.compress(message("x" * 100_000))
            assert await status(session, url, bomb, **{"Content-Encoding": "gzip"}) == 413
            assert await status(session, url, b"\x1f\x8bnonsense", **{"Content-Encoding": "gzip"}) == 400
            assert await status(session, url.replace("/gelf", "/other"), message("a")) == 404
            async with session.get(url) as response:
                assert response.status == 405
            assert dict(receiver.counters.dropped) == {
                "malformed": 3,
                "no_message": 1,
                "message_too_large": 2,
            }
        assert intake.messages() == [b"a"]

    asyncio.run(run())


def test_a_store_that_fails_makes_senders_come_again(intake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gelf_http, "_STORE_SECONDS", 0.1)

    async def run() -> None:
        async with started(intake) as (receiver, session, url):
            intake.fail = 1_000_000
            first = await status(session, url, message("a"))
            second = await status(session, url, message("b"))
            assert (first, second) == (503, 503)
            intake.fail = 0
            while receiver.counters.waiting:
                await asyncio.sleep(0.01)
            assert await status(session, url, message("b")) == 202
        assert intake.messages() == [b"a", b"b"]

    asyncio.run(run())


def test_connections_and_unfinished_bytes_are_limited(intake: Any) -> None:
    async def run() -> None:
        async with started(intake, connections=1, pending_bytes=500) as (receiver, session, url):
            assert await status(session, url, message("a")) == 202
            reader, writer = await asyncio.open_connection(*receiver.address)
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            assert receiver.counters.dropped["connections"] == 1
            assert await status(session, url, message("x" * 1000)) == 429

    asyncio.run(run())


@pytest.fixture
def context(tmp_path: Path) -> ssl.SSLContext:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-keyout", key, "-out", certificate, "-days", "30", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(certificate, key)
    return made


def our_sink(address: str, tmp_path: Path, **options: str) -> Sink:
    chosen = {"gelf-address": address} | {f"gelf-{k.replace('_', '-')}": v for k, v in options.items()}
    if address.startswith(("https", "tls")):
        chosen["gelf-tls-ca-cert"] = str(tmp_path / "cert.pem")
    GelfDriver().validate(chosen)
    made = GelfDriver().sink(
        Info("ab" * 32, "/web", "sha256:1", "img", ("sh",), 0, Path("/none"), chosen, hostname="h")
    )
    assert made is not None
    return made


def send(sink: Sink) -> None:
    texts = [b"line %d" % n for n in range(3000)]
    data = b"\n".join([*texts, b"", b'caf\xc3\xa9 <"\\>', b"x" * 100_000]) + b"\n"
    with pytest.raises(Rejected) as caught:
        sink.send([Block(data, Encoding.LINES, Stream.STDOUT, 10**18, 10**18, 3003)])
    assert caught.value.causes == {"empty_line": 1}
    sink.close()


@pytest.mark.parametrize(
    ("scheme", "options"),
    [
        ("http", {}), ("http", {"http_compression": "gzip"}), ("http", {"http_bulk": "true"}),
        ("https", {"http_bulk": "true", "http_compression": "gzip"}), ("https", {}),
    ],
    ids=str,
)  # fmt: skip
def test_our_sink_and_our_input_understand_each_other(
    intake: Any, tmp_path: Path, context: ssl.SSLContext, scheme: str, options: dict[str, str]
) -> None:
    async def run() -> None:
        async with started(intake, tls=context if scheme == "https" else None) as (receiver, _, url):
            sink = our_sink(url.replace("http:", f"{scheme}:"), tmp_path, **options)
            await asyncio.to_thread(send, sink)
            assert receiver.counters.dropped.total() == 0

    asyncio.run(run())
    found = intake.messages("ab" * 32)
    assert found == [*(b"line %d" % n for n in range(3000)), b'caf\xc3\xa9 <"\\>', b"x" * 100_000]


def test_the_tcp_input_speaks_tls_where_it_has_a_certificate(
    intake: Any, tmp_path: Path, context: ssl.SSLContext
) -> None:
    async def run() -> None:
        receiver = GelfInput("127.0.0.1", 0, intake, sources, tls=context)
        await receiver.start()
        sink = our_sink(f"tls://127.0.0.1:{receiver.address[1]}", tmp_path)
        await asyncio.to_thread(send, sink)
        await receiver.stop()
        assert receiver.counters.dropped.total() == 0

    asyncio.run(run())
    assert len(intake.messages("ab" * 32)) == 3002
