"""Names are resolved anew for every connection and by age, by every sink that goes over the network."""

from __future__ import annotations

import contextlib
import fcntl
import resource
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from logdrivers.block import Block, Encoding, Stream
from logdrivers.driver import Driver, Info, Sink, SinkDown
from logdrivers.fluentd import FluentdDriver
from logdrivers.gelf import GelfDriver
from logdrivers.sinks import dial
from logdrivers.sinks.dial import Dialer, readable, writable
from logdrivers.syslog import SyslogDriver


class Names:
    """A resolver that knows one name, whose addresses change; every other text is looked up as usual."""

    def __init__(self, *hosts: str) -> None:
        self.hosts = hosts
        self.lookups = 0
        self.fails = False
        self._real = socket.getaddrinfo

    def __call__(self, host: str, port: int, *, type: int = 0, flags: int = 0) -> list[Any]:
        if host != "sink.test":
            return list(self._real(host, port, type=type, flags=flags))
        if flags & socket.AI_NUMERICHOST or self.fails:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        self.lookups += 1
        return [found for name in self.hosts for found in self._real(name, port, type=type)]


def listener(host: str, port: int = 0) -> socket.socket:
    server = socket.create_server((host, port))
    server.settimeout(100)
    return server


@pytest.fixture
def two() -> Iterator[tuple[socket.socket, socket.socket, int]]:
    """Servers on one port of two addresses."""
    with listener("127.0.0.1") as first:
        port = first.getsockname()[1]
        with listener("127.0.0.2", port) as second:
            yield first, second, port


def peer(sock: socket.socket) -> str:
    host: str = sock.getpeername()[0]
    return host


def test_every_connection_asks_for_the_name_again(two: tuple[Any, Any, int]) -> None:
    names = Names("127.0.0.1")
    dialer = Dialer("sink.test", two[2], socket.SOCK_STREAM, 100.0, resolver=names)
    with dialer.connect() as sock:
        assert peer(sock) == "127.0.0.1"
    names.hosts = ("127.0.0.2",)
    with dialer.connect() as sock:
        assert peer(sock) == "127.0.0.2"
    assert names.lookups == 2


def test_addresses_are_tried_in_turn(two: tuple[Any, Any, int]) -> None:
    names = Names("127.0.0.9", "127.0.0.2")
    with Dialer("sink.test", two[2], socket.SOCK_STREAM, 100.0, resolver=names).connect() as sock:
        assert peer(sock) == "127.0.0.2"
    names.hosts = ("127.0.0.9",)
    with pytest.raises(SinkDown, match=rf"cannot connect to tcp://sink.test:{two[2]}: .*refused"):
        Dialer("sink.test", two[2], socket.SOCK_STREAM, 100.0, resolver=names).connect()


def test_an_address_that_does_not_answer_leaves_the_next_its_time() -> None:
    with contextlib.ExitStack() as stack:
        silent = stack.enter_context(socket.socket())
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        port = silent.getsockname()[1]
        for _ in range(2):  # its queue is full now: the kernel answers nobody more
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", port))
        stack.enter_context(listener("127.0.0.2", port))
        names = Names("127.0.0.1", "127.0.0.2")
        sock = stack.enter_context(
            Dialer("sink.test", port, socket.SOCK_STREAM, 10.0, resolver=names).connect()
        )
        assert peer(sock) == "127.0.0.2"


def test_a_connection_has_moved_when_its_address_is_no_longer_the_names(two: tuple[Any, Any, int]) -> None:
    names = Names("127.0.0.1")
    dialer = Dialer("sink.test", two[2], socket.SOCK_STREAM, 100.0, max_age_seconds=0.0, resolver=names)
    with dialer.connect() as sock:
        assert not dialer.moved(sock)
        names.hosts = ("127.0.0.2", "127.0.0.1")
        assert not dialer.moved(sock)
        names.fails = True
        assert not dialer.moved(sock)  # a resolver that is down is no reason to give a connection up
        names.fails = False
        names.hosts = ("127.0.0.2",)
        assert dialer.moved(sock)
    assert dialer.moved(sock)  # closed


def test_a_young_answer_is_not_asked_for_again(two: tuple[Any, Any, int]) -> None:
    names = Names("127.0.0.1")
    dialer = Dialer("sink.test", two[2], socket.SOCK_STREAM, 100.0, max_age_seconds=3600.0, resolver=names)
    with dialer.connect() as sock:
        names.hosts = ("127.0.0.2",)
        assert not dialer.moved(sock)
    assert names.lookups == 1


def test_a_name_that_cannot_be_resolved_is_named() -> None:
    names = Names()
    names.fails = True
    dialer = Dialer("sink.test", 1, socket.SOCK_STREAM, 100.0, resolver=names)
    with pytest.raises(SinkDown, match=r"cannot resolve sink.test: .*Name or service not known"):
        dialer.connect()
    names.fails = False
    with pytest.raises(SinkDown, match="the name has no address"):
        dialer.connect()


def test_a_resolver_that_hangs_costs_the_deadline() -> None:
    asked, over = threading.Event(), threading.Event()

    def hang(host: str, port: int, *, type: int = 0, flags: int = 0) -> list[Any]:
        if flags & socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "no number")
        asked.set()
        over.wait(30)
        return []

    with pytest.raises(SinkDown, match=r"cannot resolve sink.test: no answer within 0.1 s"):
        Dialer("sink.test", 1, socket.SOCK_STREAM, 0.1, resolver=hang).connect()
    assert asked.is_set()
    over.set()


# --- the sinks ---


def sink(driver: Driver, options: dict[str, str]) -> Sink:
    info = Info(
        "0123456789abcdef" * 4, "/web", "sha256:" + "fe" * 32, "shop/web", ("sh",), 0, Path("/nonexistent"), options
    )  # fmt: skip
    driver.validate(options)
    made = driver.sink(info)
    assert made is not None
    return made


def take_stream(server: socket.socket) -> bytes:
    connection, _ = server.accept()
    with connection:
        connection.settimeout(100)
        data = b""
        while b"line" not in data:
            data += connection.recv(65536)
        return data


@pytest.mark.parametrize(
    ("driver", "options"),
    [
        (FluentdDriver(), {"fluentd-address": "sink.test:{port}"}),
        (GelfDriver(), {"gelf-address": "tcp://sink.test:{port}"}),
        (SyslogDriver(), {"syslog-address": "tcp://sink.test:{port}"}),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_stream_sink_follows_its_name(
    two: tuple[socket.socket, socket.socket, int], monkeypatch: pytest.MonkeyPatch, driver: Driver,
    options: dict[str, str],
) -> None:  # fmt: skip
    check_follows(
        driver, options, two[2], monkeypatch, [lambda: take_stream(two[0]), lambda: take_stream(two[1])]
    )


@pytest.mark.parametrize(
    ("driver", "options"),
    [
        (GelfDriver(), {"gelf-address": "udp://sink.test:{port}", "gelf-compression-type": "none"}),
        (SyslogDriver(), {"syslog-address": "udp://sink.test:{port}"}),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_datagram_sink_follows_its_name(
    monkeypatch: pytest.MonkeyPatch, driver: Driver, options: dict[str, str]
) -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as first,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as second,
    ):
        first.bind(("127.0.0.1", 0))
        port = first.getsockname()[1]
        second.bind(("127.0.0.2", port))
        for sock in (first, second):
            sock.settimeout(100)
        takes = [lambda: first.recv(65536), lambda: second.recv(65536)]
        check_follows(driver, options, port, monkeypatch, takes)


def check_follows(
    driver: Driver,
    options: dict[str, str],
    port: int,
    monkeypatch: pytest.MonkeyPatch,
    takes: list[Callable[[], bytes]],
) -> None:
    names = Names("127.0.0.1")
    monkeypatch.setattr(dial.socket, "getaddrinfo", names)
    out: Any = sink(driver, {key: value.format(port=port) for key, value in options.items()})
    out._dialer._max_age = 0.0
    line = Block(b"a line\n", Encoding.LINES, Stream.STDOUT, 10**18, 10**18, 1)
    out.send([line])
    assert b"line" in takes[0]()
    names.hosts = ("127.0.0.2",)
    out.send([line])
    assert b"line" in takes[1]()
    out.close()


def test_a_process_with_thousands_of_descriptors_waits_for_its_sockets():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4096), hard))
    here, there = socket.socketpair()
    high = socket.socket(fileno=fcntl.fcntl(here.fileno(), fcntl.F_DUPFD_CLOEXEC, 3000))
    try:
        assert writable(high, 1.0)
        assert not readable(high, 0.0)
        there.send(b"x")
        assert readable(high, 1.0)
    finally:
        for sock in (here, there, high):
            sock.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
