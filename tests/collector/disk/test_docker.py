"""The same on a real Docker Engine, whose directories it finds from the container's mount table alone."""

from __future__ import annotations

import json
import subprocess
import time
import uuid
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from collector.container import Container, LogSource
from collector.disk.group import DiskGroup
from collector.disk.walker import Walker
from collector.roots import Roots

SCRIPT = (
    "dd if=/dev/zero of=/ten bs=1M count=10 && dd if=/dev/zero of=/data/three bs=1M count=3 && "
    "rm /bin/vi; sync; echo ready; sleep 600"
)


def test_layer_log_and_volume_of_docker(docker_engine: Any, request: pytest.FixtureRequest) -> None:
    name = f"disk-{uuid.uuid4().hex[:8]}"
    docker_engine.run(
        "run", "-d", "--name", name, "--network", "none", "-v", f"{name}:/data", "test/busybox", "sh", "-c", SCRIPT
    )  # fmt: skip
    request.addfinalizer(lambda: docker_engine.run("rm", "-f", "-v", name))
    deadline = time.monotonic() + 200
    while b"ready" not in docker_engine.run("logs", name).stdout:
        assert time.monotonic() < deadline, "the container did not write its files"
        time.sleep(0.05)
    facts = json.loads(docker_engine.run("inspect", name).stdout)[0]
    log = LogSource("json-file", facts["LogPath"])
    container = Container(id=facts["Id"], name=name, pid=facts["State"]["Pid"], log=log)
    target: Any = SimpleNamespace(container=container)
    found = {family: value for family, _, value in DiskGroup(Roots(), walker=Walker(1.0)).read(target)}

    volume = docker_engine.root / "data/volumes" / name / "_data"
    assert found["container_fs_usage_bytes"] == du(Path(facts["GraphDriver"]["Data"]["UpperDir"]))
    assert found["container_volume_bytes"] == du(volume)
    assert found["container_log_bytes"] == Path(facts["LogPath"]).stat().st_blocks * 512
    assert found["container_fs_usage_bytes"] >= 10 << 20
    assert found["container_volume_bytes"] >= 3 << 20


def du(path: Path) -> int:
    done = subprocess.run(["du", "-sx", "-B1", path], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[0])
