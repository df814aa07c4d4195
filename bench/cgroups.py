"""Cgroups made for a measurement, on every hierarchy of this host, and removed after it.

They are named like nobody else's, and nothing but our own sleeping processes is ever in them. What is measured
over them is in ``bench/sampling.py``, ``bench/thousand.py`` and ``bench/page.py``.
"""

from __future__ import annotations

import contextlib
import resource
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from collector.cgroup.layout import Layout
from collector.container import Container
from collector.roots import Roots

__all__ = ["made_containers", "made_parent", "open_many_files"]

_CONTROLLERS = ("cpu", "cpuacct", "memory", "pids", "blkio", "")


def open_many_files() -> None:
    """Let this process open as many files as the kernel lets root: a sampler keeps some for each container."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@contextlib.contextmanager
def made_parent() -> Iterator[tuple[str, list[Path]]]:
    """An empty cgroup: its path below each hierarchy's root, and its directory on each."""
    layout = Layout.read(Roots())
    parent = f"/bench-{uuid.uuid4().hex[:8]}"
    found = [layout.directory(controller, parent) for controller in _CONTROLLERS]
    with contextlib.ExitStack() as stack:
        directories = list(dict.fromkeys(directory for directory in found if directory is not None))
        for directory in directories:
            directory.mkdir()
            stack.callback(_remove, directory)
        yield parent, directories


@contextlib.contextmanager
def made_containers(count: int, network: bool) -> Iterator[list[Container]]:
    """Cgroups on every hierarchy of this host with a sleeping process in each."""
    with made_parent() as (parent, parents), contextlib.ExitStack() as stack:
        containers = []
        for number in range(count):
            identity = uuid.uuid4().hex * 2
            for directory in parents:
                (directory / identity).mkdir()
                stack.callback(_remove, directory / identity)
            process = stack.enter_context(_sleeping(network))
            for directory in parents:
                (directory / identity / "cgroup.procs").write_text(str(process))
            if network:
                link = f"ip link add tb{identity[:8]} type veth peer name eth0 netns {process}"
                subprocess.run(link.split(), check=True)
            containers.append(
                Container(
                    id=identity,
                    name=f"service-{number}",
                    image="registry.example/team/service:1.2.3",
                    engine="docker",
                    pid=process,
                    cgroup=f"{parent}/{identity}",
                    network_mode="bridge",
                    labels={"com.docker.compose.project": "shop", "com.docker.compose.service": f"s{number}"},
                )
            )
        yield containers


@contextlib.contextmanager
def _sleeping(network: bool) -> Iterator[int]:
    """The pid of a process that sleeps, in a network namespace of its own if there is to be one."""
    sleep = ["sleep", "3600"]
    with subprocess.Popen(["unshare", "-n", *sleep] if network else sleep) as process:
        try:
            while network and Path(f"/proc/{process.pid}/comm").read_text() != "sleep\n":
                time.sleep(0.01)
            yield process.pid
        finally:
            process.kill()


def _remove(directory: Path) -> None:
    for _ in range(500):
        try:
            directory.rmdir()
            return
        except OSError:
            time.sleep(0.01)
