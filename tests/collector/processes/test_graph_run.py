"""The map's own loop: a pass that fails is a gap in the map and nothing more."""

from __future__ import annotations

import asyncio
import struct
from pathlib import Path

import pytest

from collector.discovery.registry import Containers
from collector.processes.graph import ConnectionGraph
from collector.processes.tree import Processes


def test_a_pass_that_fails_is_made_again(caplog: pytest.LogCaptureFixture) -> None:
    containers = Containers()
    graph = ConnectionGraph(containers, Processes(containers).members, Path("/proc"), interval=0.01)
    look, passes = graph.look, 0

    def second_fails(now_ns: int | None = None) -> float:
        nonlocal passes
        passes += 1
        if passes == 2:
            raise struct.error("unpack_from requires a buffer")
        look(now_ns)
        return 0.0

    graph.look = second_fails  # type: ignore[method-assign]

    async def scenario() -> None:
        task = asyncio.create_task(graph.run())
        async with asyncio.timeout(60):
            while passes < 4:
                await asyncio.sleep(0.01)
        assert not task.done()
        task.cancel()

    asyncio.run(scenario())
    assert "looking for connections failed" in caplog.text
