"""Real cgroups and recorded host trees for tests of the collector."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from collector.cgroup.layout import UNIFIED, Layout
from collector.roots import Roots

FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.fixture
def recorded() -> Callable[[str], Roots]:
    """A recorded host by name: ``v1``, ``hybrid``, ``v2``."""
    return lambda name: Roots(FIXTURES / name / "proc", FIXTURES / name / "sys", FIXTURES / name / "root")


def eventually(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    """Wait until a condition holds; fail when it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not come true"
        time.sleep(0.01)


@dataclass
class MadeCgroup:
    """A cgroup of our own on every hierarchy of this host, and its processes."""

    id: str = field(default_factory=lambda: uuid.uuid4().hex * 2)
    directories: dict[str, Path] = field(default_factory=dict)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def path(self) -> str:
        return f"/{self.id}"

    def python(self, code: str, *prefix: str) -> subprocess.Popen[bytes]:
        """Start a Python program inside; its standard output is a pipe."""
        files = [directory / "cgroup.procs" for directory in self.directories.values()]
        script = "import os,sys\nfor p in sys.argv[1].split(','):\n open(p,'w').write('0')\n" + code
        process = subprocess.Popen(
            [*prefix, sys.executable, "-S", "-c", script, ",".join(map(str, files))],
            stdout=subprocess.PIPE,
            stdin=subprocess.PIPE,
        )
        self.processes.append(process)
        return process

    def limit_memory(self, size: int) -> None:
        """Let its processes have so many bytes (v1), and no swap where the host has some: more is a kill."""
        (self.directories["memory"] / "memory.swappiness").write_text("0")
        (self.directories["memory"] / "memory.limit_in_bytes").write_text(str(size))

    def end(self) -> None:
        """End the processes and remove the directories."""
        for process in self.processes:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                pipe.close()
        for directory in self.directories.values():
            eventually(functools.partial(_removed, directory))
        self.directories.clear()


def _removed(directory: Path) -> bool:
    """Remove a cgroup; false while a process that was killed is still in it."""
    try:
        directory.rmdir()
    except OSError as error:
        return isinstance(error, FileNotFoundError)
    return True


@pytest.fixture
def make_cgroup() -> Iterator[Callable[[], MadeCgroup]]:
    """Make cgroups; they are removed at the end."""
    assert os.geteuid() == 0, "tests of the sampler make cgroups and need root"
    layout = Layout.read(Roots())
    made: list[MadeCgroup] = []

    def make() -> MadeCgroup:
        cgroup = MadeCgroup()
        made.append(cgroup)
        for controller in ("cpu", "cpuacct", "memory", "pids", "blkio", UNIFIED):
            directory = layout.directory(controller, cgroup.path)
            if directory is not None and directory not in cgroup.directories.values():
                directory.mkdir()
                cgroup.directories[controller] = directory
        return cgroup

    yield make
    for cgroup in made:
        cgroup.end()
