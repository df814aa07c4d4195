"""The Forward input: every mode stored by container, acknowledged once stored, losses counted by cause."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
from collections.abc import AsyncIterator
from typing import Any

import fluent.asyncsender
import fluent.sender
import msgpack
import pytest
from memory_intake import sources
from stream_client import closed, connected, until

from collector.inputs.forward import ForwardInput, ForwardLimits
from collector.sink import Source
from logdrivers.block import Stream
from logdrivers.codecs import json_file

ID = "0123456789abcdef" * 4
SECONDS = 1_795_203_851


@contextlib.asynccontextmanager
async def started(intake: Any, **limits: Any) -> AsyncIterator[ForwardInput]:
    receiver = ForwardInput("127.0.0.1", 0, intake, sources, ForwardLimits(**limits))
    await receiver.start()
    try:
        yield receiver
    finally:
        await receiver.stop()


def settled(receiver: ForwardInput) -> bool:
    counters = receiver.counters
    dropped = sum(n for cause, n in counters.dropped.items() if cause != "connections")
    return counters.received == counters.stored + counters.waiting + counters.duplicates + dropped


def records(intake: Any) -> list[json_file.Record]:
    return [record for _, block in intake.blocks for record in json_file.decode(block.data)]


def record(log: str | bytes, **fields: object) -> dict[str, object]:
    return {"container_id": ID, "container_name": "/web", "source": "stdout", "log": log, **fields}


def message(log: str | bytes, option: object = None, **fields: object) -> bytes:
    return msgpack.packb(["t", SECONDS, record(log, **fields), option or {}])


async def exchange(intake: Any, *pieces: bytes, count: int, **limits: Any) -> ForwardInput:
    async with started(intake, **limits) as receiver:
        async with connected(receiver) as (_, writer):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            await until(lambda: receiver.counters.received >= count)
        await until(lambda: not receiver.counters.connections)
    assert settled(receiver)
    return receiver


def test_a_message_becomes_a_record_with_its_fields(intake: Any) -> None:
    asyncio.run(exchange(intake, message(b'<a>\t"\xff"', source="stderr", app="shop", n=1), count=1))
    ((source, block),) = intake.blocks
    assert source == Source(ID, "web", "", "here", "fluentd")
    assert block.data == (
        b'{"log":"\\u003ca\\u003e\\u0009\\"\\ufffd\\"\\n","stream":"stderr","attrs":{"app":"shop","n":"1","tag":"t"},'
        b'"time":"2026-11-20T19:44:11Z"}\n'
    )
    assert (block.stream, block.lines, block.first_ns) == (Stream.STDERR, 1, SECONDS * 10**9)


def test_all_modes_in_one_stream_one_block_a_container(intake: Any) -> None:
    entries = [[SECONDS + i, record(f"e{i}")] for i in range(2)]
    packed = b"".join(map(msgpack.packb, entries))
    stream = (
        message("m")
        + msgpack.packb(["t", entries])
        + msgpack.packb(["t", packed])
        + msgpack.packb(["t", gzip.compress(packed), {"compressed": "gzip"}])
        + msgpack.packb(["t", SECONDS, {"log": "other"}])
    )
    asyncio.run(exchange(intake, stream, count=8))
    (web, block), (other, _) = intake.blocks
    assert [r.log for r in json_file.decode(block.data)] == [b"m\n", *[b"e0\n", b"e1\n"] * 3]
    assert (web.container_name, other.container_id, other.container_name) == ("web", "", "t")
    assert (block.first_ns, block.last_ns) == (SECONDS * 10**9, (SECONDS + 1) * 10**9)


def test_pieces_of_a_long_line_leave_it_open_until_the_last(intake: Any) -> None:
    piece = {"partial_message": "true", "partial_id": "p", "partial_ordinal": "1", "partial_last": "false"}
    stream = message("a", **piece) + message(
        "b", **(piece | {"partial_ordinal": "2", "partial_last": "true"})
    )
    asyncio.run(exchange(intake, stream, count=2))
    first, last = records(intake)
    assert (first.log, last.log) == (b"a", b"b\n")
    assert (first.attrs["partial_id"], last.attrs["partial_ordinal"]) == ("p", "2")


def test_an_event_without_a_line_is_the_line(intake: Any) -> None:
    event = {"user": "é", "n": 1, "deep": {"list": [1, b"x", None, True]}, "big": (1 << 64) - 1}
    asyncio.run(exchange(intake, msgpack.packb(["app.login", SECONDS + 0.5, event]), count=1))
    (found,) = records(intake)
    assert (
        found.log.decode()
        == '{"user":"é","n":1,"deep":{"list":[1,"x",null,true]},"big":18446744073709551615}\n'
    )
    assert (found.attrs, found.time_ns) == ({"tag": "app.login"}, SECONDS * 10**9 + 500_000_000)


def test_values_that_are_equal_but_read_differently_stay_apart(intake: Any) -> None:
    stream = b"".join(message("x", v=value) for value in (1, True, 1.0, "1"))
    asyncio.run(exchange(intake, stream, count=4))
    assert [r.attrs["v"] for r in records(intake)] == ["1", "true", "1.0", "1"]


def test_json_is_taken_beside_messagepack(intake: Any) -> None:
    asyncio.run(exchange(intake, b'["t", 1795203851, {"log": "j\xc3\xa9", "source": "stderr"}]\n', count=1))
    (found,) = records(intake)
    assert (found.log.decode(), found.stream) == ("jé\n", Stream.STDERR)


# --- acknowledgement ---


async def answers(reader: asyncio.StreamReader, count: int) -> list[bytes]:
    unpacker = msgpack.Unpacker(raw=True)
    found: list[bytes] = []
    async with asyncio.timeout(120):
        while len(found) < count:
            unpacker.feed(await reader.read(65536))
            found += [answer[b"ack"] for answer in unpacker]
    return found


def test_chunks_are_acknowledged_in_order_once_stored(intake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("collector.inputs.received._RETRY_SECONDS", 0.01)

    async def run() -> None:
        async with started(intake) as receiver, connected(receiver) as (reader, writer):
            intake.fail = 1_000_000
            writer.write(message("a", {"chunk": "1"}) + message("b", {"chunk": "2"}) + message("c"))
            await until(lambda: receiver.counters.store_failures > 2)
            assert intake.blocks == []
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.read(1), 0.05)
            intake.fail = 0
            assert await answers(reader, 2) == [b"1", b"2"]
            assert intake.messages()[:2] == [b"a", b"b"]
            await until(lambda: receiver.counters.stored == 3)

    asyncio.run(run())


def test_a_chunk_sent_again_is_acknowledged_and_not_stored_again(intake: Any) -> None:
    async def run() -> None:
        async with started(intake) as receiver:
            for line in ("a", "a", "another line under the same id"):
                async with connected(receiver) as (reader, writer):
                    writer.write(message(line, {"chunk": "1"}))
                    assert await answers(reader, 1) == [b"1"]
            assert receiver.counters.duplicates == 1
            assert settled(receiver)

    asyncio.run(run())
    assert intake.messages() == [b"a", b"another line under the same id"]


def test_what_the_store_never_took_is_counted_and_not_acknowledged(intake: Any) -> None:
    async def run() -> ForwardInput:
        receiver = ForwardInput("127.0.0.1", 0, intake, sources)
        await receiver.start()
        async with connected(receiver) as (reader, writer):
            intake.fail = 1_000_000
            writer.write(message("a", {"chunk": "1"}))
            await until(lambda: receiver.counters.store_failures)
            await receiver.stop()
            await closed(reader)
        return receiver

    receiver = asyncio.run(run())
    assert receiver.counters.dropped == {"store": 1}
    assert settled(receiver)


# --- limits and bad input ---


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "malformed"),
        (msgpack.packb(["t", SECONDS, "no record"]), "malformed"),
        (msgpack.packb(["PING", "h", "salt", "digest", "", ""]), "handshake"),
        (message("x" * 20_000), "message_too_large"),
        (msgpack.packb(["t", gzip.compress(b"\0" * 20_000), {"compressed": "gzip"}]), "message_too_large"),
    ],
)
def test_a_stream_that_cannot_be_followed_is_closed_and_counted(intake: Any, data: bytes, cause: str) -> None:
    async def run() -> ForwardInput:
        async with started(intake, message_bytes=10_000) as receiver, connected(receiver) as (reader, writer):
            writer.write(message("before") + data * 20)
            await closed(reader)
        return receiver

    receiver = asyncio.run(run())
    assert receiver.counters.dropped[cause] == 1
    assert intake.messages() == [b"before"]
    assert settled(receiver)


def test_an_unfinished_message_is_counted(intake: Any) -> None:
    receiver = asyncio.run(exchange(intake, message("a") + message("b")[:-5], count=1))
    assert receiver.counters.dropped["incomplete"] == 1
    assert receiver._senders.pending_bytes == 0


def test_unfinished_bytes_of_all_senders_together_are_limited(intake: Any) -> None:
    async def run() -> ForwardInput:
        async with contextlib.AsyncExitStack() as stack:
            receiver = await stack.enter_async_context(started(intake, pending_bytes=25_000))
            for _ in range(3):
                _, writer = await stack.enter_async_context(connected(receiver))
                writer.write(message("x" * 10_000)[:9_000])
            await until(lambda: receiver.counters.dropped["pending_bytes"] == 1)
        return receiver

    receiver = asyncio.run(run())
    assert receiver.counters.dropped == {"pending_bytes": 1, "incomplete": 2}


def test_entries_that_are_none_are_counted(intake: Any) -> None:
    receiver = asyncio.run(exchange(intake, msgpack.packb(["t", [[SECONDS, record("a")], 5]]), count=2))
    assert (receiver.counters.stored, receiver.counters.dropped["malformed"]) == (1, 1)


def test_connections_over_the_limit_are_refused_and_counted(intake: Any) -> None:
    async def run() -> None:
        async with started(intake, connections=1) as receiver:
            async with connected(receiver):
                await until(lambda: receiver.counters.connections == 1)
                async with connected(receiver) as (reader, _):
                    await closed(reader)
                assert receiver.counters.dropped["connections"] == 1

    asyncio.run(run())


def test_a_taken_port_is_named(intake: Any) -> None:
    async def run() -> None:
        async with started(intake) as receiver:
            host, port = receiver.address
            with pytest.raises(OSError, match=f"cannot receive Forward on 127.0.0.1:{port}"):
                await ForwardInput(host, port, intake, sources).start()

    asyncio.run(run())


# --- foreign clients ---


def test_fluent_logger_is_understood(intake: Any) -> None:
    async def run() -> None:
        async with started(intake) as receiver:
            host, port = receiver.address

            def send() -> None:
                sender = fluent.sender.FluentSender("app", host=host, port=port, nanosecond_precision=True)
                assert sender.emit_with_time(
                    "login", fluent.sender.EventTime(SECONDS + 0.25), {"log": "é", "n": 1}
                )
                assert sender.emit_with_time(None, SECONDS, {"message": "m"})
                sender.close()
                later = fluent.asyncsender.FluentSender("app", host=host, port=port)
                for i in range(100):
                    later.emit_with_time("async", SECONDS, {"log": str(i)})
                later.close()

            await asyncio.to_thread(send)
            await until(lambda: receiver.counters.stored == 102)

    asyncio.run(run())
    first, second, *rest = records(intake)
    assert (first.log.decode(), first.attrs) == ("é\n", {"n": "1", "tag": "app.login"})
    assert abs(first.time_ns - (SECONDS * 10**9 + 250_000_000)) < 1000
    assert (second.log, second.time_ns, second.attrs) == (b"m\n", SECONDS * 10**9, {"tag": "app"})
    assert [r.log for r in rest] == [b"%d\n" % i for i in range(100)]


def test_heartbeats_are_echoed(intake: Any) -> None:
    async def run() -> None:
        async with started(intake) as receiver:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.setblocking(False)
                client.connect(receiver.address)
                client.send(b"\0")
                loop = asyncio.get_running_loop()
                assert await asyncio.wait_for(loop.sock_recv(client, 10), 120) == b"\0"

    asyncio.run(run())
