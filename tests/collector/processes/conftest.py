"""Processes with a known behaviour, in cgroups of their own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from collector.cgroup.layout import UNIFIED, Layout
from collector.roots import Roots


@pytest.fixture
def until() -> Callable[[Callable[[], object], str], None]:
    def wait(condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + 120
        while not condition():
            assert time.monotonic() < deadline, f"did not come: {what}"
            time.sleep(0.02)

    return wait


@pytest.fixture
def program() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a Python program; it answers ``ready`` and goes on until its standard input is closed."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str, *prefix: str) -> subprocess.Popen[str]:
        whole = f"import sys\n{code}\nprint('ready', flush=True)\nsys.stdin.read()\n"
        process = subprocess.Popen(
            [*prefix, sys.executable, "-I", "-S", "-c", whole],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A cgroup of this test's own, in the hierarchy that counts tasks."""
    layout = Layout.read(Roots())
    name = f"/tfproc-{uuid.uuid4().hex[:8]}"
    directory = layout.directory("pids", name) or layout.directory(UNIFIED, name)
    assert directory is not None
    directory.mkdir()
    yield directory
    removed(directory)


def removed(directory: Path) -> None:
    """Remove a test's cgroup and those in it, with what a test that failed half way left running there."""
    deadline = time.monotonic() + 120
    for path, _, _ in os.walk(directory, topdown=False):
        while True:
            for pid in (Path(path) / "cgroup.procs").read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            try:
                Path(path).rmdir()
                break
            except OSError:  # who was killed is still on the way out
                assert time.monotonic() < deadline, f"cannot remove cgroup {path}"
                time.sleep(0.02)


@pytest.fixture
def on_disk() -> Iterator[Path]:
    """A directory whose files go to a disk: what is written to memory is no storage."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="tfproc") as directory:
        yield Path(directory)
