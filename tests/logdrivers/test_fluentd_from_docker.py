"""What a real Docker Engine's fluentd driver sends beside what ours does, byte for byte but for the order of fields."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgpack
import pytest

from logdrivers.block import Block, Encoding, Partial, Stream
from logdrivers.codecs.forward import ForwardEncoder, ack
from logdrivers.driver import Info, OptionError
from logdrivers.fluentd import FluentdDriver
from logdrivers.fluentd_options import flag
from logdrivers.tag import render_tag

SCRIPT = r"""
printf 'plain <&> "q" tab\tend\n\n\r\nback\\slash \\u0009 \\n \033[1m\007\177\n'
printf 'caf\303\251 \377\376 \342\202 \342\200\250\n'
for size in 31 32 255 256 16383 16384 16385 32768; do head -c $size /dev/zero | tr '\0' x; echo; done
sleep 0.2; echo to the other >&2; sleep 0.2
printf 'no newline'
"""
MESSAGES = 5 + 6 + 2 * 2 - 1 + 3 + 1 + 1


class Receiver:
    """Takes one connection's messages and gives each the answer it asks for."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(100)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.data = b""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        connection, _ = self._listener.accept()
        unpacker = msgpack.Unpacker(raw=True)
        with connection:
            connection.settimeout(100)
            while data := connection.recv(1 << 20):
                self.data += data
                unpacker.feed(data)
                for message in unpacker:
                    if b"chunk" in message[-1]:
                        connection.sendall(ack(message[-1][b"chunk"]))

    def close(self) -> None:
        self._thread.join(100)
        self._listener.close()


class Bytes(NamedTuple):
    """A message's bytes, part by part."""

    tag: bytes
    time: bytes
    fields: frozenset[bytes]  #: each key with its value
    option: bytes


def parts(data: bytes) -> Iterator[Bytes]:
    unpacker = msgpack.Unpacker(raw=True)
    unpacker.feed(data)

    def value() -> bytes:
        begin = unpacker.tell()
        unpacker.skip()
        return data[begin : unpacker.tell()]

    while unpacker.tell() < len(data):
        assert unpacker.read_array_header() == 4
        tag, time = value(), value()
        fields = [value() + value() for _ in range(unpacker.read_map_header())]
        yield Bytes(tag, time, frozenset(fields), value())


def block(message: Any) -> Block:
    """What our driver would have been given for a message of Docker's."""
    _, time, record, _ = message
    if isinstance(time, int):
        time_ns = time * 10**9
    else:
        time_ns = int.from_bytes(time.data[:4], "big") * 10**9 + int.from_bytes(time.data[4:], "big")
    partial = None
    if b"partial_message" in record:
        last = record[b"partial_last"] == b"true"
        partial = Partial(record[b"partial_id"].decode(), int(record[b"partial_ordinal"]), last)
    text = record[b"log"] + (b"" if partial else b"\n")
    stream = Stream[record[b"source"].decode().upper()]
    return Block(text, Encoding.LINES, stream, time_ns, time_ns, 1, partial)


@pytest.mark.parametrize("sub_second", ["false", "true"], ids=["seconds", "sub-second"])
@pytest.mark.parametrize("request_ack", ["false", "true"], ids=["unanswered", "acknowledged"])
def test_every_message_is_dockers(docker_engine: Any, sub_second: str, request_ack: str) -> None:
    receiver = Receiver()
    options = {
        "fluentd-address": receiver.address,
        "fluentd-sub-second-precision": sub_second,
        "fluentd-request-ack": request_ack,
        "tag": "{{.Name}}/{{.ID}}",
        "labels": "app",
        "env": "TEAM",
    }
    FluentdDriver().validate(options)
    info: Info = docker_engine.container("fluentd", options, SCRIPT)
    receiver.close()
    encoder = ForwardEncoder(
        info, render_tag(options["tag"], info), flag(options, "fluentd-sub-second-precision")
    )
    unpacker = msgpack.Unpacker(raw=True)
    unpacker.feed(receiver.data)
    ours = b""
    for message in unpacker:
        chunk = message[3].get(b"chunk")
        if request_ack == "true":
            ours += b"".join(encoder.acknowledged(block(message), [chunk.decode()]))
        else:
            assert chunk is None
            ours += encoder.messages(block(message))
    expected, found = list(parts(receiver.data)), list(parts(ours))
    assert len(expected) == MESSAGES
    assert found == expected
    assert len(ours) == len(receiver.data)


@pytest.mark.parametrize(
    "options",
    [
        {"fluentd-buffer-limit": "x"}, {"fluentd-retry-wait": "x"}, {"fluentd-max-retries": "-1"},
        {"fluentd-async": "x"}, {"fluentd-sub-second-precision": "x"}, {"fluentd-request-ack": "x"},
        {"fluentd-async": "1", "fluentd-async-connect": "1"}, {"foo": "1"},
    ],
    ids=str,
)  # fmt: skip
def test_what_docker_refuses_is_refused_in_its_words(docker_engine: Any, options: dict[str, str]) -> None:
    try:
        FluentdDriver().validate(options)
        ours = ""
    except OptionError as error:
        ours = str(error)
    assert ours == docker_engine.refusal("fluentd", options)
