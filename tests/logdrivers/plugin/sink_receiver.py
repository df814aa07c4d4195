"""A server that takes what a sink sends, by GELF over TCP or by Forward with acknowledgements; imported by name."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import msgpack
import orjson

#: What there is a receiver for.
SINKS = ("gelf", "fluentd")


class Receiver:
    """One sink's server on a loopback port; ``lines`` are the texts in the order they came."""

    def __init__(self, sink: str, port: int = 0) -> None:
        self.lines: list[bytes] = []
        self._texts = {"gelf": _gelf, "fluentd": _forward}[sink]
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def take(self, texts: list[bytes]) -> None:
        """What came at once, before it is acknowledged."""
        self.lines += texts

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection:
                for texts in self._texts(connection):
                    self.take(texts)
        except ConnectionError:
            return  # its sender was killed

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def sink_options(sink: str, port: int) -> dict[str, str]:
    """The options of a container whose lines are to come here."""
    if sink == "fluentd":
        return {"sink": sink, "fluentd-address": f"127.0.0.1:{port}", "fluentd-request-ack": "true"}
    return {"sink": sink, "gelf-address": f"tcp://127.0.0.1:{port}"} if sink == "gelf" else {"sink": sink}


def _gelf(connection: socket.socket) -> Iterator[list[bytes]]:
    rest = b""
    while data := connection.recv(1 << 20):
        *messages, rest = (rest + data).split(b"\0")
        yield [orjson.loads(message)["short_message"].encode() for message in messages]


def _forward(connection: socket.socket) -> Iterator[list[bytes]]:
    unpacker = msgpack.Unpacker(raw=False, strict_map_key=False)
    while data := connection.recv(1 << 20):
        unpacker.feed(data)
        for _, events, option in unpacker:
            records = msgpack.Unpacker(raw=False, strict_map_key=False)
            records.feed(events)
            yield [record["log"].encode() for _, record in records]
            connection.sendall(msgpack.packb({"ack": option["chunk"]}))
