"""Faults while containers of a real Docker Engine write: killed plugins, a plugin that stops, engines that end."""

from __future__ import annotations

import array
import fcntl
import os
import random
import re
import signal
import termios
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest
from sink_receiver import SINKS, Receiver, sink_options

from logdrivers.delivery import STATE_NAME, Counters, read_counters
from tests.logdrivers.plugin.conftest import Plugin, wait_until

KILLS = 32
#: Seconds that a writer has to say how many it wrote, which may wait for a plugin that is behind.
LONG = "200"
SEED = 20261121
#: Writes numbers until it is told to stop, and then says how many.
WRITER = """
trap 'stop=1' TERM
i=0
while [ -z "$stop" ]; do
    echo "number $i of many"; i=$((i+1))
    if [ $((i % 16)) = 0 ]; then usleep 5000; fi
done
echo "total $i"
"""


class Counting(Receiver):
    """Counts the numbers it receives."""

    def __init__(self, sink: str) -> None:
        self.numbers: Counter[int] = Counter()
        super().__init__(sink)

    def take(self, texts: list[bytes]) -> None:
        self.numbers.update(int(text.split(b" ")[1]) for text in texts if text.startswith(b"number"))

    def counts(self) -> Counter[int]:
        """A copy, made in one go: more may come meanwhile."""
        return Counter(dict(self.numbers))


@pytest.fixture
def sinks() -> Iterator[dict[str, Counting]]:
    receivers = {sink: Counting(sink) for sink in SINKS}
    yield receivers
    for receiver in receivers.values():
        receiver.close()


def options(sink: str, sinks: dict[str, Counting]) -> dict[str, str]:
    return sink_options(sink, sinks[sink].port if sink in sinks else 0)


def written_numbers(shown: bytes) -> Counter[int]:
    """The numbers in a log that ends with their total; nothing else is in it."""
    *lines, last = shown.splitlines()
    total = re.fullmatch(rb"total (\d+)", last)
    assert total, last
    found = [re.fullmatch(rb"number (\d+) of many", line) for line in lines]
    assert all(found), next(line for line, match in zip(lines, found, strict=True) if not match)
    numbers = Counter(int(match[1]) for match in found if match)
    assert len(numbers) == int(total[1])
    return numbers


def counters(plugin: Plugin, container: str) -> Counters:
    found = read_counters(plugin.directory(container) / "log" / STATE_NAME)
    assert found is not None
    return found


def log_size(path: Path) -> int:
    files = [*path.glob("*-json.log"), *path.glob("journal/*.seg")]
    return sum(file.stat().st_size for file in files)


@pytest.mark.timeout(600)
def test_a_plugin_killed_over_and_over_keeps_every_line_of_every_sink(
    plugin: Plugin, sinks: dict[str, Counting]
) -> None:
    chance = random.Random(SEED)
    containers = {
        sink: plugin.container(WRITER, **options(sink, sinks)) for sink in ("json-file", "gelf", "fluentd")
    }
    logs = [plugin.directory(container) / "log" for container in containers.values()]
    for _ in range(KILLS):
        if chance.random() < 0.6:  # else perhaps while it starts, too
            before = sum(map(log_size, logs))
            wait_until(lambda b=before: sum(map(log_size, logs)) > b, "lines")  # type: ignore[misc]
        time.sleep(chance.uniform(0.0, 0.1))  # the random point
        plugin.kill()
        plugin.start()
    plugin.serving()
    plugin.docker.run("stop", "-t", LONG, *containers.values())
    for sink, container in containers.items():
        numbers = written_numbers(plugin.logs(container).stdout)
        assert numbers == Counter(range(len(numbers)))
        if sink not in sinks:
            continue
        receiver, written = sinks[sink], len(numbers) + 1
        wait_until(
            lambda c=container: counters(plugin, c).held == 0,  # type: ignore[misc]
            f"the delivery to {sink}: {plugin.log()[-2000:]}",
        )
        now = counters(plugin, container)
        assert (now.written, now.delivered, now.dropped) == (written, written, {})
        wait_until(
            lambda r=receiver, n=numbers: set(r.numbers) == set(n),  # type: ignore[misc]
            f"all numbers at {sink}: {len(receiver.numbers)} of {len(numbers)}",
        )


def waiting_bytes(fifo: int) -> int:
    size = array.array("i", [0])
    fcntl.ioctl(fifo, termios.FIONREAD, size)
    return size[0]


def test_a_plugin_that_stops_reading_goes_on_where_it_was(plugin: Plugin, sinks: dict[str, Counting]) -> None:
    container = plugin.container(WRITER, **options("gelf", sinks))
    wait_until(lambda: sinks["gelf"].numbers[100], "lines")
    record = orjson.loads((plugin.directory(container) / "container.json").read_bytes())
    fifo = os.open(record["file"], os.O_RDONLY | os.O_NONBLOCK)
    try:
        plugin.process.send_signal(signal.SIGSTOP)
        # More than a pipe holds of itself: the plugin has made it larger, so the container goes on for a while.
        wait_until(lambda: waiting_bytes(fifo) > 100_000, "lines waiting for the plugin")
        plugin.process.send_signal(signal.SIGCONT)
        wait_until(lambda: waiting_bytes(fifo) < 10_000, "the plugin going on")
    finally:
        os.close(fifo)
    plugin.docker.run("stop", "-t", LONG, container)
    numbers = written_numbers(plugin.logs(container).stdout)
    assert numbers == Counter(range(len(numbers)))
    wait_until(lambda: sinks["gelf"].counts() == numbers, "all lines at the sink, once")


def test_several_containers_at_once_started_stopped_and_restarted(
    plugin: Plugin, sinks: dict[str, Counting]
) -> None:
    names = ["json-file", "gelf", "fluentd", "local"]
    containers = {sink: plugin.container(WRITER, **options(sink, sinks)) for sink in names}
    for _ in range(2):
        plugin.docker.run("restart", "-t", LONG, *containers.values())
    plugin.docker.run("stop", "-t", LONG, *containers.values())
    for container in containers.values():
        runs = re.split(rb"(?<=\n)(?=number 0 )", plugin.logs(container).stdout)
        runs = [run for run in runs if run]
        assert len(runs) == 3
        for run in runs:
            numbers = written_numbers(run)
            assert numbers == Counter(range(len(numbers)))


def test_a_container_removed_while_it_writes_loses_nothing_that_it_wrote(
    docker_engine: object, make_plugin: Callable[..., Plugin], sinks: dict[str, Counting]
) -> None:
    plugin = make_plugin("--docker-socket", f"{docker_engine.root}/s")  # type: ignore[attr-defined]
    container = plugin.container(WRITER, **options("gelf", sinks))
    wait_until(lambda: len(sinks["gelf"].numbers) > 500, "lines")
    plugin.docker.run("rm", "-f", container)
    wait_until(lambda: not plugin.directory(container).exists(), f"the removal: {plugin.log()}")

    def each_once() -> bool:
        found = sinks["gelf"].counts()
        return found == Counter(range(len(found)))

    wait_until(each_once, "all that was written, once")


def test_killed_engines_take_their_containers_up_again(plugin: Plugin, sinks: dict[str, Counting]) -> None:
    containers = {sink: plugin.container(WRITER, **options(sink, sinks)) for sink in ("json-file", "fluentd")}
    wait_until(lambda: sinks["fluentd"].numbers[100], "lines")
    before = len(sinks["fluentd"].numbers)
    plugin.docker.stop()  # live-restore: the containers go on
    plugin.docker.start()
    wait_until(lambda: len(sinks["fluentd"].numbers) > before + 500, "lines after the restart")
    plugin.docker.run("stop", "-t", LONG, *containers.values())
    for container in containers.values():
        numbers = written_numbers(plugin.logs(container).stdout)
        assert numbers == Counter(range(len(numbers)))
    wait_until(lambda: counters(plugin, containers["fluentd"]).held == 0, "the delivery")
