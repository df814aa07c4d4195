"""The logs of a real Docker Engine, tailed while it writes, rotates and compresses them."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from collector.container import Container, LogSource
from collector.discovery.registry import Containers
from collector.enrich import Sources
from collector.inputs.tails import Tails

ROUNDS, LINES = 30, 400
#: So many rounds the writer may be ahead: 45 kB each, and Docker keeps four files of 100 kB.
AHEAD = 3
#: A round of lines for each line of its input.
SCRIPT = (
    "i=0; while read go; do n=0; "
    f'while [ $n -lt {LINES} ]; do echo "line $((i * {LINES} + n)) \\"quoted\\" ............."; n=$((n + 1)); done; '
    "i=$((i + 1)); done; sleep 1000"
)


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 200
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("options", [("max-file=4",), ("max-file=4", "compress=true")])
def test_every_line_once_through_rotation(dockerd: Any, intake: Any, options: tuple[str, ...]) -> None:
    opts = [part for option in ("max-size=100k", *options) for part in ("--log-opt", option)]
    name = "rotating"
    run = ("create", "-i", "--network", "none", "--name", name, "--log-driver", "json-file", *opts)
    identity = dockerd.docker(*run, "bb:1", "sh", "-c", SCRIPT).stdout.strip()
    writer = subprocess.Popen(
        ["docker", "-H", f"unix://{dockerd.socket}", "start", "-ai", name],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    try:
        written(dockerd, name, identity, writer, intake)
    finally:
        writer.kill()
        writer.communicate()


def written(dockerd: Any, name: str, identity: str, writer: subprocess.Popen[bytes], intake: Any) -> None:
    """Let it write, round for round, and look at what was read."""
    assert writer.stdin is not None
    eventually(lambda: dockerd.docker("inspect", "-f", "{{.State.Running}}", name).stdout == "true\n")
    path = dockerd.docker("inspect", "-f", "{{.LogPath}}", name).stdout.strip()
    containers = Containers()
    containers.update(Container(identity, name, engine="docker", log=LogSource("json-file", path)))
    tails = Tails(containers, intake, Sources(containers, "host"))
    thread = threading.Thread(target=tails.run_forever, daemon=True)
    thread.start()

    def read(rounds: int) -> bool:
        return sum(block.lines for _, block in tuple(intake.blocks)) >= rounds * LINES

    try:
        for number in range(ROUNDS):
            eventually(lambda number=number: read(number - AHEAD))
            writer.stdin.write(b"go\n")
            writer.stdin.flush()
        eventually(lambda: read(ROUNDS))
    finally:
        tails.stop()
        thread.join(60)
    assert not thread.is_alive()
    assert [int(message.split()[1]) for message in intake.messages()] == list(range(ROUNDS * LINES))
    assert tails.totals().rotations >= 5
    assert tails.totals().unverified_rotations == 0
