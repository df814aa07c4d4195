"""The Forward input with a shared key, users and TLS: our driver, npm's client and bad guests."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from memory_intake import sources
from stream_client import until

from collector.inputs import forward_connection
from collector.inputs.forward import ForwardInput
from logdrivers.block import Block, Encoding, Stream
from logdrivers.codecs import json_file
from logdrivers.codecs.forward_handshake import Security
from logdrivers.driver import Info, Sink, SinkDown
from logdrivers.fluentd import FluentdDriver

SECONDS = 1_795_203_851
KEY = "the shared key"
OPEN = Security("there", KEY)
CLOSED = Security("there", KEY, {"web": "pass word"})
_MS = 60_000  # what npm's client waits for at most: three seconds are too few on a busy host
USER = {"shared_key": KEY, "username": "web", "password": "pass word"}


@contextlib.asynccontextmanager
async def started(intake: Any, **more: Any) -> AsyncIterator[ForwardInput]:
    receiver = ForwardInput("127.0.0.1", 0, intake, sources, **more)
    await receiver.start()
    try:
        yield receiver
    finally:
        await receiver.stop()


def settled(receiver: ForwardInput) -> bool:
    counters = receiver.counters
    return counters.received == counters.stored + counters.duplicates + sum(counters.dropped.values())


def sink(address: str, **options: str) -> Sink:
    given = {"fluentd-address": address, **{"fluentd-" + k.replace("_", "-"): v for k, v in options.items()}}
    info = Info(
        "0123456789abcdef" * 4, "/web", "sha256:" + "fe" * 32, "shop/web", ("sh",), 0, Path("/nonexistent"), given,
        hostname="here",
    )  # fmt: skip
    FluentdDriver().validate(given)
    made = FluentdDriver().sink(info)
    assert made is not None
    return made


def block(*texts: bytes) -> Block:
    data = b"".join(text + b"\n" for text in texts)
    return Block(data, Encoding.LINES, Stream.STDERR, SECONDS * 10**9, SECONDS * 10**9, len(texts))


def at(receiver: ForwardInput) -> str:
    host, port = receiver.address
    return f"{host}:{port}"


# --- our driver ---


@pytest.mark.parametrize("security", [None, OPEN, CLOSED], ids=["open", "key", "user"])
@pytest.mark.parametrize("ack", ["false", "true"])
@pytest.mark.parametrize("mode", ["message", "packed", "compressed"])
def test_our_driver_is_let_in_in_every_mode(
    intake: Any, mode: str, ack: str, security: Security | None
) -> None:
    async def run() -> None:
        async with started(intake, security=security) as receiver:
            out = sink(at(receiver), message_mode=mode, request_ack=ack, **(USER if security else {}))
            for _ in range(2):
                await asyncio.to_thread(out.send, [block(b"a", b"b"), block(b"c")])
            await until(lambda: receiver.counters.stored == 6)
            out.close()
            await until(lambda: not receiver.counters.connections)
            assert settled(receiver)
            assert +receiver.counters.dropped == {}

    asyncio.run(run())
    assert intake.messages() == [b"a", b"b", b"c"] * 2


@pytest.mark.parametrize(
    ("security", "options", "cause", "reason"),
    [
        (OPEN, {"shared_key": "wrong"}, "shared_key", "it refused us: shared_key mismatch"),
        (CLOSED, {"shared_key": KEY}, "user", "it refused us: username/password mismatch"),
        (CLOSED, {**USER, "username": "nobody"}, "user", "it refused us: username/password mismatch"),
        (CLOSED, {**USER, "password": "wrong"}, "user", "it refused us: username/password mismatch"),
        (OPEN, {"shared_key": KEY, "self_hostname": "there"}, "hostname", "it refused us: same hostname"),
    ],
)
def test_a_refused_driver_is_told_why_and_counted(
    intake: Any, security: Security, options: dict[str, str], cause: str, reason: str
) -> None:
    async def run() -> None:
        async with started(intake, security=security) as receiver:
            out = sink(at(receiver), **options)
            with pytest.raises(SinkDown, match=reason):
                await asyncio.to_thread(out.send, [block(b"a")])
            await until(lambda: not receiver.counters.connections)
            assert receiver.counters.dropped == {cause: 1}
            assert settled(receiver)

    asyncio.run(run())
    assert intake.blocks == []


# --- npm's client ---


@pytest.mark.parametrize("security", [None, OPEN, CLOSED], ids=["open", "key", "user"])
@pytest.mark.parametrize("ack", [False, True], ids=["unanswered", "acknowledged"])
@pytest.mark.parametrize("mode", ["Message", "Forward", "PackedForward", "CompressedPackedForward"])
def test_npms_client_is_understood_in_every_mode(
    intake: Any, fluent_logger: Any, mode: str, ack: bool, security: Security | None
) -> None:
    async def run() -> None:
        async with started(intake, security=security) as receiver:
            host, port = receiver.address
            options: dict[str, Any] = {
                "eventMode": mode,
                "socket": {"host": host, "port": port, "timeout": _MS},
            }
            if ack:
                options["ack"] = {"ackTimeout": _MS}
            if security:
                options["security"] = {
                    "clientHostname": "client", "sharedKey": KEY, "username": "web", "password": "pass word",
                }  # fmt: skip
            events = [
                ("a", {"log": "first é", "n": 1}, [SECONDS, 250_000_000]),
                ("a", {"message": "second"}, SECONDS * 1000),
                ("b", {"user": "x"}, SECONDS * 1000),
            ]
            assert await asyncio.to_thread(fluent_logger.send, options, events) == "sent"
            await until(lambda: receiver.counters.stored == 3)
            assert settled(receiver)

    asyncio.run(run())
    records = [record for _, part in intake.blocks for record in json_file.decode(part.data)]
    found = {(r.log.decode(), r.time_ns, tuple(r.attrs.items())) for r in records}
    assert found == {
        ("first é\n", SECONDS * 10**9 + 250_000_000, (("n", "1"), ("tag", "app.a"))),
        ("second\n", SECONDS * 10**9, (("tag", "app.a"),)),
        ('{"user":"x"}\n', SECONDS * 10**9, (("tag", "app.b"),)),
    }


@pytest.mark.parametrize(
    ("known", "reason"),
    [
        ({"sharedKey": "wrong"}, "shared_key mismatch"),
        ({"sharedKey": KEY, "username": "web", "password": "no"}, "username/password mismatch"),
    ],
)
def test_npms_client_is_told_why_it_is_refused(
    intake: Any, fluent_logger: Any, known: dict[str, str], reason: str
) -> None:
    async def run() -> None:
        async with started(intake, security=CLOSED) as receiver:
            host, port = receiver.address
            options = {
                "socket": {"host": host, "port": port, "timeout": _MS},
                "security": {"clientHostname": "c", **known},
            }
            told = await asyncio.to_thread(fluent_logger.send, options, [("a", {"log": "x"}, SECONDS)])
            assert reason in told
            assert settled(receiver)

    asyncio.run(run())
    assert intake.blocks == []


# --- guests that do not keep to the protocol ---


def ping(nonce: bytes, key: str = KEY) -> bytes:
    digest = hashlib.sha512(b"salt" + b"guest" + nonce + key.encode()).hexdigest()
    return msgpack.packb(["PING", "guest", "salt", digest, "", ""])


MESSAGE = msgpack.packb(["t", SECONDS, {"log": "x"}])


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (MESSAGE, "handshake"),
        (msgpack.packb(["PING", "h", "s", "d", ""]), "handshake"),
        (msgpack.packb(["PONG", True, "", "h", "d"]), "handshake"),
        (msgpack.packb(["PING", 1, None, [], {}, b"\xff"]), "shared_key"),
        (msgpack.packb(["PING", "x" * 20_000, "s", "d", "u", "p"])[:18_000], "handshake"),
        (b"GET / HTTP/1.1\r\n\r\n", "malformed"),
        (ping(b"a nonce of another connection"), "shared_key"),
    ],
)
def test_who_does_not_begin_with_a_ping_is_hung_up_on(intake: Any, data: bytes, cause: str) -> None:
    async def run() -> None:
        async with started(intake, security=OPEN) as receiver:
            reader, writer = await asyncio.open_connection(*receiver.address)
            writer.write(data)
            async with asyncio.timeout(120):
                with contextlib.suppress(ConnectionError):
                    await reader.read()
            writer.close()
            assert receiver.counters.dropped == {cause: 1}
            assert settled(receiver)

    asyncio.run(run())
    assert intake.blocks == []


def test_messages_behind_a_ping_are_taken_and_a_second_ping_is_not(intake: Any) -> None:
    async def run() -> None:
        async with started(intake, security=OPEN) as receiver:
            reader, writer = await asyncio.open_connection(*receiver.address)
            unpacker = msgpack.Unpacker(raw=True)
            async with asyncio.timeout(120):
                unpacker.feed(await reader.read(4096))
                (helo,) = unpacker
                assert helo[0] == b"HELO"
                assert helo[1][b"keepalive"] is True
                nonce = helo[1][b"nonce"]
                writer.write(ping(nonce) + MESSAGE)
                unpacker.feed(await reader.read(4096))
                (pong,) = unpacker
                proof = hashlib.sha512(b"salt" + b"there" + nonce + KEY.encode()).hexdigest()
                assert pong == [b"PONG", True, b"", b"there", proof.encode()]
                await until(lambda: receiver.counters.stored == 1)
                writer.write(ping(nonce))
                assert await reader.read() == b""
            writer.close()
            assert receiver.counters.dropped == {"handshake": 1}

    asyncio.run(run())
    assert intake.messages() == [b"x"]


def test_a_sender_that_says_nothing_is_hung_up_on(intake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward_connection, "HANDSHAKE_SECONDS", 0.05)

    async def run() -> None:
        async with started(intake, security=OPEN) as receiver:
            reader, writer = await asyncio.open_connection(*receiver.address)
            async with asyncio.timeout(120):
                await reader.read()
            writer.close()
            assert receiver.counters.dropped == {"handshake": 1}

    asyncio.run(run())


# --- TLS ---


def context(localhost_certificate: Path) -> ssl.SSLContext:
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    made.load_cert_chain(localhost_certificate / "cert", localhost_certificate / "key")
    return made


@pytest.mark.parametrize("security", [None, CLOSED], ids=["open", "user"])
@pytest.mark.parametrize("ack", ["false", "true"])
def test_over_tls(intake: Any, localhost_certificate: Path, security: Security | None, ack: str) -> None:
    async def run() -> None:
        async with started(intake, security=security, tls=context(localhost_certificate)) as receiver:
            out = sink(
                f"tls://localhost:{receiver.address[1]}", tls_ca_cert=str(localhost_certificate / "cert"),
                request_ack=ack, **(USER if security else {}),
            )  # fmt: skip
            for _ in range(2):
                await asyncio.to_thread(out.send, [block(b"a" * 200_000, b"b")])
            await until(lambda: receiver.counters.stored == 4)
            out.close()
            await until(lambda: not receiver.counters.connections)
            assert +receiver.counters.dropped == {}

    asyncio.run(run())
    assert intake.messages() == [b"a" * 200_000, b"b"] * 2


def test_npms_client_over_tls(intake: Any, localhost_certificate: Path, fluent_logger: Any) -> None:
    async def run() -> None:
        async with started(intake, security=OPEN, tls=context(localhost_certificate)) as receiver:
            tls = {"ca": (localhost_certificate / "cert").read_text()}
            options = {
                "socket": {"host": "localhost", "port": receiver.address[1], "timeout": _MS, "tls": tls},
                "security": {"clientHostname": "c", "sharedKey": KEY},
                "ack": {"ackTimeout": _MS},
            }
            told = await asyncio.to_thread(fluent_logger.send, options, [("a", {"log": "x"}, SECONDS)])
            assert told == "sent"
            assert receiver.counters.stored == 1

    asyncio.run(run())


def test_a_sender_without_tls_is_counted(
    intake: Any, localhost_certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward_connection, "HANDSHAKE_SECONDS", 0.05)

    async def run() -> None:
        async with started(intake, tls=context(localhost_certificate)) as receiver:
            reader, writer = await asyncio.open_connection(*receiver.address)
            writer.write(MESSAGE)
            async with asyncio.timeout(120):
                with contextlib.suppress(ConnectionError):
                    await reader.read()
            await until(lambda: receiver.counters.dropped)
            writer.close()
            assert receiver.counters.dropped == {"tls": 1}
            assert settled(receiver)

    asyncio.run(run())
    assert intake.blocks == []
