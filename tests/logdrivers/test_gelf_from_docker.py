"""What a real Docker Engine's gelf driver sends beside what ours does, for the same output: to the byte.

Deflate's bytes are the implementation's own: compared are the messages within, and how they are cut into chunks.
"""

from __future__ import annotations

import gzip
import json
import socket
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from logdrivers.block import Block, Encoding, Stream
from logdrivers.codecs.gelf import CHUNK_MAGIC, GelfEncoder, chunk
from logdrivers.driver import Info, OptionError
from logdrivers.gelf import GelfDriver

#: Each stream on its own, the other after it; what is random does not compress below a datagram.
SCRIPT = (
    "printf 'plain <&> \"q\" tab\\tend\\n\\n\\r\\nback\\\\slash \\\\u0009 \\033[1m\\007\\177\\n';"
    " printf '\\377\\376 caf\\303\\251 \\342\\202 \\342\\200\\250\\n';"
    " head -c 16385 /dev/zero | tr '\\0' x; echo; head -c 16384 /dev/zero | tr '\\0' y; echo;"
    " head -c 9000 /dev/urandom | base64 | tr -d '\\n'; echo;"
    " sleep 0.2; echo err >&2; sleep 0.2; printf 'no newline'"
)
#: Stream and text of each message that comes; None is the random one.
WRITTEN: tuple[tuple[Stream, bytes | None], ...] = (
    (Stream.STDOUT, b'plain <&> "q" tab\tend'),
    (Stream.STDOUT, b"\r"),
    (Stream.STDOUT, b"back\\slash \\u0009 \x1b[1m\x07\x7f"),
    (Stream.STDOUT, b"\xff\xfe caf\xc3\xa9 \xe2\x82 \xe2\x80\xa8"),
    (Stream.STDOUT, b"x" * 16384),
    (Stream.STDOUT, b"x"),
    (Stream.STDOUT, b"y" * 16384),
    (Stream.STDOUT, None),
    (Stream.STDOUT, b"no newline"),
    (Stream.STDERR, b"err"),
)
UNPACK = {"gzip": gzip.decompress, "zlib": zlib.decompress, "none": bytes}


class Datagrams:
    """Receives until there are so many messages, chunked ones put together."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE
        self.socket.bind(("127.0.0.1", 0))
        self.socket.settimeout(100)
        self.address = f"udp://127.0.0.1:{self.socket.getsockname()[1]}"

    def take(self, count: int) -> list[list[bytes]]:
        """The datagrams of each message."""
        messages: dict[bytes, list[bytes]] = {}
        while len(messages) < count or any(len(found) < expected(found) for found in messages.values()):
            data = self.socket.recv(65536)
            key = data[2:10] if data.startswith(CHUNK_MAGIC) else b"%d" % len(messages)
            messages.setdefault(key, []).append(data)
        return list(messages.values())


def expected(datagrams: list[bytes]) -> int:
    return datagrams[0][11] if datagrams[0].startswith(CHUNK_MAGIC) else 1


def payload(datagrams: list[bytes]) -> bytes:
    if not datagrams[0].startswith(CHUNK_MAGIC):
        return datagrams[0]
    return b"".join(datagram[12:] for datagram in datagrams)


def level(message: bytes) -> int:
    return -int(json.loads(message)["level"])  # standard output first


def by_ours(info: Info, theirs: list[bytes]) -> list[bytes]:
    """The messages of our encoder, at the times of theirs."""
    encoder = GelfEncoder(info)
    return [payload for block in blocks(sorted(theirs, key=level)) for payload in encoder.payloads(block)]


def blocks(messages: list[bytes]) -> list[Block]:
    """What was written, at the messages' times; the random line is theirs."""
    made = []
    for (stream, text), message in zip(WRITTEN, messages, strict=True):
        said = json.loads(message)
        data = said["short_message"].encode() if text is None else text
        time_ns = round(said["timestamp"] * 1000) * 1_000_000
        made.append(Block(data + b"\n", Encoding.LINES, stream, time_ns, time_ns, 1))
    return made


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"gelf-compression-type": "gzip", "gelf-compression-level": "9", "labels": "app", "env": "TEAM"},
        {"gelf-compression-type": "zlib", "tag": "{{.Name}}/{{.ID}}/{{.ImageID}}"},
        {
            "gelf-compression-type": "zlib",
            "gelf-compression-level": "-1",
            "labels-regex": "^a",
            "env-regex": "^T",
        },
        {"gelf-compression-type": "none"},
    ],
    ids=str,
)
def test_udp_messages_are_the_same_to_the_byte(docker_engine: Any, options: dict[str, str]) -> None:
    taken = Datagrams()
    options = {"gelf-address": taken.address, **options}
    info = docker_engine.container("gelf", options, SCRIPT)
    theirs = taken.take(len(WRITTEN))
    unpack = UNPACK[options.get("gelf-compression-type", "gzip")]
    messages = [unpack(payload(datagrams)) for datagrams in theirs]
    ours = by_ours(info, messages)
    assert ours == sorted(messages, key=level)
    chunked = [datagrams for datagrams in theirs if len(datagrams) > 1]
    assert chunked
    for datagrams in chunked:
        assert chunk(payload(datagrams), datagrams[0][2:10]) == sorted(datagrams, key=lambda data: data[10])
    driver = GelfDriver()
    driver.validate(options)
    sink = driver.sink(info)
    assert sink is not None
    sink.send(blocks(ours))
    sink.close()
    assert [unpack(payload(datagrams)) for datagrams in taken.take(len(WRITTEN))] == ours
    taken.socket.close()


def test_tcp_frames_are_the_same_to_the_byte(docker_engine: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor() as pool:
        server.settimeout(120)
        stream = pool.submit(whole_stream, server)
        options = {"gelf-address": f"tcp://127.0.0.1:{server.getsockname()[1]}", "labels": "app"}
        info = docker_engine.container("gelf", options, SCRIPT)
        theirs = stream.result().split(b"\0")
        assert theirs.pop() == b""  # a NUL behind each, the last one too
        ours = by_ours(info, theirs)
        assert ours == sorted(theirs, key=level)
        stream = pool.submit(whole_stream, server)
        sink = GelfDriver().sink(info)
        assert sink is not None
        sink.send(blocks(ours))
        sink.close()
        assert stream.result() == b"".join(message + b"\0" for message in ours)


def whole_stream(server: socket.socket) -> bytes:
    """All that comes on the next connection."""
    connection, _ = server.accept()
    with connection:
        connection.settimeout(120)
        return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize(
    "options",
    [
        {}, {"gelf-address": "foo"}, {"gelf-address": "ftp://h:1"}, {"gelf-address": "udp://127.0.0.1"},
        {"gelf-address": "unix:///x"}, {"gelf-address": "udp://127.0.0.1:1", "gelf-compression-type": "lz4"},
        {"gelf-address": "udp://127.0.0.1:1", "gelf-compression-level": "10"},
        {"gelf-address": "udp://127.0.0.1:1", "gelf-tcp-max-reconnect": "1"},
        {"gelf-address": "tcp://127.0.0.1:1", "gelf-compression-type": "none"},
        {"gelf-address": "tcp://127.0.0.1:1", "gelf-tcp-reconnect-delay": "x"},
        {"gelf-address": "udp://127.0.0.1:1", "foo": "1"},
        {"gelf-address": "udp://127.0.0.1:1", "mode": "foo"},
    ],
    ids=str,
)  # fmt: skip
def test_refusals_are_the_same(docker_engine: Any, options: dict[str, str]) -> None:
    try:
        GelfDriver().validate(options)
        ours = ""
    except OptionError as error:
        ours = str(error)
    assert ours == docker_engine.refusal("gelf", options)
