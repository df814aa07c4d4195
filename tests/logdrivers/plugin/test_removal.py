"""Directories of containers that no longer log: which go, in which order, and what is counted."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from held_port import hold_port

from logdrivers.block import Stream
from logdrivers.plugin.engine import EngineWatch
from logdrivers.plugin.frames import encode
from logdrivers.plugin.removal import RemovedLines, removed_lines
from logdrivers.plugin.service import PluginService
from tests.logdrivers.plugin.conftest import wait_until

T = 1_795_203_851_793_123_456


class Plugin:
    """A plugin without its socket, and the engine's FIFOs."""

    def __init__(self, root: Path, max_bytes: int) -> None:
        self.root = root
        self.state = root / "plugin" / "t"
        self._max_bytes = max_bytes
        self._begin()

    def _begin(self) -> None:
        self.service = PluginService(self.state, self.root / "run", self._max_bytes)
        self.service.start()

    def restart(self) -> None:
        self.service.stop()
        self._begin()

    def run(self, letter: str, lines: int, **options: str) -> str:
        """A container that writes some lines and ends; its ID."""
        container = letter * 64
        fifo = self.root / letter
        os.mkfifo(fifo)
        writer = os.open(fifo, os.O_RDWR)
        config = {key.replace("_", "-"): value for key, value in options.items()}
        self.service.start_logging({"ContainerID": container, "Config": config}, str(fifo))
        for n in range(lines):
            os.write(writer, encode(Stream.STDOUT, T + n, os.urandom(50).hex().encode()))
        self.service.stop_logging(str(fifo))
        os.close(writer)
        fifo.unlink()
        record = self.state / "containers" / container / "container.json"
        os.utime(record, (ord(letter), ord(letter)))  # ended in the order of their letters
        return container

    def there(self) -> str:
        """The letters of the containers whose directories are there."""
        return "".join(sorted(path.name[0] for path in (self.state / "containers").iterdir()))


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[[int], Plugin]]:
    made: list[Plugin] = []

    def build(max_bytes: int) -> Plugin:
        made.append(Plugin(tmp_path, max_bytes))
        return made[-1]

    yield build
    for plugin in made:
        plugin.service.stop()


@pytest.fixture
def away() -> Iterator[str]:
    """The address of a sink that does not answer."""
    with hold_port() as held:
        yield f"tcp://127.0.0.1:{held.getsockname()[1]}"


def test_the_oldest_delivered_logs_go_first_and_no_more_than_must(
    make: Callable[[int], Plugin], away: str
) -> None:
    plugin = make(85_000)
    plugin.run("a", 100, sink="gelf", gelf_address=away)
    for letter in "bcdefg":
        plugin.run(letter, 100)
    plugin.service.keep_limit()
    assert plugin.there() == "adefg"  # 19 KB each, a 12
    assert removed_lines(plugin.root / "plugin") == RemovedLines(200, 200)


def test_undelivered_logs_go_only_if_that_is_not_enough_and_their_lines_are_counted(
    make: Callable[[int], Plugin], away: str, caplog: pytest.LogCaptureFixture
) -> None:
    plugin = make(30_000)
    plugin.run("a", 300, sink="gelf", gelf_address=away)
    plugin.run("b", 100)
    plugin.run("c", 200, sink="gelf", gelf_address=away)
    plugin.service.keep_limit()
    assert plugin.there() == "c"
    assert removed_lines(plugin.root / "plugin") == RemovedLines(400, 100, 0, {"budget": 300})
    assert "300 lines of it undelivered" in caplog.text


def test_what_is_being_logged_stays(make: Callable[[int], Plugin]) -> None:
    plugin = make(0)
    fifo = plugin.root / "fifo"
    os.mkfifo(fifo)
    writer = os.open(fifo, os.O_RDWR)
    plugin.service.start_logging({"ContainerID": "a" * 64, "Config": {}}, str(fifo))
    os.write(writer, encode(Stream.STDOUT, T, b"line"))
    plugin.service.keep_limit()
    assert plugin.there() == "a"
    plugin.service.stop_logging(str(fifo))
    plugin.service.keep_limit()
    assert plugin.there() == ""
    os.close(writer)


def test_a_container_starts_again_after_its_log_has_gone(make: Callable[[int], Plugin]) -> None:
    plugin = make(0)
    plugin.run("a", 10)
    plugin.service.keep_limit()
    assert plugin.there() == ""
    container = plugin.run("a", 3)
    reader = plugin.service.find({"ContainerID": container, "Config": {}}).reader()
    assert reader is not None
    assert reader.end_line() == 3
    reader.close()


def test_where_an_engine_is_heard_only_what_it_removed_or_never_had_goes(
    make: Callable[[int], Plugin], tmp_path: Path
) -> None:
    plugin = make(0)
    watch = EngineWatch(tmp_path / "s", plugin.service)
    for letter in "abc":
        plugin.run(letter, 10)
    plugin.service.confirm("engine one", {"a" * 64, "b" * 64, "f" * 64})
    plugin.service.remove("b" * 64)
    plugin.service.remove("f" * 64)  # never heard of
    plugin.restart()  # which must not forget
    assert plugin.service.of_engine("engine one") == {"a" * 64}
    assert plugin.service.of_engine("engine two") == set()
    (tmp_path / "s").touch()  # there is an engine, but it has not answered
    plugin.service.keep_limit(watch)
    assert plugin.there() == "ac"
    (tmp_path / "s").unlink()
    plugin.service.keep_limit(watch)
    assert plugin.there() == "a"
    plugin.service.keep_limit()  # nobody is asked any more
    assert plugin.there() == ""


def test_a_removed_containers_lines_are_delivered_first(make: Callable[[int], Plugin], away: str) -> None:
    plugin = make(1 << 30)
    container = plugin.run("a", 50, sink="gelf", gelf_address=away)
    plugin.service.remove(container)
    assert removed_lines(plugin.root / "plugin") == RemovedLines(50, 0, 50)
    plugin.restart()
    plugin.service.clear_removed()
    assert plugin.there() == "a"
    received: list[bytes] = []
    with socket.create_server(("127.0.0.1", int(away.rpartition(":")[2]))) as server:

        def receive() -> None:
            connection, _ = server.accept()
            with connection:
                while data := connection.recv(1 << 16):
                    received.append(data)

        thread = threading.Thread(target=receive, daemon=True)
        thread.start()
        wait_until(lambda: plugin.service.clear_removed() or plugin.there() == "", "the delivery")
        thread.join(100)
    assert b"".join(received).count(b"\0") == 50
    assert removed_lines(plugin.root / "plugin") == RemovedLines(50, 50)


@pytest.mark.parametrize("counted", [False, True])
def test_a_removal_that_was_killed_is_finished_and_counted_once(
    make: Callable[[int], Plugin], away: str, counted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = make(0)
    plugin.run("a", 20, sink="gelf", gelf_address=away)

    def killed(*_: object) -> None:
        raise OSError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(f"logdrivers.plugin.removal.{'shutil.rmtree' if counted else '_save'}", killed)
        plugin.service.keep_limit()
    assert plugin.there() == ""
    assert removed_lines(plugin.root / "plugin") == RemovedLines(20, 0, 0, {"budget": 20})
    plugin.restart()
    plugin.restart()
    assert removed_lines(plugin.root / "plugin") == RemovedLines(20, 0, 0, {"budget": 20})
    assert not list((plugin.state / "leaving").iterdir())


def test_counts_that_cannot_be_read_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "removed.json").write_text('{"written": 1}')
    assert removed_lines(tmp_path) == RemovedLines()
    assert "removed.json: not the counts of removed containers" in caplog.text
    assert removed_lines(tmp_path / "none") == RemovedLines()
