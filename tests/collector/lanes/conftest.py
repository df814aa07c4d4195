"""Containers of the test's own, with sockets, descriptors and threads whose number is known."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from collector.container import Container
from collector.discovery.registry import Containers
from collector.lanes.board import Reading
from collector.sampler import Sampler
from collector.target import Target

LOOPBACK = "import subprocess, socket\nsubprocess.run(['ip', 'link', 'set', 'lo', 'up'], check=True)\n"
READY = "\nimport sys\nprint('ready', flush=True)\nsys.stdin.readline()\n"

Values = Mapping[tuple[str, str], float]


def values(readings: Any) -> dict[tuple[str, str], float]:
    """Readings by family and the values of their labels, which no two may share."""
    found: dict[tuple[str, str], float] = {}
    for family, labels, value in readings:
        key = family, ",".join(text for _, text in labels)
        assert key not in found, f"{key} twice"
        found[key] = value
    return found


class Running:
    """One container that runs a program of the test, in a network namespace of its own."""

    def __init__(self, sampler: Sampler, container: Container, process: Any) -> None:
        self.sampler = sampler
        self.container = container
        self.process = process

    @property
    def target(self) -> Target:
        return self.sampler.targets()[self.container.id]

    def read(self, group: Any) -> dict[tuple[str, str], float]:
        readings = group.read(self.target)
        assert all(isinstance(reading, Reading) for reading in readings)
        return values(readings)


@pytest.fixture
def containers() -> Containers:
    return Containers()


@pytest.fixture
def sampler(containers: Containers) -> Iterator[Sampler]:
    sampler = Sampler(containers)
    yield sampler
    sampler.close()


@pytest.fixture
def run(make_cgroup: Any, containers: Containers, sampler: Sampler) -> Iterator[Callable[..., Running]]:
    """Run a Python program as a container; its children end with it."""
    directories: list[Path] = []

    def start(code: str = "", network: bool = True, **more: Any) -> Running:
        made = make_cgroup()
        directories.append(made.directories["pids"])
        prefix = ("unshare", "-n") if network else ()
        process = made.python((LOOPBACK if network else "") + code + READY, *prefix)
        assert process.stdout.readline() == b"ready\n"
        more = {"network_mode": "bridge" if network else "host", "name": f"c{made.id[:8]}"} | more
        container = Container(id=made.id, pid=process.pid, cgroup=made.path, engine="docker", **more)
        containers.update(container)
        return Running(sampler, container, process)

    yield start
    for directory in directories:
        for pid in (directory / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
