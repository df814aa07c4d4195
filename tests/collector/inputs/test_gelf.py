"""The GELF input: what arrives is stored by container, what does not is counted by cause."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from memory_intake import sources
from stream_client import closed, connected, until

from collector.inputs.gelf import GelfInput, GelfLimits
from collector.sink import Source
from logdrivers.block import Stream
from logdrivers.codecs import json_file
from logdrivers.codecs.gelf import chunk

ID = "0123456789abcdef" * 4


@contextlib.asynccontextmanager
async def started(intake: Any, **limits: Any) -> AsyncIterator[GelfInput]:
    receiver = GelfInput("127.0.0.1", 0, intake, sources, GelfLimits(**limits))
    await receiver.start()
    try:
        yield receiver
    finally:
        await receiver.stop()


def settled(receiver: GelfInput) -> bool:
    """Whether the counters' equation holds (kernel and connections are no messages)."""
    counters = receiver.counters
    dropped = sum(n for cause, n in counters.dropped.items() if cause not in ("kernel", "connections"))
    return counters.received == counters.stored + counters.waiting + dropped


def payload(text: str = "hello", **fields: object) -> bytes:
    base: dict[str, object] = {
        "version": "1.1",
        "host": "far",
        "short_message": text,
        "timestamp": 1795203851.793,
    }
    return json.dumps(base | {"level": 6} | fields).encode()


def from_container(text: str, **fields: object) -> bytes:
    return payload(text, _container_id=ID, _container_name="web", _image_name="shop/web", **fields)


async def exchange(intake: Any, *datagrams: bytes, count: int | None = None, **limits: Any) -> GelfInput:
    """Send datagrams, wait until so many messages (default: all) are accounted for, stop."""
    async with started(intake, **limits) as receiver:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for datagram in datagrams:
                sender.sendto(datagram, receiver.address)
        await until(lambda: receiver.counters.received >= (len(datagrams) if count is None else count))
    assert settled(receiver)
    return receiver


def records(intake: Any) -> list[json_file.Record]:
    return [record for _, block in intake.blocks for record in json_file.decode(block.data)]


def test_a_message_of_a_container_becomes_a_record_with_its_fields(intake: Any) -> None:
    message = from_container("it's <here>\tnow", _tag="t", _command="sh", _n=1, facility="f", level=3)
    asyncio.run(exchange(intake, gzip.compress(message)))
    ((source, block),) = intake.blocks
    assert source == Source(ID, "web", "shop/web", "here", "gelf")
    assert block.data == (
        b'{"log":"it\'s \\u003chere\\u003e\\u0009now\\n","stream":"stderr","attrs":{"command":"sh","facility":"f",'
        b'"host":"far","n":"1","tag":"t"},"time":"2026-11-20T19:44:11.793Z"}\n'
    )
    assert block.stream is Stream.STDERR
    assert block.first_ns == block.last_ns == 1_795_203_851_793_000_000
    assert block.lines == 1


def test_messages_that_arrive_together_are_one_block_a_container(intake: Any) -> None:
    async def run() -> None:
        async with started(intake) as receiver:
            loop = asyncio.get_running_loop()
            loop.remove_reader(receiver._udp)  # let them gather in the socket
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                for i in range(50):
                    sender.sendto(
                        from_container(f"{i}", timestamp=100 + i % 7, level=3 + 3 * (i % 2)), receiver.address
                    )
                    sender.sendto(payload(f"{i}", level=6), receiver.address)
            receiver._listen()
            await until(lambda: receiver.counters.stored == 100)

    asyncio.run(run())
    (web, block), (other, plain) = intake.blocks
    assert (web.container_id, other.container_id, other.container_name) == (ID, "", "far")
    assert [r.log for r in json_file.decode(block.data)] == [b"%d\n" % i for i in range(50)]
    assert (block.stream, plain.stream) == (Stream.MIXED, Stream.STDOUT)
    assert (block.first_ns, block.last_ns, block.lines) == (100 * 10**9, 106 * 10**9, 50)


@pytest.mark.parametrize(
    ("level", "stream", "kept"),
    [(0, Stream.STDERR, "0"), (3, Stream.STDERR, None), (4, Stream.STDOUT, "4"), (6, Stream.STDOUT, None),
     (None, Stream.STDOUT, None)],
)  # fmt: skip
def test_levels_are_streams_and_kept_where_a_stream_says_less(
    intake: Any, level: int | None, stream: Stream, kept: str | None
) -> None:
    asyncio.run(exchange(intake, payload(level=level)))
    (record,) = records(intake)
    assert (record.stream, record.attrs.get("level")) == (stream, kept)


def test_several_lines_in_one_message_stay_one_record(intake: Any) -> None:
    message = payload("short", full_message="a\n\tat b\n\tat c\n")
    asyncio.run(exchange(intake, message, payload("\x7f del"), payload("x")))
    assert [r.log for r in records(intake)] == [b"a\n\tat b\n\tat c\n", b"\x7f del\n", b"x\n"]


def test_chunked_messages_and_their_losses(intake: Any) -> None:
    whole, half = chunk(from_container("x" * 5000)), chunk(from_container("y" * 5000))
    receiver = asyncio.run(exchange(intake, *reversed(whole), *half[:2], count=1, chunk_seconds=3600.0))
    assert [r.log for r in records(intake)] == [b"x" * 5000 + b"\n"]
    assert receiver.counters.dropped["chunks_stopped"] == 1


def test_incomplete_chunks_expire_without_further_traffic(intake: Any) -> None:
    receiver = asyncio.run(exchange(intake, chunk(payload("y" * 5000))[0], count=1, chunk_seconds=0.05))
    assert receiver.counters.dropped["chunks_expired"] == 1


def test_what_is_no_message_is_counted_by_cause(intake: Any) -> None:
    receiver = asyncio.run(
        exchange(
            intake, b"junk", b"", b"{}", gzip.compress(payload("x" * 3000)), payload(), message_bytes=2000
        )
    )
    dropped = +receiver.counters.dropped
    assert dropped == {"malformed": 2, "no_message": 1, "message_too_large": 1}
    assert receiver.counters.stored == 1


def test_datagrams_the_kernel_dropped_are_counted(intake: Any) -> None:
    async def run() -> GelfInput:
        async with started(intake, socket_buffer=4096) as receiver:
            loop = asyncio.get_running_loop()
            loop.remove_reader(receiver._udp)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                for _ in range(100):
                    sender.sendto(payload("x" * 500), receiver.address)
            receiver._listen()
            await until(lambda: receiver.counters.dropped["kernel"])
        return receiver

    counters = asyncio.run(run()).counters
    assert counters.stored + counters.dropped["kernel"] == 100


# --- TCP ---


def test_frames_over_tcp_wherever_they_are_cut(intake: Any) -> None:
    async def run() -> GelfInput:
        async with started(intake) as receiver:
            async with connected(receiver) as (_, writer):
                stream = b"".join(from_container(f"{i} é") + b"\0" for i in range(20))
                for at in range(0, len(stream), 333):
                    writer.write(stream[at : at + 333])
                    await writer.drain()
                    await asyncio.sleep(0)
                await until(lambda: receiver.counters.stored == 20)
                assert receiver.counters.connections == 1
            await until(lambda: receiver.counters.connections == 0)
        return receiver

    receiver = asyncio.run(run())
    assert settled(receiver)
    assert [r.log.decode() for r in records(intake)] == [f"{i} é\n" for i in range(20)]


@pytest.mark.parametrize(("rest", "stored", "dropped"), [(payload("end"), 2, 0), (payload("end")[:-3], 1, 1)])
def test_a_last_frame_without_nul_counts_when_whole(
    intake: Any, rest: bytes, stored: int, dropped: int
) -> None:
    async def run() -> GelfInput:
        async with started(intake) as receiver:
            async with connected(receiver) as (_, writer):
                writer.write(payload("a") + b"\0" + rest)
            await until(lambda: receiver.counters.received == 2)
        return receiver

    receiver = asyncio.run(run())
    assert (receiver.counters.stored, receiver.counters.dropped["malformed"]) == (stored, dropped)
    assert settled(receiver)


def test_a_sender_without_end_is_closed_and_the_others_go_on(intake: Any) -> None:
    async def run() -> GelfInput:
        async with contextlib.AsyncExitStack() as stack:
            receiver = await stack.enter_async_context(
                started(intake, message_bytes=10_000, pending_bytes=25_000)
            )
            _, good = await stack.enter_async_context(connected(receiver))
            reader, bad = await stack.enter_async_context(connected(receiver))
            bad.write(payload("kept") + b"\0" + b"x" * 20_000)
            await closed(reader)
            for _ in range(3):
                _, writer = await stack.enter_async_context(connected(receiver))
                writer.write(b"x" * 9_000)
            await until(lambda: receiver.counters.dropped["pending_bytes"] == 1)
            good.write(payload("good") + b"\0")
            await until(lambda: receiver.counters.stored == 2)
        return receiver

    receiver = asyncio.run(run())
    assert receiver.counters.dropped["message_too_large"] == 1
    assert intake.messages() == [b"kept", b"good"]
    assert receiver._senders.pending_bytes == 0
    assert settled(receiver)


def test_connections_over_the_limit_are_refused_and_counted(intake: Any) -> None:
    async def run() -> None:
        async with started(intake, connections=1) as receiver:
            async with connected(receiver):
                await until(lambda: receiver.counters.connections == 1)
                async with connected(receiver) as (reader, _):
                    await closed(reader)
                assert receiver.counters.dropped["connections"] == 1
            await until(lambda: receiver.counters.connections == 0)
            async with connected(receiver):
                await until(lambda: receiver.counters.connections == 1)

    asyncio.run(run())


# --- the store fails ---


def test_while_the_store_fails_messages_wait_and_then_are_stored_in_order(
    intake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("collector.inputs.received._RETRY_SECONDS", 0.01)

    async def run() -> GelfInput:
        async with started(intake) as receiver, connected(receiver) as (_, writer):
            intake.fail = 3
            writer.write(payload("first") + b"\0")
            await until(lambda: receiver.counters.store_failures)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.sendto(payload("datagram"), receiver.address)
            writer.write(payload("second") + b"\0")
            await until(lambda: receiver.counters.stored == 3)
            assert receiver.counters.waiting == 0
        return receiver

    receiver = asyncio.run(run())
    assert receiver.counters.store_failures == 3
    assert intake.messages()[0] == b"first"
    assert sorted(intake.messages()) == [b"datagram", b"first", b"second"]
    assert settled(receiver)


def test_what_the_store_never_took_is_counted_at_stop(intake: Any) -> None:
    intake.fail = 1_000_000
    receiver = asyncio.run(exchange(intake, payload("a")))
    assert (receiver.counters.stored, receiver.counters.dropped["store"]) == (0, 1)


# --- start and stop ---


def test_both_sockets_share_a_port_and_a_taken_one_is_named(intake: Any) -> None:
    async def run() -> None:
        async with started(intake) as receiver:
            host, port = receiver.address
            with pytest.raises(
                OSError, match=f"cannot receive GELF on 127.0.0.1:{port}: Address already in use"
            ):
                await GelfInput(host, port, intake, sources).start()

    asyncio.run(run())


def test_stop_takes_what_has_arrived(intake: Any) -> None:
    async def run() -> GelfInput:
        receiver = GelfInput("127.0.0.1", 0, intake, sources)
        await receiver.start()
        async with connected(receiver) as (_, writer):
            await until(lambda: receiver.counters.connections == 1)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                for i in range(2000):
                    sender.sendto(payload(f"{i}"), receiver.address)
            writer.write(payload("tcp") + b"\0")
            await receiver.stop()
        return receiver

    receiver = asyncio.run(run())
    assert receiver.counters.stored == 2001


def test_a_port_that_is_not_bound_has_no_address(intake: Any) -> None:
    with pytest.raises(RuntimeError, match="not started"):
        _ = GelfInput("127.0.0.1", 0, intake, sources).address
