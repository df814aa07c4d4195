"""What a log driver's sink has not taken is delivered after the container, its shim and the engine have gone."""

import contextlib
import re
import socket
import threading
from collections.abc import Iterator

import pytest
from engine_process import IMAGE, EngineProcess, until

LINES = 2000
SCRIPT = f"i=0; while [ $i -lt {LINES} ]; do echo line $i; i=$((i+1)); done"


class Receiver:
    """A TCP port that nobody listens on until ``open``; then what arrives is kept."""

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self.data = bytearray()
        self._connections: list[socket.socket] = []

    def open(self) -> None:
        self._socket.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self._connections.append(connection)
            threading.Thread(target=self._read, args=(connection,), daemon=True).start()

    def _read(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):  # closed
            while data := connection.recv(1 << 20):
                self.data += data

    def lines(self) -> list[int]:
        return [int(number) for number in re.findall(rb'"short_message":"line (\d+)"', self.data)]

    def close(self) -> None:
        for one in (self._socket, *self._connections):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


def options(receiver: Receiver) -> tuple[str, ...]:
    return (
        "--network",
        "none",
        "--log-driver",
        "gelf",
        "--log-opt",
        f"gelf-address=tcp://{receiver.address}",
    )


def everything_arrives(receiver: Receiver) -> None:
    receiver.open()
    until(lambda: len(receiver.lines()) >= LINES, "every line at the sink")
    assert receiver.lines() == list(range(LINES))


def test_after_rm_the_engine_delivers_what_was_left(own_engine: EngineProcess, receiver: Receiver) -> None:
    own_engine.docker("run", "--rm", *options(receiver), IMAGE, "sh", "-c", SCRIPT)
    until(lambda: not own_engine.docker("ps", "-aq").out.strip(), "the container's removal")
    everything_arrives(receiver)
    undelivered = own_engine.state / "undelivered"
    until(lambda: not [place for place in undelivered.iterdir() if place.is_dir()], "its journal's removal")


def test_after_a_restart_the_engine_goes_on_with_ended_and_removed_containers(
    own_engine: EngineProcess, receiver: Receiver
) -> None:
    own_engine.docker("run", "--rm", *options(receiver), IMAGE, "sh", "-c", SCRIPT)
    until(lambda: not own_engine.docker("ps", "-aq").out.strip(), "the container's removal")
    own_engine.kill()
    own_engine.start()
    everything_arrives(receiver)


def test_a_stopped_container_is_delivered_and_its_log_stays(
    own_engine: EngineProcess, receiver: Receiver
) -> None:
    own_engine.docker("run", "--name", "stopped", *options(receiver), IMAGE, "sh", "-c", SCRIPT)
    own_engine.kill()
    own_engine.start()
    everything_arrives(receiver)
    assert len(own_engine.docker("logs", "stopped").out.splitlines()) == LINES
