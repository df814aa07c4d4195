"""What ``taffrail agent`` says when it cannot start, and what it leaves when it stops."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest


def command(root: Path, **settings: str) -> list[str]:
    """An agent of the test's own."""
    known = {
        "paths.run": f"{root}/r",
        "paths.state": f"{root}/s",
        "inputs.gelf": "127.0.0.1:0",
        "inputs.forward": "127.0.0.1:0",
        "http.address": "127.0.0.1:0",
        "collector.cgroups": "false",
        **settings,
    }
    words = [word for name, value in known.items() for word in ("--set", f"{name}={value}")]
    return [sys.executable, "-m", "taffrail", *words, "agent"]


@pytest.mark.parametrize("key", ["inputs.gelf", "inputs.forward", "http.address"])
def test_an_address_that_is_taken_is_one_line(key: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        answer = subprocess.run(
            command(tmp_path, **{key: address}),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert answer.returncode == 1
    last = answer.stderr.splitlines()[-1]
    assert last.startswith("taffrail agent: ")
    assert "address already in use" in last.lower()
    assert "Traceback" not in answer.stderr
    assert "never awaited" not in answer.stderr


@pytest.fixture
def short_directory() -> Iterator[Path]:
    """A socket's path has 107 bytes at most."""
    made = Path(tempfile.mkdtemp(prefix="ta", dir="/tmp"))
    yield made
    shutil.rmtree(made)


def test_a_clean_stop_takes_the_socket_and_the_addresses_along(short_directory: Path) -> None:
    left = [short_directory / "r" / name for name in ("agent.json", "agent.sock")]
    agent = subprocess.Popen(command(short_directory), stderr=subprocess.PIPE, text=True)
    assert agent.stderr is not None
    try:
        deadline = time.monotonic() + 120
        while not all(path.exists() for path in left):
            assert agent.poll() is None, agent.stderr.read()
            assert time.monotonic() < deadline, "the agent says nowhere where it listens"
            time.sleep(0.05)
    finally:
        agent.terminate()
        _, said = agent.communicate(timeout=120)
    assert agent.returncode == 0, said
    assert not [path for path in left if path.exists()]
