"""A thousand cgroups, and cgroups that come and go quickly: all counted, none left open, none kept in memory."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from collector.cgroup.layout import Layout
from collector.container import Container
from collector.discovery.registry import Containers
from collector.roots import Roots
from collector.sampler import HOST, Sampler

CONTROLLERS = ("cpu", "cpuacct", "memory", "pids", "blkio", "")


class Group:
    """A cgroup without processes on every hierarchy, and others below it."""

    def __init__(self) -> None:
        self.path = f"/taffrail-test-{uuid.uuid4().hex[:12]}"
        layout = Layout.read(Roots())
        found = [layout.directory(controller, self.path) for controller in CONTROLLERS]
        self.roots = list(dict.fromkeys(directory for directory in found if directory is not None))
        for directory in self.roots:
            directory.mkdir(exist_ok=True)
        self._numbers = itertools.count(1)

    def make(self) -> Container:
        """One more below it, as its engine would tell of it."""
        identity = f"{next(self._numbers):064x}"
        for root in self.roots:
            (root / identity).mkdir()
        return Container(
            id=identity, name=f"c{identity[-6:]}", engine="docker", cgroup=f"{self.path}/{identity}",
            network_mode="none", image="many",
        )  # fmt: skip

    def remove(self, container: Container) -> None:
        for root in self.roots:
            (root / container.id).rmdir()

    def end(self) -> None:
        for root in self.roots:
            for child in root.iterdir():
                if child.is_dir():
                    child.rmdir()
            root.rmdir()


@pytest.fixture
def group() -> Iterator[Group]:
    made = Group()
    yield made
    made.end()


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def test_a_thousand_are_all_read_and_given_back(group: Group) -> None:
    containers = Containers()
    sampler = Sampler(containers)
    before = open_files()
    try:
        made = [group.make() for _ in range(1000)]
        for container in made:
            containers.update(container)
        sampler.sample_all()
        kept = open_files() - before
        sampler.sample_all()
        assert open_files() - before == kept  # a pass opens nothing
        assert kept <= 20 * len(made)
        samples = [sampler.latest(container.id) for container in made]
        assert all(sample is not None and sample.errors == () for sample in samples)
        assert all(sample.cpu and sample.memory and sample.pids == 0 for sample in samples if sample)
        assert len({sample.time_ns for sample in samples if sample}) == 1  # of one moment
        for container in made:
            containers.remove(container.id, "docker")
        assert open_files() == before
        assert sampler.failures == {}
    finally:
        sampler.close()


def test_cgroups_that_come_and_go_leave_nothing(group: Group) -> None:
    """A hundred at a time appear and vanish under a sampler that never stops reading."""
    clock = [0]
    containers = Containers(300, lambda: clock[0])
    sampler = Sampler(containers)
    stop = threading.Event()
    faults: list[BaseException] = []

    def passes() -> None:
        try:
            while not stop.is_set():
                sampler.sample_all()
        except BaseException as error:
            faults.append(error)
            raise

    before = open_files()
    reader = threading.Thread(target=passes)
    reader.start()
    try:
        for round_number in range(10):
            made = [group.make() for _ in range(100)]
            for container in made:
                containers.update(container)
            for container in made[::2]:  # the cgroup goes first, in the middle of whatever is read
                group.remove(container)
            for container in made:
                containers.remove(container.id, "docker")
            for container in made[1::2]:  # or the engine's word comes first
                group.remove(container)
            assert all(sampler.latest(container.id) is not None for container in made), round_number
            clock[0] += 301 * 10**9  # the tombstones are over
    finally:
        stop.set()
        reader.join()
        sampler.sample_all()
        left = open_files()
        sampler.close()
    assert faults == []
    assert sampler.failures == {}
    assert left == before
    assert sampler.targets() == {}
    assert all(sampler.latest(f"{number:064x}") is None for number in range(1, 1001))
    assert (containers.all(), containers.tombstones()) == ((), ())


def test_processes_that_end_at_once_leave_no_watch(make_cgroup: Callable[[], Any]) -> None:
    """The descriptors that tell of a process's end are given back, however it ended."""

    async def scenario() -> None:
        containers = Containers()
        sampler = Sampler(containers, interval=0.02)
        running = asyncio.create_task(sampler.run())
        while sampler.passes == 0:
            await asyncio.sleep(0.01)
        before = open_files()
        for _ in range(20):
            made = make_cgroup()
            process = made.python("pass\n")
            containers.update(
                Container(id=made.id, name=made.id[:8], engine="docker", pid=process.pid, network_mode="none")
            )
            process.wait()
            containers.remove(made.id, "docker")
            made.end()
            for pipe in (process.stdin, process.stdout):
                pipe.close()
        async with asyncio.timeout(200):
            while open_files() > before:
                await asyncio.sleep(0.01)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        sampler.close()

    asyncio.run(scenario())


def test_a_counter_that_goes_back_is_shown_as_it_is(recorded: Callable[[str], Roots], tmp_path: Path) -> None:
    """A reset is the reader's business (``rate`` knows it); shares of a second are never below zero."""
    for part in ("proc", "sys", "root"):
        shutil.copytree(getattr(recorded("v1"), part), tmp_path / part, symlinks=True)
    containers = Containers()
    identity = "4f" * 32
    containers.update(Container(id=identity, name="web", pid=4242, network_mode="none"))
    sampler = Sampler(containers, Roots(*(tmp_path / part for part in ("proc", "sys", "root"))))
    try:
        sampler.sample_all(10**18)
        first = sampler.latest(identity)
        (usage,) = (tmp_path / "sys").rglob(f"*{identity}*/cpuacct.usage")
        with usage.open("r+") as file:  # in place: the sampler holds it open
            file.truncate()
            file.write("1000000000\n")
        stat = (tmp_path / "proc/stat").read_text()
        assert "cpu  100000 " in stat
        with (tmp_path / "proc/stat").open("r+") as file:  # the host's time goes on
            file.write(stat.replace("cpu  100000 ", "cpu  100100 "))
        sampler.sample_all(10**18 + 10**9)
        second = sampler.latest(identity)
        assert first is not None
        assert first.cpu is not None
        assert second is not None
        assert second.cpu is not None
        assert second.cpu.usage_seconds == 1.0 < first.cpu.usage_seconds
        assert sampler.stats(identity).cpu_percent == 0
        host = sampler.latest(HOST)
        assert host is not None
        assert host.host_cpu_seconds == pytest.approx((first.host_cpu_seconds or 0) + 1)
    finally:
        sampler.close()
