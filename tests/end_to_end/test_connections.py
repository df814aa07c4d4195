"""Who talks to whom, through published ports and masquerading, on the agent's API."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

ECHO = ("nc", "-ll", "-p", "80", "-e", "cat")


@pytest.fixture
def web(shared_taffrail: Any, image: str) -> Iterator[tuple[str, str, str, int]]:
    """An echo server on a published port: tag of its names, address, gateway, port on the host."""
    tag = uuid.uuid4().hex[:6]
    name = f"web-{tag}"
    shared_taffrail.docker("run", "-d", "--name", name, "-p", "0:80", image, *ECHO)
    where = "{{.NetworkSettings.IPAddress}} {{.NetworkSettings.Gateway}}"
    address, gateway = shared_taffrail.docker("inspect", "-f", where, name).split()
    port = int(shared_taffrail.docker("port", name, "80").split("\n")[0].rpartition(":")[2])
    yield tag, address, gateway, port
    shared_taffrail.docker("rm", "-f", name, f"direct-{tag}", f"hairpin-{tag}", check=False)


def connections(taffrail: Any, container: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(taffrail.get(f"/api/v1/connections?container={container}"))[
        "connections"
    ]
    return [row for row in found if row["state"] == "ESTABLISHED"]


def connect(port: int, seconds: float = 120.0) -> socket.socket:
    deadline = time.monotonic() + seconds
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=120)
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, "nobody listens on the published port"
            time.sleep(0.1)


def test_connections_are_named_through_address_translation_and_make_a_map(
    shared_taffrail: Any, image: str, web: tuple[str, str, str, int], eventually: Any
) -> None:
    tag, address, gateway, port = web
    server, direct, hairpin = f"web-{tag}", f"direct-{tag}", f"hairpin-{tag}"
    with connect(port) as client:
        client.sendall(bytes(1234))
        for name, target in ((direct, f"{address} 80"), (hairpin, f"{gateway} {port}")):
            shared_taffrail.docker(
                "run", "-d", "--name", name, image, "sh", "-c", f"(echo hi; sleep 600) | nc {target}"
            )
        eventually(lambda: len(connections(shared_taffrail, server)) == 3, "three connections")
        peers = {row["remote_name"]: row for row in connections(shared_taffrail, server)}
        assert set(peers) == {"host", direct, hairpin}
        assert peers["host"]["process"] == "cat"
        assert peers["host"]["translated"] == f"127.0.0.1:{client.getsockname()[1]}"
        assert peers["host"]["bytes_received"] == 1234
        assert peers[hairpin]["remote"] == gateway, "what the server sees is the gateway"
        (row,) = connections(shared_taffrail, hairpin)
        assert (row["remote"], row["remote_name"]) == (gateway, server)
        assert row["translated"] == f"{address}:80"
        (row,) = [row for row in connections(shared_taffrail, "/") if row["remote_port"] == port]
        assert row["remote_name"] == server

        def edges() -> dict[str, dict[str, Any]]:
            picture = json.loads(shared_taffrail.get("/api/v1/connections"))
            names = {node["id"]: node["name"] for node in picture["nodes"]}
            return {names[e["client"]]: e for e in picture["edges"] if names[e["server"]] == server}

        def sent() -> dict[str, int]:
            return {name: edge["bytes_sent"] for name, edge in edges().items()}

        expected = {"host": 1234, direct: 3, hairpin: 3}
        eventually(lambda: sent() == expected, "three edges on the map, with what was sent")
        found = edges()
        assert {edge["port"] for edge in found.values()} == {80}, "the port behind the translation"
        assert (found["host"]["bytes_sent"], found["host"]["bytes_received"]) == (1234, 1234)
        assert (found[direct]["bytes_sent"], found[direct]["connections"]) == (3, 1)

        before = shared_taffrail.agent_pid()
        os.kill(before, signal.SIGTERM)
        eventually(lambda: shared_taffrail.agent_pid() not in (0, before), "another agent")

        def past() -> str:
            words = ("history", direct, "--connections", "--since", "10m")
            return str(shared_taffrail.taffrail(*words, check=False))

        eventually(lambda: server in past(), "the edge that the agent before had seen")
        assert re.search(rf"^{direct} +{server} +80/tcp +1 +3B +3B ", past(), re.MULTILINE), past()
