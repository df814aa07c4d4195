"""What ``taffrail agent`` says when it cannot start."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("key", ["inputs.gelf", "inputs.forward", "http.address"])
def test_an_address_that_is_taken_is_one_line(key: str, tmp_path: Path) -> None:
    settings = {
        "paths.run": f"{tmp_path}/r",
        "paths.state": f"{tmp_path}/s",
        "inputs.gelf": "127.0.0.1:0",
        "inputs.forward": "127.0.0.1:0",
        "http.address": "127.0.0.1:0",
        "collector.cgroups": "false",
    }
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings[key] = f"127.0.0.1:{taken.getsockname()[1]}"
        words = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
        answer = subprocess.run(
            [sys.executable, "-m", "taffrail", *words, "agent"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert answer.returncode == 1
    last = answer.stderr.splitlines()[-1]
    assert last.startswith("taffrail agent: ")
    assert "address already in use" in last.lower()
    assert "Traceback" not in answer.stderr
    assert "never awaited" not in answer.stderr
