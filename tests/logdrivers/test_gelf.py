"""The gelf driver's sinks over UDP, TCP and TLS under every fault a receiver can have."""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from faulty_sink import udp_port
from held_port import hold_port

from logdrivers.block import Block, Encoding, Stream
from logdrivers.driver import Info, Rejected, Sink, SinkDown
from logdrivers.gelf import GelfDriver
from logdrivers.sinks import dial
from logdrivers.sinks import gelf as gelf_sinks


def sink(address: str, **options: str) -> Sink:
    info = Info(
        "0123456789abcdef" * 4,
        "/web",
        "sha256:" + "fe" * 32,
        "shop/web",
        ("sh",),
        0,
        Path("/nonexistent"),
        {"gelf-address": address, **{k.replace("_", "-"): v for k, v in options.items()}},
        hostname="host-7",
    )
    made = GelfDriver().sink(info)
    assert made is not None
    return made


def lines(*texts: bytes) -> Block:
    data = b"".join(text + b"\n" for text in texts)
    return Block(data, Encoding.LINES, Stream.STDOUT, 10**18, 10**18, len(texts))


@pytest.fixture
def udp() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(100)
        yield receiver


@pytest.fixture
def tcp() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(100)
        yield server


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> float:
    """Deadlines short enough to wait for."""
    for name in ("_CONNECT_SECONDS", "_WRITE_SECONDS"):
        monkeypatch.setattr(gelf_sinks, name, 0.3)
    return 9.0  # below what they are otherwise


def url(scheme: str, server: socket.socket) -> str:
    return f"{scheme}://127.0.0.1:{server.getsockname()[1]}"


def received(connection: socket.socket, count: int) -> list[str]:
    """The texts of the next ``count`` frames."""
    data = bytearray()
    connection.settimeout(100)
    while count > 0:
        piece = connection.recv(1 << 18)
        assert piece, data
        data += piece
        count -= piece.count(b"\0")
    return [json.loads(frame)["short_message"] for frame in data.split(b"\0")[:-1]]


def test_datagrams_arrive_in_order_below_the_rate(udp: socket.socket) -> None:
    out = sink(url("udp", udp), gelf_udp_rate="2000")
    start = time.monotonic()
    out.send([lines(*(b"%d" % i for i in range(150))), lines(b"last")])
    took = time.monotonic() - start
    texts = [json.loads(zlib.decompress(udp.recv(65536), 31))["short_message"] for _ in range(151)]
    assert texts == [*map(str, range(150)), "last"]
    assert took >= 2 * 64 / 2000  # the third burst of 64 waits for the two before it
    out.close()


def test_a_message_beyond_128_chunks_is_rejected_and_the_rest_arrives(udp: socket.socket) -> None:
    out = sink(url("udp", udp), gelf_compression_type="none")
    with pytest.raises(Rejected) as caught:
        out.send([lines(b"a", b"x" * 200_000, b"b", b"")])
    assert caught.value.causes == {"too_large": 1, "empty_line": 1}
    assert [json.loads(udp.recv(65536))["short_message"] for _ in range(2)] == ["a", "b"]
    out.close()


@pytest.mark.parametrize("scheme", ["udp", "tcp"])
def test_empty_lines_are_counted_as_dropped(udp: socket.socket, tcp: socket.socket, scheme: str) -> None:
    out = sink(url(scheme, udp if scheme == "udp" else tcp), **uncompressed(scheme))
    with pytest.raises(Rejected) as caught:
        out.send([lines(b"", b"a", b"")])
    assert caught.value.causes == {"empty_line": 2}
    assert texts_at(udp if scheme == "udp" else tcp, scheme, 1) == ["a"]
    out.close()


@pytest.mark.parametrize("scheme", ["udp", "tcp"])
def test_lines_without_text_need_no_receiver(scheme: str) -> None:
    out = sink(f"{scheme}://127.0.0.1:1")
    with pytest.raises(Rejected) as caught:
        out.send([lines(b"", b"")])
    assert caught.value.causes == {"empty_line": 2}
    with pytest.raises(SinkDown):
        out.send([lines(b"", b"a", b"")])


def uncompressed(scheme: str) -> dict[str, str]:
    return {"gelf_compression_type": "none"} if scheme == "udp" else {}


def test_a_closed_udp_port_is_a_sink_that_is_down_from_the_first_datagram() -> None:
    port = udp_port()
    out = sink(f"udp://127.0.0.1:{port}")
    for _ in range(2):
        with pytest.raises(SinkDown, match=f"127.0.0.1:{port}.*nobody takes datagrams"):
            out.send([lines(b"a")])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as back:
        back.bind(("127.0.0.1", port))
        back.settimeout(100)
        out.send([lines(b"again")])
        assert json.loads(zlib.decompress(back.recv(65536), 31))["short_message"] == "again"
    out.close()


def test_a_batch_is_one_stream_of_frames(tcp: socket.socket) -> None:
    out = sink(url("tcp", tcp))
    out.send([lines(b"a", b"b"), lines(b"c")])
    connection, _ = tcp.accept()
    with connection:
        assert received(connection, 3) == ["a", "b", "c"]
        out.send([lines(b"d")])
        assert received(connection, 1) == ["d"]
    out.close()


def test_a_refused_connection_is_a_sink_that_is_down_and_comes_back() -> None:
    with hold_port() as back:
        out = sink(url("tcp", back))
        port = back.getsockname()[1]
        with pytest.raises(SinkDown, match=rf"cannot connect to tcp://127.0.0.1:{port}: .*refused"):
            out.send([lines(b"a")])
        back.listen()
        back.settimeout(100)
        out.send([lines(b"a")])
        connection, _ = back.accept()
        with connection:
            assert received(connection, 1) == ["a"]
    out.close()


def test_a_receiver_that_never_reads_costs_the_deadline_and_no_more(
    tcp: socket.socket, impatient: float
) -> None:
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    out = sink(url("tcp", tcp))
    start = time.monotonic()
    with pytest.raises(SinkDown):
        out.send([lines(*[b"x" * 1000] * 20_000)])
    assert time.monotonic() - start < impatient
    out.close()


def test_bytes_left_in_our_own_buffer_are_not_sent(tcp: socket.socket, impatient: float) -> None:
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    out = sink(url("tcp", tcp))
    with pytest.raises(SinkDown, match="not taken within"):
        out.send([lines(*[b"x" * 1000] * 20)])  # fits into the sender's buffer, not into the receiver's
    out.close()


@pytest.mark.parametrize("how", ["close", "half-close", "reset"])
def test_a_closed_connection_is_noticed_before_the_next_batch(tcp: socket.socket, how: str) -> None:
    out = sink(url("tcp", tcp))
    out.send([lines(b"a")])
    first, _ = tcp.accept()
    assert received(first, 1) == ["a"]
    if how == "half-close":
        first.shutdown(socket.SHUT_WR)
    else:
        if how == "reset":
            first.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        first.close()
    out.send([lines(b"b")])
    second, _ = tcp.accept()
    with second:
        assert received(second, 1) == ["b"]
    first.close()
    out.close()


def test_a_connection_that_dies_during_a_write_is_down_and_the_batch_can_be_sent_again(
    tcp: socket.socket,
) -> None:
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    out = sink(url("tcp", tcp))
    batch = [lines(*[b"x" * 1000] * 20_000)]

    def kill() -> None:
        connection, _ = tcp.accept()
        connection.recv(1000)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(SinkDown):
        out.send(batch)
    killer.join()
    again: list[list[str]] = []

    def take() -> None:
        connection, _ = tcp.accept()
        with connection:
            again.append(received(connection, 20_000))

    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    taker = threading.Thread(target=take)
    taker.start()
    out.send(batch)
    taker.join()
    assert again == [["x" * 1000] * 20_000]
    out.close()


@pytest.mark.parametrize("scheme", ["tls", "tcp+tls"])
def test_frames_go_through_tls_to_a_server_that_is_trusted(
    tcp: socket.socket, certificate: Path, scheme: str
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    found: list[list[str]] = []

    def serve() -> None:
        for _ in range(2):
            sock, _ = tcp.accept()
            try:
                connection = context.wrap_socket(sock, server_side=True)
            except OSError:  # it does not trust us
                sock.close()
                continue
            with connection:
                found.append(received(connection, 3))

    server = threading.Thread(target=serve)
    server.start()
    out = sink(url(scheme, tcp))
    with pytest.raises(SinkDown, match="certificate verify failed"):
        out.send([lines(b"a")])
    out = sink(url(scheme, tcp), gelf_tls_ca_cert=str(certificate / "cert.pem"))
    out.send([lines(b"a", b"b"), lines(b"c")])
    server.join(100)
    assert found == [["a", "b", "c"]]
    out.close()


# --- names ---


NO_ADDRESS = ""


class Names:
    """Stands in for the resolver: names to ports on this host."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.addresses: dict[str, str] = {}
        self.lookups = 0
        self.blocked = threading.Event()
        self.blocked.set()
        real = socket.getaddrinfo

        def getaddrinfo(host: str, port: int, **hints: int) -> object:
            if host not in self.addresses or hints.get("flags"):
                return real(host, port, **hints)  # type: ignore[arg-type]
            self.lookups += 1
            self.blocked.wait(100)
            if self.addresses[host] == NO_ADDRESS:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            return real(self.addresses[host], port, **hints)  # type: ignore[arg-type]

        monkeypatch.setattr(dial.socket, "getaddrinfo", getaddrinfo)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    return Names(monkeypatch)


@pytest.mark.parametrize("scheme", ["tcp", "udp"])
def test_a_name_that_moves_is_followed(names: Names, scheme: str) -> None:
    kind = socket.SOCK_STREAM if scheme == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as old, socket.socket(socket.AF_INET, kind) as new:
        old.bind(("127.0.0.1", 0))
        new.bind(("127.0.0.2", old.getsockname()[1]))
        for server in (old, new):
            server.settimeout(100)
            if scheme == "tcp":
                server.listen()
        names.addresses["graylog.test"] = "127.0.0.1"
        out = sink(
            f"{scheme}://graylog.test:{old.getsockname()[1]}",
            **uncompressed(scheme),
        )
        out.send([lines(b"a")])
        looked_up = names.lookups
        names.addresses["graylog.test"] = "127.0.0.2"
        out.send([lines(b"b")])
        assert names.lookups == looked_up  # not old enough yet
        out._dialer._resolved_seconds -= 61  # type: ignore[attr-defined]
        out.send([lines(b"c")])
        assert texts_at(old, scheme, 2) == ["a", "b"]
        assert texts_at(new, scheme, 1) == ["c"]
        out.close()


def texts_at(server: socket.socket, scheme: str, count: int) -> list[str]:
    if scheme == "udp":
        return [json.loads(server.recv(65536))["short_message"] for _ in range(count)]
    connection, _ = server.accept()
    with connection:
        return received(connection, count)


def test_a_name_that_fails_to_resolve_leaves_a_good_connection_alone(
    names: Names, tcp: socket.socket
) -> None:
    names.addresses["graylog.test"] = "127.0.0.1"
    out = sink(f"tcp://graylog.test:{tcp.getsockname()[1]}")
    out.send([lines(b"a")])
    names.addresses["graylog.test"] = NO_ADDRESS
    out._dialer._resolved_seconds -= 61  # type: ignore[attr-defined]
    out.send([lines(b"b")])
    assert texts_at(tcp, "tcp", 2) == ["a", "b"]
    out.close()


def test_a_resolver_that_hangs_costs_the_deadline_and_no_more(names: Names, impatient: float) -> None:
    names.addresses["graylog.test"] = "127.0.0.1"
    names.blocked.clear()
    out = sink("tcp://graylog.test:1")
    start = time.monotonic()
    with pytest.raises(SinkDown, match=r"cannot resolve graylog.test: no answer within 0.3 s"):
        out.send([lines(b"a")])
    assert time.monotonic() - start < impatient
    names.blocked.set()
    out.close()
