"""The fluentd driver's sink under every fault a server can have."""

from __future__ import annotations

import hashlib
import shutil
import socket
import ssl
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from held_port import hold_port

from logdrivers.block import Block, Encoding, Stream
from logdrivers.codecs.forward import ack
from logdrivers.driver import Info, Sink, SinkDown
from logdrivers.fluentd import FluentdDriver
from logdrivers.sinks import fluentd as fluentd_sink


def sink(address: str, **options: str) -> Sink:
    info = Info(
        "0123456789abcdef" * 4,
        "/web",
        "sha256:" + "fe" * 32,
        "shop/web",
        ("sh",),
        0,
        Path("/nonexistent"),
        {"fluentd-address": address, **{"fluentd-" + k.replace("_", "-"): v for k, v in options.items()}},
    )
    FluentdDriver().validate(info.options)
    made = FluentdDriver().sink(info)
    assert made is not None
    return made


def lines(*texts: bytes) -> Block:
    data = b"".join(text + b"\n" for text in texts)
    return Block(data, Encoding.LINES, Stream.STDOUT, 10**18, 10**18, len(texts))


@pytest.fixture
def tcp() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(100)
        yield server


def at(server: socket.socket) -> str:
    return f"127.0.0.1:{server.getsockname()[1]}"


class Peer:
    """The server's end of a connection."""

    def __init__(self, server: socket.socket) -> None:
        self.socket, _ = server.accept()
        self.socket.settimeout(100)
        self.unpacker = msgpack.Unpacker(raw=True)

    def message(self) -> Any:
        while True:
            for message in self.unpacker:
                return message
            data = self.socket.recv(65536)
            assert data
            self.unpacker.feed(data)

    def log(self) -> bytes:
        text: bytes = self.message()[2][b"log"]
        return text


def test_messages_arrive_tagged_and_in_order(tcp: socket.socket) -> None:
    out = sink(at(tcp))
    out.send([lines(b"a", b""), lines(), lines(b"c")])
    peer = Peer(tcp)
    first = peer.message()
    assert first[0] == b"0123456789ab"
    assert first[2][b"container_name"] == b"/web"
    assert [first[2][b"log"], peer.log(), peer.log()] == [b"a", b"", b"c"]
    peer.socket.close()
    out.close()


def test_over_a_unix_socket() -> None:
    directory = tempfile.mkdtemp(dir="/tmp")
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(f"{directory}/s")
            server.listen()
            server.settimeout(100)
            out = sink(f"unix://{directory}/s")
            got: list[bytes] = []

            def read() -> None:
                peer = Peer(server)
                got.append(peer.log() + peer.log())
                peer.socket.close()

            reader = threading.Thread(target=read)
            reader.start()
            out.send([lines(b"a", b"b")])
            reader.join()
            assert got == [b"ab"]
            out.close()
        with pytest.raises(SinkDown, match=f"cannot connect to unix://{directory}/s"):
            out.send([lines(b"a")])
    finally:
        shutil.rmtree(directory)


@pytest.mark.parametrize("trusted", [True, False])
def test_over_tls_to_a_server_whose_certificate_is_checked(
    tcp: socket.socket, localhost_certificate: Path, monkeypatch: pytest.MonkeyPatch, trusted: bool
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(localhost_certificate / "cert", localhost_certificate / "key")
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(localhost_certificate / "cert"))
    got: list[object] = []

    def serve() -> None:
        try:
            with context.wrap_socket(tcp, server_side=True) as server:
                peer = Peer(server)
                got.append(peer.log())
                peer.socket.close()
        except OSError as error:
            got.append(error)

    out = sink(f"tls://localhost:{tcp.getsockname()[1]}")
    server = threading.Thread(target=serve)
    server.start()
    if trusted:
        out.send([lines(b"secret")])
        server.join()
        assert got == [b"secret"]
    else:
        with pytest.raises(SinkDown, match="CERTIFICATE_VERIFY_FAILED"):
            out.send([lines(b"secret")])
        server.join()
        assert isinstance(got[0], OSError)
    out.close()


def test_with_acknowledgement_a_batch_is_sent_once_the_server_has_it(tcp: socket.socket) -> None:
    out = sink(at(tcp), request_ack="true", read_timeout="100s")
    got: list[Any] = []

    def serve() -> None:
        peer = Peer(tcp)
        got.extend(peer.message() for _ in range(2))
        for message in reversed(got):
            peer.socket.sendall(ack(message[2][b"chunk"]))
        got.append(peer.message())
        peer.socket.sendall(ack(b"of something else") + ack(got[2][2][b"chunk"]))
        peer.socket.close()

    server = threading.Thread(target=serve)
    server.start()
    out.send([lines(b"a", b"b"), lines(b"c")])
    out.send([lines(b"d")])
    server.join()
    assert [message[2][b"size"] for message in got] == [2, 1, 1]
    assert len({message[2][b"chunk"] for message in got}) == 3
    unpacker = msgpack.Unpacker(raw=True)
    unpacker.feed(got[0][1])
    assert [entry[1][b"log"] for entry in unpacker] == [b"a", b"b"]
    out.close()


def test_a_server_that_never_answers_costs_the_deadline_and_the_chunk_keeps_its_id(
    tcp: socket.socket,
) -> None:
    out = sink(at(tcp), request_ack="true", read_timeout="200ms")
    start = time.monotonic()
    for _ in range(2):
        with pytest.raises(SinkDown, match=r"has not acknowledged 1 chunks in 0.2 s"):
            out.send([lines(b"a")])
    assert time.monotonic() - start < fluentd_sink.READ_SECONDS
    with pytest.raises(SinkDown):
        out.send([lines(b"other")])
    peers = [Peer(tcp) for _ in range(3)]
    first, again, other = (peer.message()[2][b"chunk"] for peer in peers)
    assert first == again != other
    for peer in peers:
        peer.socket.close()
    out.close()


@pytest.mark.parametrize("answer", [b"", b"\xc1", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_a_server_that_closes_or_answers_nonsense_is_down(tcp: socket.socket, answer: bytes) -> None:
    out = sink(at(tcp), request_ack="true", read_timeout="100s")

    def serve() -> None:
        peer = Peer(tcp)
        peer.message()
        peer.socket.sendall(answer)
        peer.socket.close()

    server = threading.Thread(target=serve)
    server.start()
    with pytest.raises(SinkDown):
        out.send([lines(b"a")])
    server.join()
    out.close()


def test_a_refused_connection_is_down_and_comes_back() -> None:
    with hold_port() as back:
        port = back.getsockname()[1]
        out = sink(f"127.0.0.1:{port}")
        with pytest.raises(SinkDown, match=f"cannot connect to tcp://127.0.0.1:{port}: .*refused"):
            out.send([lines(b"a")])
        back.listen()
        back.settimeout(100)
        out.send([lines(b"a")])
        peer = Peer(back)
        assert peer.log() == b"a"
        peer.socket.close()
    out.close()


def test_a_server_that_never_reads_costs_the_deadline_and_no_more(tcp: socket.socket) -> None:
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    out = sink(at(tcp), write_timeout="200ms")
    start = time.monotonic()
    with pytest.raises(SinkDown):
        out.send([lines(*[b"x" * 1000] * 20_000)])
    assert time.monotonic() - start < 10
    out.close()


@pytest.mark.parametrize("how", ["close", "half-close", "reset"])
def test_a_closed_connection_is_noticed_before_the_next_batch(tcp: socket.socket, how: str) -> None:
    out = sink(at(tcp))
    out.send([lines(b"a")])
    first = Peer(tcp)
    assert first.log() == b"a"
    if how == "half-close":
        first.socket.shutdown(socket.SHUT_WR)
    else:
        if how == "reset":
            first.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        first.socket.close()
    out.send([lines(b"b")])
    second = Peer(tcp)
    assert second.log() == b"b"
    for peer in (first, second):
        peer.socket.close()
    out.close()


# --- the handshake, where no foreign server goes ---


def helo(**options: object) -> bytes:
    packed: bytes = msgpack.packb(["HELO", {"nonce": b"n" * 16, "auth": "", "keepalive": True} | options])
    return packed


def pong(ping: Any, accepted: bool = True, host: str = "there", key: bytes = b"k") -> bytes:
    proof = hashlib.sha512(ping[2] + host.encode() + b"n" * 16 + key).hexdigest()
    packed: bytes = msgpack.packb(["PONG", accepted, "", host, proof])
    return packed


def test_without_keepalive_a_connection_carries_one_batch(tcp: socket.socket) -> None:
    out = sink(at(tcp), shared_key="k")
    got: list[bytes] = []

    def serve() -> None:
        for _ in range(2):
            peer = Peer(tcp)
            peer.socket.sendall(helo(keepalive=False))
            peer.socket.sendall(pong(peer.message()))
            got.append(peer.log())
            assert peer.socket.recv(1) == b""
            peer.socket.close()

    server = threading.Thread(target=serve)
    server.start()
    out.send([lines(b"a")])
    out.send([lines(b"b")])
    server.join()
    assert got == [b"a", b"b"]
    out.close()


@pytest.mark.parametrize(
    ("first", "second", "why"),
    [
        (b"", None, "no HELO, it closed the connection"),
        (ack(b"x"), None, r"no handshake of Forward"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", None, "no handshake of Forward"),
        (msgpack.packb(["HELO", 5]), None, "its HELO has no options"),
        (msgpack.packb(["HELO"]), None, "no handshake of Forward"),
        (msgpack.packb(["PONG", True, "", "h", "d"]), None, "no HELO, but another message"),
        (helo(), lambda ping: b"", "no PONG, it closed the connection"),
        (helo(), lambda ping: pong(ping, host="here"), "it has our own host name, 'here'"),
        (helo(), lambda ping: pong(ping, key=b"other"), "it does not know the shared key"),
        (helo(), lambda ping: msgpack.packb(["PONG", 1, None, b"h", 3]), "it refused us: it gave no reason"),
        (
            helo(),
            lambda ping: msgpack.packb(["PONG", False, "a\n" + "b" * 900, "", ""]),
            r"refused us: a\?b{198}$",
        ),
    ],
)
def test_a_server_that_fails_the_handshake_is_down(
    tcp: socket.socket, first: bytes, second: Callable[[Any], bytes] | None, why: str
) -> None:
    out = sink(at(tcp), shared_key="k", self_hostname="here")

    def serve() -> None:
        peer = Peer(tcp)
        peer.socket.sendall(first)
        if second is not None:
            peer.socket.sendall(second(peer.message()))
        peer.socket.close()

    server = threading.Thread(target=serve)
    server.start()
    with pytest.raises(SinkDown, match=f"cannot connect to tcp://{at(tcp)}: .*{why}"):
        out.send([lines(b"a")])
    server.join()
    out.close()


def test_a_server_without_a_key_costs_a_driver_with_one_the_deadline(
    tcp: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fluentd_sink, "_HANDSHAKE_SECONDS", 0.1)
    out = sink(at(tcp), shared_key="k")
    with pytest.raises(SinkDown, match=r"no HELO within 0.1 s; a server without a shared key sends none"):
        out.send([lines(b"a")])
    out.close()


def test_a_server_that_asks_for_a_key_late_is_down(tcp: socket.socket) -> None:
    out = sink(at(tcp))
    out.send([lines(b"a")])
    peer = Peer(tcp)
    peer.socket.sendall(helo())
    with pytest.raises(SinkDown, match="it asks for a shared key, and neither fluentd-shared-key nor"):
        out.send([lines(b"b")])
    peer.socket.close()
    out.close()


def test_more_messages_than_a_window_are_answered_in_turn(
    tcp: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fluentd_sink, "_WINDOW", 3)
    out = sink(at(tcp), message_mode="message", request_ack="true")
    seen: list[list[bytes]] = []

    def serve() -> None:
        peer = Peer(tcp)
        for count in (3, 3, 1):
            messages = [peer.message() for _ in range(count)]
            peer.socket.setblocking(False)
            with pytest.raises(BlockingIOError):  # nothing more before the answers
                peer.socket.recv(1)
            peer.socket.settimeout(100)
            seen.append([message[2][b"log"] for message in messages])
            peer.socket.sendall(b"".join(ack(message[3][b"chunk"]) for message in messages))
        peer.socket.close()

    server = threading.Thread(target=serve)
    server.start()
    out.send([lines(b"1", b"2"), lines(b"3", b"4", b"5", b"6", b"7")])
    server.join()
    assert seen == [[b"1", b"2", b"3"], [b"4", b"5", b"6"], [b"7"]]
    out.close()


def test_what_was_acknowledged_of_a_batch_is_not_sent_again(
    tcp: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fluentd_sink, "_WINDOW", 3)
    out = sink(at(tcp), message_mode="message", request_ack="true")
    seen: list[list[bytes]] = []

    def serve(*counts: int) -> None:
        peer = Peer(tcp)
        for count in counts:
            messages = [peer.message() for _ in range(count)]
            seen.append([message[2][b"log"] for message in messages])
            peer.socket.sendall(b"".join(ack(message[3][b"chunk"]) for message in messages))
        peer.socket.close()

    batch = [lines(b"1", b"2"), lines(b"3", b"4")]
    for counts, blocks, works in (
        ((3,), batch, False),  # and closes with the last unanswered
        ((1, 1), [*batch, lines(b"5")], True),  # more came meanwhile
        ((3,), [lines(b"6"), *batch], False),  # another batch
        ((3, 3), [lines(b"7"), *batch, lines(b"8")], True),
    ):
        server = threading.Thread(target=serve, args=counts)
        server.start()
        if works:
            out.send(blocks)
        else:
            with pytest.raises(SinkDown):
                out.send(blocks)
        server.join()
    assert seen == [
        [b"1", b"2", b"3"],
        [b"4"],
        [b"5"],
        [b"6", b"1", b"2"],
        [b"7", b"1", b"2"],
        [b"3", b"4", b"8"],
    ]
    out.close()


def test_a_message_sent_again_keeps_its_id(tcp: socket.socket) -> None:
    out = sink(at(tcp), message_mode="message", request_ack="true", read_timeout="200ms")
    for _ in range(2):
        with pytest.raises(SinkDown, match="has not acknowledged 2 chunks"):
            out.send([lines(b"a", b"b")])
    peers = [Peer(tcp), Peer(tcp)]
    first, again = ([peer.message()[3][b"chunk"] for _ in range(2)] for peer in peers)
    assert first == again
    assert len(set(first)) == 2
    for peer in peers:
        peer.socket.close()
    out.close()


def test_deadlines_are_there_without_options() -> None:
    assert fluentd_sink.WRITE_SECONDS > 0
    assert fluentd_sink.READ_SECONDS > 0
