"""What every driver with a sink promises, whatever the sink does: nothing waits, nothing is lost uncounted.

A protocol is a row of ``PROTOCOLS`` in ``faulty_sink.py``; each fault hits each protocol it can hit. While it
lasts lines are written, and the writer is never held up; when it is over the sink takes what it had not,
and written = delivered + held + dropped, with nothing held and nothing dropped.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import faulty_sink
import pytest
from faulty_sink import DEADLINE_SECONDS, PROTOCOLS, UNIX, Protocol, Server, reset
from held_port import hold_port
from line_receiver import Receiver

from logdrivers import delivery
from logdrivers.block import Block, Encoding, Stream
from logdrivers.delivery import STATE_NAME, Counters, Delivery, read_counters
from logdrivers.driver import Info
from logdrivers.journal import Entry, Mark
from logdrivers.journald import JournaldDriver

NS = 1_795_203_812_000_000_000
LINES_A_BLOCK = 50
TEXT = " some text, so that a batch is more than the buffers of a connection hold" * 4

Wait = Callable[[Callable[[], object], str], None]


class Container:
    """A journal that is written to, and its delivery: what a shim has of them."""

    def __init__(self, protocol: Protocol, address: str, directory: Path) -> None:
        self.directory = directory
        driver = protocol.driver(address)
        options = protocol.options(address)
        info = Info("c0ffee" + "0" * 58, "/x", "sha256:1", "i", ("sh",), 0, directory, options=options)
        driver.validate(options)
        directory.mkdir()
        if isinstance(driver, JournaldDriver):
            # Docker refuses containers without journald; lines that are there already wait for it.
            (directory / "journal").mkdir()
            (directory / "journal" / "00000001.seg").touch()
        self.journal = driver.journal(info)
        sink, reader = driver.sink(info), driver.reader(info)
        assert sink is not None
        assert reader is not None
        self._delivery = Delivery(reader, sink, directory / STATE_NAME, "test")
        self._delivery.start()
        self.written = 0

    def write(self, lines: int) -> None:
        """Returns when the lines are in the journal, whatever the sink does."""
        for first in range(self.written, self.written + lines, LINES_A_BLOCK):
            texts = [b"o%d,%s\n" % (n + 1, TEXT.encode()) for n in range(first, first + LINES_A_BLOCK)]
            block = Block(b"".join(texts), Encoding.LINES, Stream.STDOUT, NS + first, NS + first, len(texts))
            end = self.journal.append(block, Mark(first + len(texts), 0))
            self._delivery.offer(Entry(block, end, first))
            self.written = first + len(texts)

    def counters(self) -> Counters:
        """As any process sees them."""
        found = read_counters(self.directory / STATE_NAME)
        assert found is not None
        assert found.written == found.delivered + found.held + sum(found.dropped.values())
        assert found.held >= 0
        return found

    def everything_taken(self) -> bool:
        return self.counters().held == 0

    def close(self) -> None:
        self._delivery.stop()
        self.journal.close()


def set_deadline(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """For whatever is waited for of a sink; before the container begins."""
    monkeypatch.setattr(faulty_sink, "DEADLINE_SECONDS", seconds)  # what the options say
    for module in [module for name, module in sys.modules.items() if name.startswith("logdrivers.")]:
        for name in ("_CONNECT_SECONDS", "_WRITE_SECONDS"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, seconds)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    set_deadline(monkeypatch, DEADLINE_SECONDS)
    monkeypatch.setattr(delivery, "_LONGEST_PAUSE", 0.1)


@pytest.fixture
def directory() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="tc", dir="/tmp"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def wait() -> Wait:
    def wait(condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + 120
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain for {what}"
            time.sleep(0.005)

    return wait


@dataclass
class Case:
    """One sink and one container that writes to it."""

    server: Server
    directory: Path
    wait: Wait
    container: Container | None = None

    def begin(self) -> Container:
        self.container = Container(self.server.protocol, self.server.address, self.directory / "c")
        return self.container


@pytest.fixture
def case(protocol: Protocol, directory: Path, wait: Wait) -> Iterator[Case]:
    made = Case(Server(protocol, directory), directory, wait)
    yield made
    if made.container is not None:
        made.container.close()
    made.server.close()


def of(wanted: Callable[[Protocol], bool] = lambda _: True) -> pytest.MarkDecorator:
    """The protocols that a fault can hit."""
    chosen = {name: protocol for name, protocol in PROTOCOLS.items() if wanted(protocol)}
    return pytest.mark.parametrize("protocol", chosen.values(), ids=chosen.keys())


STREAMS = of(lambda protocol: protocol.stream)
WAITING = of(lambda protocol: not protocol.udp)  #: those that can tell that nobody reads


def all_arrive(case: Case, first: int = 1) -> None:
    """At the end: everything counted, every line from ``first`` on received, in order but for repeats."""
    container = case.container
    assert container is not None
    case.wait(container.everything_taken, "the sink to take everything")
    assert container.counters() == Counters(container.written, container.written)
    wanted = set(range(first, container.written + 1))
    case.wait(lambda: set(case.server.marks()) >= wanted, f"lines {first} to {container.written}")


@of()
def test_a_sink_that_is_well_gets_every_line_once(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    set_deadline(monkeypatch, 60.0)  # on a busy host, too
    case.server.open()
    case.begin().write(5000)
    all_arrive(case)
    assert case.server.marks() == list(range(1, 5001))


@of()
def test_a_sink_that_is_down_at_start_gets_everything_when_it_comes(case: Case) -> None:
    container = case.begin()
    container.write(3000)
    case.wait(lambda: not container.counters().sink_up, "the sink to be found down")
    assert container.counters().last_error
    container.write(2000)
    assert (container.counters().delivered, container.counters().held) == (0, 5000)
    case.server.open()
    all_arrive(case)
    assert container.counters().sink_up


@WAITING
def test_a_sink_that_never_reads_costs_nothing_and_gets_everything_when_it_does(case: Case) -> None:
    def hang(sock: socket.socket) -> None:
        case.server.go_on.wait()
        if case.server.protocol.stream:
            case.server.serve(sock)

    # Every connection made meanwhile hangs as well.
    case.server.open(*[hang] * (1000 if case.server.protocol.stream else 1))
    container = case.begin()
    container.write(5000)
    case.wait(lambda: not container.counters().sink_up, "the sink to be found hanging")
    container.write(5000)
    assert container.counters().held > 0
    case.server.behaviours.clear()
    case.server.go_on.set()
    all_arrive(case)


@of(lambda protocol: protocol.acknowledged)
def test_a_sink_that_never_acknowledges_has_taken_nothing(case: Case) -> None:
    def swallow(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while connection.recv(1 << 16):
                pass

    case.server.open(*[swallow] * 1000)
    container = case.begin()
    container.write(3000)
    case.wait(lambda: case.server.accepted >= 3, "the batch to be sent again and again")
    assert (container.counters().delivered, container.counters().held) == (0, 3000)
    case.server.behaviours.clear()
    all_arrive(case)


@STREAMS
def test_a_sink_that_closes_its_side_is_connected_to_anew(case: Case) -> None:
    def close_half(connection: socket.socket) -> None:
        connection.shutdown(socket.SHUT_WR)
        case.server.serve(connection)

    case.server.open(*[close_half] * 3)
    container = case.begin()
    for _ in range(10):
        container.write(500)
        case.wait(container.everything_taken, "the sink to take what was written")
    all_arrive(case)
    assert case.server.accepted >= 4


@STREAMS
def test_a_reset_in_the_middle_costs_only_what_had_been_taken(case: Case) -> None:
    def break_off(connection: socket.socket) -> None:
        left = 30_000
        while left > 0 and (data := connection.recv(left)):
            left -= len(data)
        reset(connection)

    case.server.open(*[break_off] * 5)
    container = case.begin()
    container.write(2000)
    case.wait(lambda: case.server.accepted >= 6, "five resets")
    container.write(2000)
    # Without acknowledgement, what the server's host took before the reset is with the server's host.
    taken = container.counters().delivered
    all_arrive(case, 1 if case.server.protocol.acknowledged else min(taken, 2000) + 1)
    if case.server.protocol.acknowledged:
        assert set(case.server.marks()) == set(range(1, 4001))


@STREAMS
def test_a_slow_sink_is_no_dead_one(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    deadline = 2.0  # all of it takes longer, no single read does on a host that is busy
    set_deadline(monkeypatch, deadline)

    def slowly(connection: socket.socket) -> None:
        assert case.server.protocol.decoder is not None
        decoder = case.server.protocol.decoder()
        with contextlib.suppress(OSError):
            while data := connection.recv(4096):
                time.sleep(0.008)
                messages, answer = decoder.take(data)
                case.server.received += messages
                if answer:
                    connection.sendall(answer)

    case.server.open(*[slowly] * 1000)
    container = case.begin()
    begun = time.monotonic()
    container.write(4000)
    all_arrive(case)
    assert time.monotonic() - begun > deadline
    assert case.server.accepted == 1
    assert case.server.marks() == list(range(1, 4001))


@of()
def test_a_sink_that_goes_away_gets_the_rest_when_it_is_back(case: Case) -> None:
    case.server.open()
    container = case.begin()
    container.write(2000)
    case.wait(lambda: len(set(case.server.marks())) == 2000, "the first lines")
    case.wait(container.everything_taken, "their being counted")
    for round_ in range(1, 4):
        case.server.down()
        container.write(1000)
        case.wait(lambda: not container.counters().sink_up, "the sink to be found down")
        assert container.counters().held > 0
        case.server.open()
        wanted = set(range(1, 2001 + 1000 * round_))
        case.wait(lambda wanted=wanted: set(case.server.marks()) == wanted, "the rest")
        case.wait(container.everything_taken, "its being counted")
    all_arrive(case)


@pytest.fixture
def held() -> Iterator[socket.socket]:
    """A port for a server that is told its own."""
    with hold_port() as made:
        yield made


STOPPABLE = {
    "gelf-tcp": "gelf",
    "fluentd": "fluentd",
    "fluentd-ack": "fluentd",
    "syslog-tcp": "syslog",
    "syslog-unixgram": "datagrams",
    "journald": "datagrams",
}


@pytest.mark.parametrize("name", STOPPABLE)
def test_a_stopped_process_gets_everything_when_it_goes_on(
    request: pytest.FixtureRequest, name: str, directory: Path, wait: Wait
) -> None:
    protocol = PROTOCOLS[name]
    if protocol.family is UNIX:
        address = str(directory / "sink")
    else:
        held = request.getfixturevalue("held")
        address = f"127.0.0.1:{held.getsockname()[1]}"
    receiver = Receiver(STOPPABLE[name], address, directory / "received")
    receiver.start()
    container = Container(protocol, address, directory / "c")
    try:
        container.write(500)
        wait(container.everything_taken, "the sink to take the first lines")
        receiver.stop(0.0)
        container.write(5000)
        wait(lambda: not container.counters().sink_up, "the sink to be found hanging")
        container.write(500)
        assert container.counters().held > 0
        receiver.go_on()
        wait(container.everything_taken, "the sink to take everything")
        assert container.counters() == Counters(6000, 6000)
        wanted = {("o", n + 1, 0) for n in range(6000)}
        wait(lambda: set(receiver.incarnations()[0]) >= wanted, "the lines to be received")
    finally:
        container.close()
        receiver.end()
