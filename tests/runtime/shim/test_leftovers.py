"""Cgroups left over by an OCI runtime that was killed: what is in them ends, and nothing else."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.shim import leftovers

PIDS = Path("/sys/fs/cgroup/pids")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = f"/tf-left-{uuid.uuid4().hex[:8]}"
    (tmp_path / "config.json").write_text(json.dumps({"linux": {"cgroupsPath": path}}))
    return tmp_path


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "1000"])
    yield process
    process.kill()
    process.wait()


def cgroup(bundle: Path) -> Path:
    top = PIDS if PIDS.is_dir() else PIDS.parent
    directory: Path = top / json.loads((bundle / "config.json").read_text())["linux"]["cgroupsPath"][1:]
    directory.mkdir()
    return directory


def test_the_processes_and_the_cgroup_go(bundle: Path, sleeper: subprocess.Popen[bytes]) -> None:
    directory = cgroup(bundle)
    (directory / "cgroup.procs").write_text(str(sleeper.pid))
    leftovers.remove_cgroups(bundle)
    assert not directory.exists()
    assert sleeper.wait(30) == -9


def test_a_process_elsewhere_that_got_a_number_from_the_list_is_not_killed(
    bundle: Path, sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = cgroup(bundle)
    lists = iter([[sleeper.pid]])
    members = leftovers._members
    monkeypatch.setattr(leftovers, "_members", lambda path: next(lists, None) or members(path))
    leftovers.remove_cgroups(bundle)
    assert not directory.exists()
    assert sleeper.poll() is None
