"""The units: systemd takes them, and the plugin tells it when docker may start."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

UNITS = sorted((Path(__file__).parents[2] / "taffrail" / "systemd").glob("*.service"))


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_finds_nothing_wrong_with_a_unit(unit: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False
    )
    about_it = [line for line in done.stderr.splitlines() if unit.name in line]
    assert (done.returncode, about_it) == (0, [])


def test_the_plugin_says_when_it_listens() -> None:
    root = Path(tempfile.mkdtemp(dir="/tmp"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(root / "notify"))
        systemd.settimeout(120)
        plugin = subprocess.Popen(
            [sys.executable, "-m", "taffrail", "--set", f"paths.state={root}/state",
             "--set", f"paths.run={root}/run", "plugin", "--socket-dir", root, "--docker-socket", "none"],
            env={**os.environ, "NOTIFY_SOCKET": str(root / "notify")}, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            assert systemd.recv(100) == b"READY=1"
            with socket.socket(socket.AF_UNIX) as engine:
                engine.connect(str(root / "taffrail.sock"))
        finally:
            plugin.terminate()
            plugin.wait(100)
            shutil.rmtree(root)
