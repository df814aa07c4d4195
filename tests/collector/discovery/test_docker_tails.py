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
from collector.sink import Source
from logdrivers.block import Block
from logdrivers.codecs import json_file as codec

ROUNDS, LINES = 30, 400
SCRIPT = (
    f"i=0; while [ $i -lt {ROUNDS} ]; do n=0; "
    f'while [ $n -lt {LINES} ]; do echo "line $((i * {LINES} + n)) \\"quoted\\" ............."; n=$((n + 1)); done; '
    "i=$((i + 1)); sleep 0.1; done"
)


class Intake:
    """Keeps what it gets."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []

    def append(self, source: Source, block: Block, checkpoint: tuple[str, bytes] | None = None) -> None:
        self.blocks.append(block)

    def checkpoint(self, key: str) -> bytes | None:
        return None

    def numbers(self) -> list[int]:
        return [int(r.log.split()[1]) for block in tuple(self.blocks) for r in codec.decode(block.data)]


@pytest.mark.parametrize("options", [("max-file=4",), ("max-file=4", "compress=true")])
def test_every_line_once_through_rotation(dockerd: Any, options: tuple[str, ...]) -> None:
    opts = [part for option in ("max-size=100k", *options) for part in ("--log-opt", option)]
    name = "rotating"
    run = ("run", "-d", "--network", "none", "--name", name, "--log-driver", "json-file", *opts)
    identity = dockerd.docker(*run, "bb:1", "sh", "-c", SCRIPT).stdout.strip()
    path = dockerd.docker("inspect", "-f", "{{.LogPath}}", name).stdout.strip()
    containers = Containers()
    containers.update(Container(identity, name, engine="docker", log=LogSource("json-file", path)))
    intake = Intake()
    tails = Tails(containers, intake, Sources(containers, "host"))
    thread = threading.Thread(target=tails.run_forever)
    thread.start()
    try:
        deadline = time.monotonic() + 120
        while sum(block.lines for block in tuple(intake.blocks)) < ROUNDS * LINES:
            assert time.monotonic() < deadline, f"{len(intake.numbers())} lines"
            time.sleep(0.05)
    finally:
        tails.stop()
        thread.join()
    assert intake.numbers() == list(range(ROUNDS * LINES))
    assert tails.totals().rotations >= 5
    assert tails.totals().unverified_rotations == 0
