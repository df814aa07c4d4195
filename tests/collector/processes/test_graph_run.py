"""The map over the host alone: its own loop, and what is left of a service that has ended."""

from __future__ import annotations

import asyncio
import socket
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
        async with asyncio.timeout(200):
            while passes < 4:
                await asyncio.sleep(0.01)
        assert not task.done()
        task.cancel()

    asyncio.run(scenario())
    assert "looking for connections failed" in caplog.text


def test_a_service_that_has_ended_is_one_edge_whatever_ports_its_clients_had() -> None:
    containers = Containers()
    graph = ConnectionGraph(containers, Processes(containers).members, Path("/proc"))
    graph.look()
    known = {edge.port for edge in graph.picture().edges}  # services of tests before, which are still closing
    opened = [socket.create_server(("127.0.0.1", 0)) for _ in range(30)]
    ports = sorted({listener.getsockname()[1] for listener in opened} - known)
    *lower, port = ports[-20:]
    for listener in opened:
        listener.close()
    with socket.create_server(("127.0.0.1", port)) as served:
        for own in lower:  # a lower port than the server's: it must not be taken for the service
            with socket.create_connection(("127.0.0.1", port), source_address=("127.0.0.1", own)):
                accepted = served.accept()[0]
            accepted.close()
    graph.look()
    edges = [edge for edge in graph.picture().edges if edge.protocol == "tcp"]
    assert [edge.total for edge in edges if edge.port == port] == [len(lower)]
    assert not [edge for edge in edges if edge.port in lower]
