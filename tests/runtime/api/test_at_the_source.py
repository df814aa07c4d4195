"""Line length, messages of several lines and rate limits, from the docker CLI to the sink, for three drivers."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgpack
import orjson
import pytest
from engine_process import IMAGE, EngineProcess, until

from collector.container import Container, LogSource
from collector.discovery.registry import Containers
from exporters.prometheus.own_families import OwnFamily
from taffrail.log_metrics import delivery_metrics, remainder_metrics

DRIVERS = ("json-file", "gelf", "fluentd")
SIZES = (1, 16383, 16384, 16385, 32768, (1 << 20) - 1)
MARKER = re.compile(r"taffrail: (\d+) lines \((\d+) bytes\) dropped: over rate-limit 65536 bytes/s")
TRACE = (
    'Traceback (most recent call last):\n  File "/app.py", line 3, in <module>\n    main()\n'
    'ValueError: a < b & "c"\n'
)
#: 20,000 numbered lines of 100 bytes.
NUMBERS = """awk 'BEGIN { for (n = 0; n < 20000; n++) printf "%099d\\n", n }'"""


class Receiver:
    """Takes the TCP connections of any driver and keeps what comes."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.data: list[bytes] = []
        self._connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                self._connections.append(connection)
                self.data.append(b"")
                thread = threading.Thread(
                    target=self._read, args=(connection, len(self.data) - 1), daemon=True
                )
                self._threads.append(thread)
                thread.start()

    def _read(self, connection: socket.socket, place: int) -> None:
        with contextlib.suppress(OSError):
            while data := connection.recv(1 << 20):
                self.data[place] += data

    def gelf(self) -> list[str]:
        """The texts of GELF messages."""
        frames = [frame for data in self.data for frame in data.split(b"\0")[:-1]]
        return [orjson.loads(frame)["short_message"] for frame in frames]

    def forward(self) -> list[str]:
        """The texts of Forward messages."""
        out: list[str] = []
        for data in self.data:
            unpacker = msgpack.Unpacker(max_buffer_size=1 << 28)
            unpacker.feed(data)
            out += [message[2]["log"] for message in unpacker]
        return out

    def close(self) -> None:
        for one in (self._socket, *self._connections):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


class Run:
    """One container that has run to its end."""

    def __init__(
        self, engine: EngineProcess, receiver: Receiver, driver: str, name: str, script: str, *words: str
    ) -> None:
        self._engine, self._receiver, self._driver, self.name = engine, receiver, driver, name
        sinks = {
            "json-file": [],
            "gelf": ["--log-opt", f"gelf-address=tcp://127.0.0.1:{receiver.port}"],
            "fluentd": ["--log-opt", f"fluentd-address=tcp://127.0.0.1:{receiver.port}"],
        }
        options = ("--network", "none", "--log-driver", driver, *sinks[driver], *words)
        begun = time.monotonic()
        engine.docker("run", "--name", name, *options, IMAGE, "sh", "-c", script)
        self.seconds = time.monotonic() - begun  #: that it ran for at most
        self.logs = engine.docker("logs", name).out

    def messages(self, count: int | None = None) -> list[str]:
        """What the sink got, or the file says, one item a message; waits for so many."""
        if self._driver == "json-file":
            path = self._engine.inspect(self.name, "{{.LogPath}}")
            records = [orjson.loads(line) for line in Path(path).read_bytes().splitlines()]
            return [record["log"].removesuffix("\n") for record in records]
        read = self._receiver.gelf if self._driver == "gelf" else self._receiver.forward
        if count is not None:
            until(lambda: len(read()) >= count, f"{count} messages, got {len(read())}")
        return read()

    def metrics(self) -> dict[str, float]:
        """What /metrics says of the container's log."""
        container_id = self._engine.inspect(self.name, "{{.Id}}")
        source = LogSource(self._driver, directory=str(self._engine.state / "containers" / container_id))
        containers = Containers()
        containers.update(Container(container_id, self.name, engine="taffrail", log=source))
        families = delivery_metrics(containers, Path("/nowhere"))()
        return {cause or family.name: value for family in families for cause, value in by_cause(family)}


def least_dropped(run: Run) -> float:
    """How many of ``NUMBERS`` a limit of 64 KiB a second cannot have let pass: a burst of as much comes first."""
    return 20_000 - 65_536 * (1 + run.seconds) / 100


def by_cause(family: OwnFamily) -> list[tuple[str, float]]:
    """Causes and values of its series; no cause where it has none."""
    return [
        (dict(zip(family.labels, labels, strict=True)).get("cause", ""), value)
        for labels, value in family.series
    ]


@pytest.mark.parametrize("driver", DRIVERS)
def test_long_lines_arrive_whole(
    engine: EngineProcess, receiver: Receiver, names: Callable[[], str], driver: str
) -> None:
    script = "; ".join(f"head -c {size} /dev/zero | tr '\\0' x; echo" for size in SIZES)
    run = Run(engine, receiver, driver, names(), script, "--log-opt", "max-line-size=1m")
    assert [len(line) for line in run.logs.splitlines()] == list(SIZES)
    assert [len(text) for text in run.messages(len(SIZES))] == list(SIZES)


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_trace_is_one_message(
    engine: EngineProcess, receiver: Receiver, names: Callable[[], str], driver: str
) -> None:
    script = f"echo one; cat <<'END'\n{TRACE}END\necho two; cat <<'END' >&2\n{TRACE}END"
    run = Run(engine, receiver, driver, names(), script, "--label", "taffrail.logs.multiline=python")
    assert run.logs == f"one\n{TRACE}two\n"
    # The streams' order among themselves is not told.
    assert sorted(run.messages(4)) == sorted(
        ["one", TRACE.removesuffix("\n"), "two", TRACE.removesuffix("\n")]
    )
    stamped = engine.docker("logs", "-t", run.name).out.splitlines()
    assert len([line for line in stamped if re.match(r"20\d\d-\d\d-\d\dT", line)]) == 3
    assert engine.docker("logs", "--tail", "2", run.name).out.count("Traceback") <= 2
    assert run.metrics()["taffrail_log_written_lines_total"] == 4


@pytest.mark.parametrize("driver", DRIVERS)
def test_dropped_lines_are_told_at_the_sink_and_at_metrics(
    engine: EngineProcess, receiver: Receiver, names: Callable[[], str], driver: str
) -> None:
    run = Run(engine, receiver, driver, names(), NUMBERS, "--log-opt", "rate-limit=64k")
    passed = run.logs.splitlines()
    here = dropped = 0
    for line in passed:
        if marker := MARKER.fullmatch(line):
            assert int(marker[2]) == 100 * int(marker[1])
            here, dropped = here + int(marker[1]), dropped + int(marker[1])
        else:
            assert int(line) == here
            here += 1
    assert here == 20_000
    assert dropped >= max(1, least_dropped(run))
    assert run.messages(len(passed)) == passed
    if driver != "json-file":
        until(lambda: run.metrics()["taffrail_log_held_lines"] == 0, "the delivery's end")
    assert run.metrics() == {
        "taffrail_log_written_lines_total": len(passed) + dropped,
        "taffrail_log_delivered_lines_total": len(passed),
        "taffrail_log_held_lines": 0,
        "taffrail_log_sink_up": 1,
        "rate_limit": dropped,
    }


def test_a_container_that_waits_loses_nothing(
    engine: EngineProcess, receiver: Receiver, names: Callable[[], str]
) -> None:
    words = ("--label", "taffrail.logs.rate-limit=1m", "--label", "taffrail.logs.rate-limit-policy=wait")
    run = Run(engine, receiver, "json-file", names(), NUMBERS, *words)
    assert [int(line) for line in run.logs.splitlines()] == list(range(20_000))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--log-opt", "max-line-size=2m"),
            "max-line-size is 2m, expected 1k to 1m",
        ),
        (
            ("--label", "taffrail.logs.multiline=cobol"),
            'label taffrail.logs.multiline is "cobol", expected one of dotnet, go, indented, java',
        ),
        (
            ("--log-driver", "none", "--label", "taffrail.logs.rate=1m"),
            "unknown label 'taffrail.logs.rate', expected one of max-line-size",
        ),
    ],
)
def test_what_cannot_be_is_refused_at_create(
    engine: EngineProcess, words: tuple[str, ...], message: str
) -> None:
    refused = engine.docker("create", *words, IMAGE, check=False)
    assert refused.code == 1
    assert message in refused.err


@pytest.mark.parametrize("driver", ["json-file", "fluentd"])
def test_what_was_dropped_stays_told_when_the_container_is_removed(
    engine: EngineProcess, receiver: Receiver, names: Callable[[], str], driver: str
) -> None:
    before = removed_drops(engine)
    run = Run(engine, receiver, driver, names(), NUMBERS, "--log-opt", "rate-limit=64k")
    dropped = run.metrics()["rate_limit"]
    assert dropped >= max(1, least_dropped(run))
    engine.docker("rm", run.name)
    until(lambda: removed_drops(engine) > before, "the count of the removed container")
    assert removed_drops(engine) - before == dropped


def removed_drops(engine: EngineProcess) -> float:
    """What /metrics says was dropped by the rate limits of removed containers."""
    return sum(
        value
        for family in remainder_metrics(engine.state / "undelivered", Path("/nowhere"))()
        for cause, value in by_cause(family)
        if cause == "rate_limit"
    )
