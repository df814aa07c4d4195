"""Journals of removed containers are kept until they are delivered, through kills and full disks."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from logdrivers.block import Block, Encoding, Stream
from logdrivers.delivery import STATE_NAME
from logdrivers.driver import Info
from logdrivers.journal import Mark, Position
from logdrivers.journals.reader_cursors import COLLECTOR, DELIVERY, ReaderCursor, cursors
from logdrivers.registry import get
from logdrivers.statefile import StateFile
from runtime import remainders as module
from runtime.remainders import Remainders, has_journal, held_lines

ID = "ab" * 32


class Sink:
    """A TCP port that refuses until ``open``, then keeps what comes; it does not read while ``slow`` is set."""

    def __init__(self) -> None:
        self.slow = False
        self.taken = 0  #: connections
        self._socket = socket.socket()
        # What is not read is not taken.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
        self._socket.bind(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._socket.getsockname()[1]}"
        self.data = bytearray()

    def open(self) -> None:
        self._socket.listen()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # closed
            connection, _ = self._socket.accept()
            self.taken += 1
            with connection:
                while self.slow:
                    time.sleep(0.01)
                while data := connection.recv(1 << 16):
                    self.data += data

    def lines(self) -> int:
        return self.data.count(b'"short_message"')

    def close(self) -> None:
        with contextlib.suppress(OSError):  # nobody waits
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@pytest.fixture
def sink() -> Iterator[Sink]:
    made = Sink()
    yield made
    made.close()


@pytest.fixture
def remainders(tmp_path: Path) -> Iterator[Remainders]:
    made = Remainders(tmp_path / "undelivered")
    yield made
    made.close()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 100
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.02)


def ended(directory: Path, sink: Sink) -> Info:
    """A container that has ended with ten lines in its journal, of which no delivery knows."""
    directory.mkdir()
    options = {"gelf-address": sink.address, "gelf-tcp-max-reconnect": "1", "gelf-tcp-reconnect-delay": "1"}
    info = Info(ID, "/web", "", "image", ("sh",), 0, directory, options)
    journal = get("gelf").journal(info)
    journal.append(Block(b"line\n" * 10, Encoding.LINES, Stream.STDOUT, 1, 1, 10), Mark(50, 0))
    journal.close()
    return info


def test_a_delivery_that_never_began_is_begun_after_the_container(
    tmp_path: Path, sink: Sink, remainders: Remainders
) -> None:
    info = ended(tmp_path / "c", sink)
    assert has_journal(info.directory)
    assert not (info.directory / STATE_NAME).exists()
    sink.open()
    remainders.bury("gelf", info)
    remainders.start()
    until(lambda: sink.lines() == 10)
    until(lambda: not (remainders.directory / ID).exists())


@pytest.mark.parametrize("end", ["take", "bury"])
def test_lines_that_no_delivery_heard_of_are_delivered_too(
    tmp_path: Path, sink: Sink, remainders: Remainders, end: str
) -> None:
    info = ended(tmp_path / "c", sink)
    sink.open()
    first = Remainders(tmp_path / "first")
    first.start()
    first.take("gelf", info)
    until(lambda: sink.lines() == 10)
    first.close()
    journal = get("gelf").journal(info)  # as the line for a gap is, or those of a shim that was killed
    journal.append(Block(b"gap\n", Encoding.LINES, Stream.STDERR, 1, 1, 1), Mark(50, 0))
    journal.close()
    sink.open()
    getattr(remainders, end)("gelf", info)
    until(lambda: sink.lines() == 11)


def test_a_state_file_of_the_version_before_keeps_nobody_from_removing_the_container(
    tmp_path: Path, sink: Sink, remainders: Remainders
) -> None:
    info = ended(tmp_path / "c", sink)
    before = StateFile(info.directory / STATE_NAME, "5QB119s" + "24sQ" * 8)
    before.write(0, 0, 0, 10, 0, False, b"refused", *[b"", 0] * 8)
    before.close()
    sink.open()
    remainders.bury("gelf", info)
    remainders.start()
    until(lambda: sink.lines() == 10)
    until(lambda: not (remainders.directory / ID).exists())


def test_a_damaged_state_file_keeps_nobody_from_removing_the_container(
    tmp_path: Path, sink: Sink, remainders: Remainders
) -> None:
    info = ended(tmp_path / "c", sink)
    cursor = ReaderCursor(info.directory / "journal", DELIVERY)
    cursor.move(Position(1, 1 << 8), 1)
    cursor.close()
    (info.directory / STATE_NAME).write_bytes(b"nonsense" * 100)
    sink.open()
    remainders.bury("gelf", info)
    remainders.start()
    until(lambda: not (remainders.directory / ID).exists())


def test_the_buried_journal_waits_for_its_sink_alone(
    tmp_path: Path, sink: Sink, remainders: Remainders
) -> None:
    info = ended(tmp_path / "c", sink)
    ReaderCursor(info.directory / "journal", COLLECTOR).close()
    remainders.bury("gelf", info)
    assert [one.name for one in cursors(remainders.directory / ID / "journal")] == [DELIVERY]
    assert held_lines(remainders.directory) == 10
    assert not has_journal(info.directory)


def test_a_burial_neither_waits_for_a_slow_sink_nor_cuts_off_what_it_is_taking(
    tmp_path: Path, sink: Sink, remainders: Remainders
) -> None:
    info = ended(tmp_path / "c", sink)
    journal = get("gelf").journal(info)
    for number in range(1, 6):  # one batch, of 20 MB on its way
        journal.append(
            Block(b"line\n" * 10_000, Encoding.LINES, Stream.STDOUT, 1, 1, 10_000),
            Mark(50 + number * 50_000, 0),
        )
    journal.close()
    sink.slow = True
    sink.open()
    remainders.start()
    remainders.take("gelf", info)
    until(lambda: sink.taken == 1)
    remainders.bury("gelf", info)
    assert not sink.data
    assert not has_journal(info.directory)
    assert not remainders._remainders, "the next delivery waits for the first's batch"
    sink.slow = False
    until(lambda: not remainders._successors)
    sink.open()  # for the next delivery
    until(lambda: not (remainders.directory / ID).exists())
    until(lambda: sink.lines() >= 50_010)
    assert sink.lines() == 50_010


@pytest.fixture
def shim() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection as an engine of a thousand containers has it, with a large descriptor, and the shim's end."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limits[0], 4096), limits[1]))
    low, end = socket.socketpair()
    with low, end:
        high = socket.socket(fileno=fcntl.fcntl(low.fileno(), fcntl.F_DUPFD_CLOEXEC, 3000))
        low.close()
        high.setblocking(False)
        with high:
            yield high, end
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_burial_waits_for_a_shim_whose_connection_has_a_large_descriptor(
    tmp_path: Path,
    sink: Sink,
    remainders: Remainders,
    shim: tuple[socket.socket, socket.socket],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_CHECK_SECONDS", 0.01)
    monkeypatch.setattr(module, "_BATCH_SECONDS", 1000.0)
    connection, end = shim
    sink.open()
    remainders.start()
    remainders.bury("gelf", ended(tmp_path / "c", sink), connection)
    end.sendall(b'{"event":"passed over"}\n')
    assert list(remainders._successors) == [ID]
    assert not sink.taken
    end.close()
    until(lambda: sink.lines() == 10)
    until(lambda: not (remainders.directory / ID).exists())


def test_a_journal_that_is_delivered_while_the_budget_is_counted_keeps_nobody_from_removing_a_container(
    tmp_path: Path, sink: Sink, remainders: Remainders, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivered = remainders.directory / "cd"
    delivered.mkdir()
    (delivered / "remainder.json.new").write_bytes(b"{}")
    real = Path.is_dir

    def is_dir(path: Path) -> bool:
        found = real(path)
        if path == delivered:
            shutil.rmtree(delivered)
        return found

    monkeypatch.setattr(Path, "is_dir", is_dir)
    remainders.bury("gelf", ended(tmp_path / "c", sink))
    assert not delivered.exists()
    assert held_lines(remainders.directory) == 10


def test_nothing_is_begun_after_the_end(tmp_path: Path, sink: Sink, remainders: Remainders) -> None:
    info = ended(tmp_path / "c", sink)
    remainders.start()
    remainders.close()
    sink.open()
    before = set(threading.enumerate())
    remainders.take("gelf", info)
    assert not remainders._remainders
    begun = {thread for thread in threading.enumerate() if thread.name.startswith("delivery ")}
    assert begun <= before


@pytest.mark.parametrize("step", range(1, 5))
def test_a_burial_killed_at_any_step_is_gone_on_with(
    tmp_path: Path, sink: Sink, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = ended(tmp_path / "c", sink)
    first = Remainders(tmp_path / "undelivered")
    first.take("gelf", info)  # makes a state file
    steps = [0]

    class Killed(BaseException):
        pass

    def count(real: Callable[..., object]) -> Callable[..., object]:
        def counted(*args: object, **named: object) -> object:
            steps[0] += 1
            if steps[0] == step:
                raise Killed
            return real(*args, **named)

        return counted

    with monkeypatch.context() as patch:
        for name in ("rename", "replace", "write_bytes"):
            patch.setattr(Path, name, count(getattr(Path, name)))
        with pytest.raises(Killed):
            first.bury("gelf", info)
    first.close()

    second = Remainders(tmp_path / "undelivered")
    second.start()
    assert second._remainders == {}  # not before the burial is complete
    second.bury("gelf", info)
    assert held_lines(second.directory) == 10
    sink.open()
    until(lambda: sink.lines() == 10)
    until(lambda: not (second.directory / ID).exists())
    second.close()
    assert sink.lines() == 10


def test_a_delivery_that_a_full_disk_refuses_is_tried_again(
    tmp_path: Path, sink: Sink, remainders: Remainders, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals = [1, 2]
    real = module.Delivery

    def refuse(*args: object) -> object:
        if refusals:
            refusals.pop()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "Delivery", refuse)
    monkeypatch.setattr(module, "_CHECK_SECONDS", 0.01)
    remainders.start()
    sink.open()
    remainders.bury("gelf", ended(tmp_path / "c", sink))
    until(lambda: sink.lines() == 10)
    assert not refusals
