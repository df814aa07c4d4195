"""All journals of an engine keep to one limit; what that costs is counted, and told in its place."""

import contextlib
import json
import math
import socket
import threading
from collections.abc import Iterator

import pytest
from engine_process import IMAGE, EngineProcess, running_engine, until

from logdrivers.delivery import Counters, read_counters
from logdrivers.journals.files import journal_directory
from logdrivers.journals.retention import journal_bytes

LIMIT = 3 << 20
#: Random bytes in base64, 76 characters a line.
FIRST, THEN = 2_000_000, 7_000_000


@pytest.fixture
def engine() -> Iterator[EngineProcess]:
    with running_engine(f"engine.journal_max_bytes={LIMIT}") as made:
        yield made


class Receiver:
    """A GELF receiver that refuses connections until ``open``."""

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._socket.getsockname()[1]}"
        self.data = bytearray()

    def open(self) -> None:
        self._socket.listen()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                with connection:
                    while data := connection.recv(1 << 20):
                        self.data += data

    def messages(self) -> list[str]:
        return [json.loads(message)["short_message"] for message in self.data.split(b"\0")[:-1]]

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


def lines(size: int) -> int:
    """How many lines so many bytes become."""
    return math.ceil(math.ceil(size / 3) * 4 / 76)


def test_a_running_container_gives_up_lines_and_its_sink_is_told_where(
    engine: EngineProcess, receiver: Receiver
) -> None:
    options = ("--network", "none", "--log-driver", "gelf", "--log-opt", f"gelf-address={receiver.address}")
    gate = "until [ -e /go ]; do usleep 10000; done"
    script = (
        f"head -c {FIRST} /dev/urandom | base64; {gate}; head -c {THEN} /dev/urandom | base64; sleep 1000"
    )
    engine.docker("run", "-d", "--name", "full", *options, IMAGE, "sh", "-c", script)
    (directory,) = (engine.state / "containers").iterdir()

    def counters() -> Counters:
        now = read_counters(directory / "delivery.state")
        assert now is not None
        return now

    # An engine that finds more than half of the limit taken looks again sooner.
    until(lambda: counters().written == lines(FIRST), "the container's first lines")
    assert LIMIT // 2 < journal_bytes(journal_directory(directory)) < LIMIT
    engine.kill()
    engine.start()
    engine.docker("exec", "full", "touch", "/go")
    until(lambda: counters().written == lines(FIRST) + lines(THEN), "the container's lines")
    until(lambda: journal_bytes(journal_directory(directory)) <= LIMIT, "the budget to be kept")
    assert counters().dropped == {}, "nobody has looked for what is missing yet"
    engine.kill()
    engine.start()
    receiver.open()
    until(lambda: counters().held == 0, "the delivery of the rest")
    now = counters()
    assert set(now.dropped) == {"host_budget"}
    assert now.written == now.delivered + now.dropped["host_budget"]
    until(lambda: len(receiver.messages()) == now.delivered + 1, "all messages")
    marks = [text for text in receiver.messages() if text.startswith("taffrail: ")]
    assert marks == [f"taffrail: {now.dropped['host_budget']} lines dropped here: host_budget"]
    engine.docker("rm", "-f", "full")
