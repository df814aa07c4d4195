"""A real Docker Engine's removals, heard of or found out later; an engine that cannot be reached removes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from held_port import hold_port

from logdrivers.plugin.removal import RemovedLines, removed_lines
from tests.logdrivers.plugin.conftest import Docker, Plugin, wait_until


@pytest.fixture
def heard(docker_engine: Docker, make_plugin: Callable[..., Plugin]) -> Plugin:
    """A plugin that listens to the engine."""
    return make_plugin("--docker-socket", f"{docker_engine.root}/s")


def letters(plugin: Plugin, *containers: str) -> str:
    return "".join("ny"[plugin.directory(container).is_dir()] for container in containers)


def confirmed(plugin: Plugin, container: str) -> Any:
    return json.loads((plugin.directory(container) / "container.json").read_bytes())["engine"]


def test_a_removed_containers_directory_goes_and_others_stay(heard: Plugin) -> None:
    removed, auto = heard.container("echo a"), heard.container("echo b; sleep 0.2", "--rm")
    kept = heard.container("echo c")
    heard.docker.run("wait", removed)
    heard.docker.run("rm", removed)
    wait_until(lambda: letters(heard, removed, auto) == "nn", f"the removal: {heard.log()}")
    assert heard.logs(kept).stdout == b"c\n"


def test_what_was_removed_while_the_plugin_was_away_is_found_out(heard: Plugin) -> None:
    gone, kept = heard.container("echo a"), heard.container("echo b")
    heard.docker.run("wait", gone, kept)
    wait_until(lambda: confirmed(heard, gone) and confirmed(heard, kept), "the engine's word")
    heard.stop()
    heard.docker.run("rm", gone)
    heard.start()
    wait_until(lambda: letters(heard, gone) == "n", f"the removal: {heard.log()}")
    assert heard.logs(kept).stdout == b"b\n"


def test_lines_of_a_removed_container_are_delivered_before_it_goes(heard: Plugin) -> None:
    received = b""
    with hold_port() as server:
        port = server.getsockname()[1]
        container = heard.container(
            "echo one; echo two", "--rm", sink="gelf", gelf_address=f"tcp://127.0.0.1:{port}"
        )
        wait_until(
            lambda: removed_lines(heard.root / "state" / "plugin") == RemovedLines(2, 0, 2),
            f"the engine's word: {heard.log()}",
        )
        server.listen()
        connection, _ = server.accept()
        with connection:
            while received.count(b"\0") < 2:
                received += connection.recv(1 << 16)
    wait_until(lambda: letters(heard, container) == "n", f"the removal: {heard.log()}")
    assert [json.loads(text)["short_message"] for text in received.split(b"\0")[:-1]] == ["one", "two"]
    assert removed_lines(heard.root / "state" / "plugin") == RemovedLines(2, 2)


def test_an_engine_that_is_away_or_another_one_removes_nothing(
    heard: Plugin, make_plugin: Callable[..., Plugin]
) -> None:
    container = heard.container("echo a")
    heard.docker.run("wait", container)
    wait_until(lambda: confirmed(heard, container), "the engine's word")
    heard.docker.stop()
    wait_until(lambda: "none is taken for removed" in heard.log(), "the loss of the engine")
    heard.docker.start()
    assert heard.logs(container).stdout == b"a\n"

    # Another engine's socket: nothing of ours is there, and nothing of it is its own.
    record = heard.directory(container) / "container.json"
    heard.stop()
    other = json.loads(record.read_bytes()) | {"engine": "another"}
    record.write_text(json.dumps(other))
    heard.docker.run("rm", container)
    heard.start()
    witness = heard.container("echo b", "--rm")
    wait_until(lambda: letters(heard, witness) == "n", f"the removal of the other: {heard.log()}")
    assert letters(heard, container) == "y"


def test_without_the_engines_word_the_oldest_logs_go_at_the_limit(
    docker_engine: Docker, make_plugin: Callable[..., Plugin], tmp_path: Path
) -> None:
    plugin = make_plugin("--docker-socket", "none", "--max-bytes", "1m")
    containers = [
        plugin.container("i=0; while [ $i -lt 4000 ]; do echo 'a line of some length: 1234567890'; i=$((i+1)); done")
        for _ in range(3)
    ]  # fmt: skip
    plugin.docker.run("wait", *containers)
    plugin.docker.run("rm", containers[2])
    plugin.stop()
    plugin.start()
    wait_until(lambda: letters(plugin, *containers) == "nyy", f"the limit: {plugin.log()}")
