"""The logs of a real Docker Engine, tailed while it writes, rotates and compresses them."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from collector.container import Container, LogSource
from collector.discovery.registry import Containers
from collector.enrich import Sources
from collector.inputs.tails import Tails

ROUNDS, LINES = 30, 400
SCRIPT = (
    f"i=0; while [ $i -lt {ROUNDS} ]; do n=0; "
    f'while [ $n -lt {LINES} ]; do echo "line $((i * {LINES} + n)) \\"quoted\\" ............."; n=$((n + 1)); done; '
    "i=$((i + 1)); sleep 0.1; done"
)


@pytest.mark.parametrize("options", [("max-file=4",), ("max-file=4", "compress=true")])
def test_every_line_once_through_rotation(dockerd: Any, intake: Any, options: tuple[str, ...]) -> None:
    opts = [part for option in ("max-size=100k", *options) for part in ("--log-opt", option)]
    name = "rotating"
    run = ("run", "-d", "--network", "none", "--name", name, "--log-driver", "json-file", *opts)
    identity = dockerd.docker(*run, "bb:1", "sh", "-c", SCRIPT).stdout.strip()
    path = dockerd.docker("inspect", "-f", "{{.LogPath}}", name).stdout.strip()
    containers = Containers()
    containers.update(Container(identity, name, engine="docker", log=LogSource("json-file", path)))
    tails = Tails(containers, intake, Sources(containers, "host"))
    thread = threading.Thread(target=tails.run_forever)
    thread.start()
    try:
        deadline = time.monotonic() + 120
        while sum(block.lines for _, block in tuple(intake.blocks)) < ROUNDS * LINES:
            assert time.monotonic() < deadline, f"{len(intake.messages())} lines"
            time.sleep(0.05)
    finally:
        tails.stop()
        thread.join()
    assert [int(message.split()[1]) for message in intake.messages()] == list(range(ROUNDS * LINES))
    assert tails.totals().rotations >= 5
    assert tails.totals().unverified_rotations == 0
