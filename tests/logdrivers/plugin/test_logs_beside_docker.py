"""``docker logs`` of a container with our drivers beside the same output with Docker's json-file, same engine.

Both containers write the same lines with the same pauses, so what bounds by time selects the same lines.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.logdrivers.plugin.conftest import Docker, Plugin

#: Three bursts, so that there are times in between; a stream each, because Docker reads the two on their own.
SCRIPT = r"""
i=0; while [ $i -lt 40 ]; do echo "early $i"; i=$((i+1)); done
printf '\n\ttab and "quotes" <&> back\\slash \001\033[31m\303\251\377\n'
sleep 0.4
for n in 16383 16384 16385 32768 50000; do head -c $n /dev/zero | tr '\0' x; echo; done
sleep 0.4
i=0; while [ $i -lt 40 ]; do echo "late $i"; i=$((i+1)); done
head -c 20000 /dev/zero | tr '\0' y
"""
TIME = re.compile(rb"\d{4}-\d\d-\d\dT[\d:.]+Z ")  # also before each piece of a long line


class Pair:
    """The same output, logged by Docker's json-file and through the plugin."""

    def __init__(self, plugin: Plugin, sink: dict[str, str], redirect: str) -> None:
        self._docker = plugin.docker
        label, variable = ("--label", "app=a b"), ("-e", "TEAM=x=y")
        script = f"({SCRIPT}) {redirect}"
        self.ours = plugin.container(script, *label, *variable, labels="app", env="TEAM", **sink)
        made = plugin.docker.run(
            "run", "-d", "--network", "none", "--log-driver", "json-file", "--log-opt", "labels=app",
            "--log-opt", "env=TEAM", *label, *variable, "bb:1", "sh", "-c", script,
        )  # fmt: skip
        self.dockers = made.stdout.decode().strip()
        plugin.docker.run("wait", self.ours, self.dockers)

    def logs(self, container: str, *words: str) -> tuple[bytes, bytes]:
        shown = self._docker.run("logs", *words, container)
        # Docker's json-file cannot keep what is not UTF-8; ours is the only sink here that cannot either.
        return shown.stdout.replace(b"\xff", b"\xef\xbf\xbd"), shown.stderr.replace(b"\xff", b"\xef\xbf\xbd")

    def both(self, *words: str) -> tuple[tuple[bytes, bytes], tuple[bytes, bytes]]:
        return self.logs(self.ours, *words), self.logs(self.dockers, *words)

    def time_before(self, container: str, text: bytes) -> str:
        """The time of the first line that begins so, as docker shows it."""
        shown = b"".join(self.logs(container, "-t"))
        return next(line.split(b" ")[0] for line in shown.split(b"\n") if line[31:].startswith(text)).decode()

    def close(self) -> None:
        self._docker.run("rm", "-f", self.dockers, check=False)


#: The last one's server is away: what is shown is on this host.
SINKS = {
    "json-file": ({"sink": "json-file"}, ""),
    "local": ({"sink": "local"}, ""),
    "gelf": ({"sink": "gelf", "gelf-address": "udp://127.0.0.1:9"}, "1>&2"),
}


@pytest.fixture(scope="module")
def shared(docker_engine: Docker) -> Iterator[Plugin]:
    """A plugin for all tests of this file: none of them changes what another sees."""
    plugin = Plugin(
        docker_engine, Path(tempfile.mkdtemp(dir="/tmp", prefix="tfp")), "--docker-socket", "none"
    )
    try:
        yield plugin
    finally:
        plugin.close()
        shutil.rmtree(plugin.root, ignore_errors=True)


@pytest.fixture(scope="module", params=SINKS)
def pair(shared: Plugin, request: pytest.FixtureRequest) -> Iterator[Pair]:
    made = Pair(shared, *SINKS[request.param])
    yield made
    made.close()


def test_everything_and_its_ends(pair: Pair) -> None:
    for words in (
        [],
        ["--tail", "0"],
        ["--tail", "1"],
        ["--tail", "7"],
        ["--tail", "45"],
        ["--tail", "1000"],
        ["--tail", "all"],
        ["-f"],
        ["-f", "--tail", "3"],
    ):
        ours, dockers = pair.both(*words)
        assert ours == dockers, words


def test_times_and_details(pair: Pair) -> None:
    for words in (["-t"], ["--details"], ["-t", "--details", "--tail", "5"]):
        ours, dockers = pair.both(*words)
        if "-t" in words:
            assert [TIME.findall(text) for text in ours] != [[], []]
            ours, dockers = (tuple(TIME.sub(b"T ", text) for text in both) for both in (ours, dockers))  # type: ignore[assignment]
        # The engine does not take details from a plugin: their place stays empty.
        out, err = (text.replace(b"TEAM=x%3Dy,app=a+b ", b" ") for text in dockers)
        assert ours == (out, err), words


def test_bounds_in_time(pair: Pair) -> None:
    middle = [pair.time_before(c, b"x") for c in (pair.ours, pair.dockers)]
    late = [pair.time_before(c, b"late 0") for c in (pair.ours, pair.dockers)]
    containers = pair.ours, pair.dockers
    for build in (
        lambda n: ["--since", middle[n]],
        lambda n: ["--since", late[n], "-f"],
        lambda n: ["--until", late[n]],
        lambda n: ["--since", middle[n], "--until", late[n]],
        lambda n: ["--since", middle[n], "--tail", "3"],
        lambda n: ["--until", middle[n], "--tail", "3"],
        lambda n: ["--since", "1h"],
        lambda n: ["--until", "1h"],
    ):
        ours, dockers = (pair.logs(container, *build(n)) for n, container in enumerate(containers))
        assert ours == dockers, build(0)


def test_following_a_running_container_from_its_tail(shared: Plugin) -> None:
    script = (
        "i=0; while [ $i -lt 20 ]; do echo before $i; i=$((i+1)); done; until [ -e /go ]; do usleep 10000; done;"
        "i=0; while [ $i -lt 20 ]; do echo after $i; i=$((i+1)); done"
    )
    ours = shared.container(script)
    dockers = f"beside-{uuid.uuid4().hex[:8]}"
    shared.docker.run("run", "-d", "--name", dockers, "--network", "none", "bb:1", "sh", "-c", script)
    shown = []
    try:
        for container in (ours, dockers):
            follower = subprocess.Popen(
                shared.docker.command("logs", "-f", "--tail", "2", container), stdout=subprocess.PIPE
            )
            assert follower.stdout is not None
            first = follower.stdout.readline()
            shared.docker.run(
                "exec", container, "touch", "/go", check=False
            )  # it may not outlive the container
            shown.append(first + follower.stdout.read())
            assert follower.wait(100) == 0
            follower.stdout.close()
    finally:
        shared.docker.run("rm", "-f", dockers, check=False)
    assert shown[0] == shown[1]
    assert shown[0].startswith(b"before 18\nbefore 19\nafter 0\n")


REFUSALS = [
    ({"sink": ""}, "no sink '', expected one of "),
    ({"sink": "json-file", "max-size": "ten"}, "invalid size: 'ten'"),
    ({"max-size": "-1"}, "invalid size: '-1'"),
    ({"compress": "true"}, "compress cannot be true when max-file is less than 2 or max-size is not set"),
    ({"colour": "red"}, "unknown log opt 'colour' for json-file log driver"),
    ({"sink": "gelf", "gelf-address": "tcp://h:1", "colour": "red"}, 'unknown log opt "colour" for gelf'),
    ({"sink": "gelf", "gelf-address": "tcp://h:1", "gelf-compression-type": "gzip"}, "only supported on UDP"),
    ({"sink": "fluentd", "fluentd-address": "ftp://h"}, "unsupported scheme: 'ftp'"),
    ({"sink": "fluentd", "fluentd-retry-wait": "soon"}, 'time: invalid duration "soon"'),
    ({"sink": "syslog", "syslog-address": "carrier://pigeon"}, "carrier"),
    ({"tag": "{{.Nothing}}"}, "Nothing"),
    ({"labels-regex": "("}, "labels-regex"),
]


@pytest.mark.parametrize(("options", "text"), REFUSALS, ids=lambda value: str(value)[:40])
def test_what_is_refused_is_refused_in_a_drivers_own_words(
    shared: Plugin, docker_engine: Docker, options: dict[str, str], text: str
) -> None:
    shared.serving()
    words = [word for key, value in options.items() for word in ("--log-opt", f"{key}={value}")]
    name = f"refused-{uuid.uuid4().hex[:8]}"
    shared.made.append(name)
    refused = docker_engine.run(
        "run", "--name", name, "--network", "none", "--log-driver", shared.name, *words, "bb:1", "true",
        check=False,
    )  # fmt: skip
    shown = refused.stderr.decode()
    assert refused.returncode == 125
    assert (
        "failed to initialize logging driver: error creating logger: " in shown or "StartLogging: " in shown
    )
    assert text in shown
