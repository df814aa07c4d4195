"""An unmodified Docker Engine with our drivers, driven by the real command line."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from held_port import hold_port
from sink_receiver import SINKS, Receiver, sink_options

from logdrivers.codecs.json_file import parse_time
from logdrivers.delivery import STATE_NAME, read_counters
from logdrivers.driver import Info
from logdrivers.registry import get
from logdrivers.source.rate_limit import read_dropped

LONG = 40_000
SCRIPT = rf"""
echo to stderr >&2
printf 'plain <&> "q" tab\tend\n\ncr\r\nback\\slash \\u0009\n'
printf 'caf\303\251\n'
i=0; while [ $i -lt 50 ]; do echo "line $i"; i=$((i+1)); done
head -c {LONG} /dev/zero | tr '\0' x; echo
printf 'no newline'
"""
PRINTED = (
    b'plain <&> "q" tab\tend\n\ncr\r\nback\\slash \\u0009\ncaf\xc3\xa9\n'
    + b"".join(b"line %d\n" % i for i in range(50))
    + b"x" * LONG
    + b"\nno newline"
)
NUMBERS = 100_000
#: Ends a script: an engine gives a plugin that is away at a container's end ten seconds, then cuts its log.
GATE = "; until [ -e /go ]; do usleep 10000; done"
COUNT = f'i=0; while [ $i -lt {NUMBERS} ]; do echo "number $i of many"; i=$((i+1)); done' + GATE


@pytest.fixture
def receiving() -> Iterator[Callable[..., Receiver]]:
    opened: list[Receiver] = []

    def make(sink: str, port: int = 0) -> Receiver:
        opened.append(Receiver(sink, port))
        return opened[-1]

    yield make
    for receiver in opened:
        receiver.close()


@pytest.fixture
def held() -> Iterator[int]:
    """A port that nobody listens on, and that is nobody else's."""
    with hold_port() as port:
        yield int(port.getsockname()[1])


def wait_until(condition: Callable[[], object], what: str, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"did not come in {seconds:.0f} s: {what}"
        time.sleep(0.02)


@pytest.mark.parametrize("sink", ["json-file", "local", "gelf", "fluentd"])
def test_docker_logs_shows_what_was_written_with_every_sink(
    plugin: Any, receiving: Callable[..., Receiver], sink: str
) -> None:
    receiver = receiving(sink) if sink in SINKS else None
    container = plugin.container(SCRIPT, **sink_options(sink, receiver.port if receiver else 0))
    plugin.docker.run("wait", container)
    shown = plugin.logs(container)
    assert shown.stdout == PRINTED
    assert shown.stderr == b"to stderr\n"
    tail = plugin.logs(container, "--tail", "2")
    last_lines = b"x" * (LONG - 2 * 16384) + b"\nno newline"
    # The engine reads the two streams on their own: the other one may have come last.
    assert (tail.stdout, tail.stderr) in ((last_lines, b""), (b"no newline", b"to stderr\n"))
    if receiver is not None:
        lines = 60 if sink == "fluentd" else 59  # GELF has no empty lines
        wait_until(lambda: len(receiver.lines) >= lines, f"{lines} lines at the sink: {len(receiver.lines)}")
        sent = receiver.lines
        assert len(sent) == lines
        assert b"to stderr" in sent
        assert [line for line in sent if line.startswith(b"line ")] == [b"line %d" % i for i in range(50)]
        assert sum(len(line) for line in sent if line.startswith(b"xx")) == LONG
        counters = read_counters(plugin.directory(container) / "log" / STATE_NAME)
        assert counters is not None
        assert counters.written == 60
        assert counters.written == counters.delivered + counters.held + sum(counters.dropped.values())


def test_times_are_the_engines_and_bound_what_is_shown(plugin: Any, held: int) -> None:
    container = plugin.container("for i in 0 1 2 3 4 5 6 7; do echo $i; done", **sink_options("gelf", held))
    plugin.docker.run("wait", container)
    rows = [line.split(b" ") for line in plugin.logs(container, "-t").stdout.splitlines()]
    times = [row[0] for row in rows]
    assert [row[1] for row in rows] == [b"%d" % i for i in range(8)]
    assert len(set(times)) == 8  # to the nanosecond
    assert [parse_time(t) for t in times] == sorted(parse_time(t) for t in times)
    assert plugin.logs(container, "--since", times[5].decode()).stdout == b"5\n6\n7\n"
    assert plugin.logs(container, "--until", times[2].decode()).stdout == b"0\n1\n2\n"
    assert (
        plugin.logs(container, "--since", times[2].decode(), "--until", times[3].decode()).stdout == b"2\n3\n"
    )


def test_following_shows_lines_as_they_come_and_ends_with_the_container(plugin: Any) -> None:
    container = plugin.container('trap "echo last; exit 0" TERM; echo first; while :; do sleep 0.1; done')
    follower = subprocess.Popen(
        plugin.docker.command("logs", "-f", container), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert follower.stdout is not None
    assert follower.stdout.readline() == b"first\n"
    plugin.docker.run("stop", "-t", "100", container)
    assert follower.stdout.read() == b"last\n"
    assert follower.wait(100) == 0
    follower.stdout.close()


def test_a_container_that_starts_again_goes_on_in_its_log(plugin: Any) -> None:
    container = plugin.container("echo once", sink="local")
    plugin.docker.run("wait", container)
    plugin.docker.run("start", "-a", container)
    plugin.process.terminate()
    assert plugin.process.wait(100) == 0
    plugin.start()
    assert plugin.logs(container).stdout == b"once\nonce\n"
    assert plugin.logs(container, "--tail", "1").stdout == b"once\n"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"sink": "gelf"}, b"gelf-address is a required parameter"),
        ({"sink": "carbon"}, b"no sink 'carbon', expected one of "),
        ({"max_file": "0"}, b"max-file cannot be less than 1"),
        ({"sink": "local", "colour": "red"}, b"unknown log opt 'colour' for "),
    ],
)
def test_docker_shows_what_a_driver_refuses(plugin: Any, options: dict[str, str], text: bytes) -> None:
    plugin.serving()
    given = [
        part for key, value in options.items() for part in ("--log-opt", f"{key.replace('_', '-')}={value}")
    ]
    name = f"refused-{plugin.name}"
    plugin.made.append(name)
    refused = plugin.docker.run(
        "run",
        "--name",
        name,
        "--network",
        "none",
        "--log-driver",
        plugin.name,
        *given,
        "bb:1",
        "true",
        check=False,
    )
    assert refused.returncode == 125
    assert text in refused.stderr


@pytest.mark.parametrize("sink", ["json-file", "gelf"])
def test_a_killed_plugin_loses_and_doubles_nothing(
    plugin: Any, receiving: Callable[..., Receiver], held: int, sink: str
) -> None:
    container = plugin.container(COUNT, **sink_options(sink, held))
    for share in (0.1, 0.4, 0.7):
        wait_until(lambda part=share: written(plugin, container, sink) > part * NUMBERS, "progress")
        plugin.kill()
        plugin.start()
    end(plugin, container)
    assert numbers(plugin.logs(container).stdout.splitlines()) == Counter(range(NUMBERS))
    if sink in SINKS:  # it was away all the time
        receiver = receiving(sink, held)
        wait_until(lambda: len(receiver.lines) >= NUMBERS, f"all lines at the sink: {len(receiver.lines)}")
        assert numbers(receiver.lines) == Counter(range(NUMBERS))


def end(plugin: Any, container: str) -> None:
    """Let a container go through its gate while the plugin is there, and wait for its end."""
    plugin.serving()
    plugin.docker.run("exec", container, "touch", "/go", check=False)  # it may not outlive the container
    plugin.docker.run("wait", container)


def written(plugin: Any, container: str, sink: str) -> int:
    """How many lines are in the journal."""
    info = Info(container, "", "", "", (), 0, plugin.directory(container) / "log")
    reader = get(sink).reader(info)
    assert reader is not None
    try:
        return reader.end_line()
    finally:
        reader.close()


def numbers(lines: list[bytes]) -> Counter[int]:
    found = [re.fullmatch(rb"number (\d+) of many", line) for line in lines]
    assert all(found), next(line for line, match in zip(lines, found, strict=True) if not match)
    return Counter(int(match[1]) for match in found if match)


def test_lines_go_on_when_the_engine_restarts(plugin: Any) -> None:
    container = plugin.container(
        'i=0; while [ $i -lt 400 ]; do echo "number $i of many"; sleep 0.005; i=$((i+1)); done'
    )
    wait_until(lambda: b"number 20 of" in plugin.logs(container).stdout, "lines")
    plugin.docker.process.terminate()
    plugin.docker.process.wait(120)
    plugin.docker.start()
    plugin.docker.run("wait", container)
    assert numbers(plugin.logs(container).stdout.splitlines()) == Counter(range(400))


TRACE = b'Traceback (most recent call last):\n  File "a.py", line 3\nValueError: x\n'


@pytest.mark.parametrize("sink", ["json-file", "gelf", "fluentd"])
def test_long_lines_and_traces_of_an_engine_that_cuts_them_are_one_message_each(
    plugin: Any, receiving: Callable[..., Receiver], sink: str
) -> None:
    receiver = receiving(sink) if sink in SINKS else None
    script = f"head -c {LONG} /dev/zero | tr '\\0' x; echo; cat <<'END'\n{TRACE.decode()}END\necho last"
    words = ("--label", "taffrail.logs.multiline=python")
    options = {**sink_options(sink, receiver.port if receiver else 0), "max-line-size": "1m"}
    container = plugin.container(script, *words, **options)
    plugin.docker.run("wait", container)
    assert plugin.logs(container).stdout == b"x" * LONG + b"\n" + TRACE + b"last\n"
    wanted = [b"x" * LONG, TRACE.removesuffix(b"\n"), b"last"]
    if receiver is not None:
        wait_until(lambda: len(receiver.lines) >= 3, f"three messages at the sink: {receiver.lines!r}")
        assert receiver.lines == wanted
    else:
        (path,) = plugin.directory(container).glob("log/*-json.log")
        records = [json.loads(line)["log"].encode() for line in path.read_bytes().splitlines()]
        assert [record.removesuffix(b"\n") for record in records] == wanted


def test_lines_over_the_rate_are_counted_through_kills_of_the_plugin(plugin: Any) -> None:
    script = "i=0; while [ $i -lt 20 ]; do seq -w $((i*5000+100000)) $((i*5000+104999)); usleep 50000; i=$((i+1)); done"
    container = plugin.container(script + GATE, **{"rate-limit": "4k"})
    for _ in range(4):
        time.sleep(0.2)
        plugin.kill()
        plugin.start()
    end(plugin, container)
    shown = plugin.logs(container).stdout.decode().splitlines()
    here = 100_000
    dropped = 0
    for line in shown:
        if marker := re.fullmatch(
            r"taffrail: (\d+) lines \(\d+ bytes\) dropped: over rate-limit 4096 bytes/s", line
        ):
            dropped += int(marker[1])
            here += int(marker[1])
        else:
            assert int(line) == here
            here += 1
    assert here == 200_000
    assert dropped == read_dropped(plugin.directory(container) / "log").lines > 0
