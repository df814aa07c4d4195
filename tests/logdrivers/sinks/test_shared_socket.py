"""A sink's connection given up by one thread while another uses it: that one closes it, and soon."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from logdrivers.block import Block, Encoding, Stream
from logdrivers.driver import SinkDown
from logdrivers.sinks import shared_socket
from logdrivers.sinks.shared_socket import SharedSocket
from logdrivers.sinks.stream_sink import FrameSink
from logdrivers.sinks.tls import Tls


class Frames:
    """A megabyte for every block."""

    empty_lines = 0

    def frames(self, block: Block) -> bytes:
        return block.data * (1 << 20)


BLOCK = Block(b"x", Encoding.LINES, Stream.STDOUT, 1, 1, 1)


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


@pytest.fixture
def closers(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The threads that closed sockets."""
    threads: list[int] = []
    close = shared_socket._close

    def noted(sock: socket.socket) -> None:
        threads.append(threading.get_ident())
        close(sock)

    monkeypatch.setattr(shared_socket, "_close", noted)
    return threads


def tls_sink(server: socket.socket, certificate: Path) -> FrameSink:
    tls = Tls(ca_cert=str(certificate / "cert.pem"))
    return FrameSink("127.0.0.1", server.getsockname()[1], Frames(), 60.0, 60.0, tls=tls)


def sending(sink: FrameSink, count: int = 64) -> tuple[threading.Thread, list[str]]:
    why: list[str] = []

    def send() -> None:
        try:
            sink.send([BLOCK] * count)
        except SinkDown as error:
            why.append(str(error))

    thread = threading.Thread(target=send)
    thread.start()
    return thread, why


def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 100
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def accept_tls(server: socket.socket, certificate: Path) -> ssl.SSLSocket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    return context.wrap_socket(server.accept()[0], server_side=True)


def test_a_hung_tls_sink_is_closed_by_the_thread_that_sends(
    server: socket.socket, certificate: Path, closers: list[int]
) -> None:
    sink = tls_sink(server, certificate)
    thread, why = sending(sink)
    with accept_tls(server, certificate):  # and reads nothing
        eventually(lambda: sink._sock is not None)
        sink.close()
        thread.join(100)
    assert not thread.is_alive()
    assert len(why) == 1
    assert closers == [thread.ident]
    sink.close()
    assert len(closers) == 1


def test_a_handshake_that_hangs_is_given_up(server: socket.socket, certificate: Path) -> None:
    sink = tls_sink(server, certificate)
    thread, why = sending(sink)
    with server.accept()[0] as silent:
        silent.recv(1)  # its hello has come
        sink.close()
        thread.join(100)
    assert not thread.is_alive()
    assert len(why) == 1
    assert sink._sock is None


def test_given_up_at_any_moment_and_used_again(server: socket.socket, certificate: Path) -> None:
    def serve() -> None:
        for _ in range(15):
            try:
                with accept_tls(server, certificate) as taken:
                    while taken.recv(1 << 16):
                        pass
            except OSError:
                continue

    serving = threading.Thread(target=serve, daemon=True)
    serving.start()
    sink = tls_sink(server, certificate)
    for number in range(15):
        thread, _ = sending(sink, 8)
        thread.join(number * 0.004)
        sink.close()
        thread.join(100)
        assert not thread.is_alive()
    sink.close()


def test_a_connection_given_up_while_it_was_made_is_not_kept() -> None:
    shared = SharedSocket()
    ours, theirs = socket.socketpair()
    with theirs:
        with shared.used():
            shared.connecting(ours)
            other = threading.Thread(target=shared.give_up)
            other.start()
            other.join()
            assert ours.recv(1) == b"", "nothing more is waited for"
            with pytest.raises(OSError, match="given up meanwhile"):
                shared.connected(ours)
        assert ours.fileno() == -1
        assert shared.sock is None
    with shared.used():  # the next attempt is another one
        ours, theirs = socket.socketpair()
        shared.connecting(ours)
        shared.connected(ours)
        assert shared.sock is ours
    shared.give_up()
    theirs.close()
    assert ours.fileno() == -1
