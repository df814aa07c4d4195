"""Real containers of podman and containerd, found without a socket; cgroups made by the hundred."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import tempfile
import threading
import time
import tracemalloc
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import live
import pytest

from collector.container import Container
from collector.discovery.cgroups import CgroupDiscovery
from collector.discovery.engine_api import EngineDiscovery
from collector.discovery.registry import Containers
from collector.enrich import Sources
from collector.inputs.tails import Tails
from collector.sampler import Sampler
from logdrivers.codecs import json_file as codec


@pytest.fixture(scope="module")
def podman() -> Iterator[Any]:
    engine = live.Podman(Path(tempfile.mkdtemp(dir="/tmp", prefix="tfp")))
    try:
        yield engine
    finally:
        engine.close()


@pytest.fixture(scope="module")
def containerd() -> Iterator[Any]:
    engine = live.Containerd(Path(tempfile.mkdtemp(dir="/tmp", prefix="tfc")))
    yield engine
    engine.close()


class Following:
    """A registry and a sampler that follow the cgroups of this host."""

    def __init__(self, **more: Any) -> None:
        self.containers = Containers()
        self.heard: list[tuple[str, str, str]] = []
        self.containers.subscribe(lambda event, c: self.heard.append((event, c.name, c.state)))
        self.discovery = CgroupDiscovery(self.containers, **more)

    async def until(self, condition: Callable[[], Any]) -> Any:
        async with asyncio.timeout(200):
            while not (found := condition()):
                await asyncio.sleep(0.01)
        return found

    def named(self, name: str) -> Container:
        found = self.containers.get(name)
        assert found is not None
        return found


@contextlib.asynccontextmanager
async def following(**more: Any) -> AsyncIterator[Following]:
    follow = Following(**more)
    task = asyncio.create_task(follow.discovery.run())
    try:
        await follow.until(lambda: follow.discovery.watches or task.done())
        yield follow
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_podman_without_a_socket(podman: Any) -> None:
    async def scenario() -> None:
        before = await asyncio.to_thread(podman.run, "before", "sleep 1000", "-l", "a.b=c", "-m", "64m")
        async with following() as follow:
            found = follow.named("before")
            assert (found.id, found.image, found.engine) == (before, "localhost/bb:1", "podman")
            assert (found.labels, found.memory_limit_bytes) == ({"a.b": "c"}, 64 << 20)
            assert (found.network_mode, found.state) == ("none", "running")
            await follow.until(lambda: Path(f"/proc/{found.pid}/comm").read_text() == "sleep\n")
            later = await asyncio.to_thread(podman.run, "later", "sleep 1000")
            await follow.until(lambda: follow.containers.get(later))
            await follow.until(lambda: follow.named("later").log.driver == "k8s-file")
            await asyncio.to_thread(podman, "kill", "later")
            await follow.until(lambda: follow.named("later").exit_code == 137)
            assert later in {container.id for container in follow.containers.all()}
            await asyncio.to_thread(podman, "start", "later")
            await follow.until(lambda: follow.named("later").state == "running")
            assert Path(f"/proc/{follow.named('later').pid}/comm").exists()
            await asyncio.to_thread(podman, "rm", "-f", "-t", "0", "later")
            await follow.until(lambda: ("removed", "later", "exited") in follow.heard)
            assert follow.named("later").exit_code == 137  # by its tombstone
            await asyncio.to_thread(podman, "rm", "-f", "-t", "0", "before")

    asyncio.run(scenario())


def test_a_brief_container_of_podman_leaves_its_numbers_and_its_exit_code(
    podman: Any, tmp_path: Path
) -> None:
    """What it does is brief, and begins when it is known, which on a busy host takes longer."""
    burn = (
        "until [ -e /go/now ]; do sleep 0.02; done; i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; exit 7"
    )

    async def scenario() -> None:
        async with following() as follow:
            sampler = Sampler(follow.containers, interval=3600)
            sampling = asyncio.create_task(sampler.run())
            await asyncio.to_thread(podman.run, "brief", burn, "--rm", "-v", f"{tmp_path}:/go")
            await follow.until(lambda: (found := follow.containers.get("brief")) and sampler.latest(found.id))
            (tmp_path / "now").touch()
            await follow.until(lambda: ("removed", "brief", "exited") in follow.heard)
            brief = follow.named("brief")
            await follow.until(lambda: follow.named("brief").exit_code == 7)
            sample = sampler.latest(brief.id)
            assert sample is not None
            assert sample.cpu is not None
            assert sample.cpu.usage_seconds > 0.01
            sampling.cancel()
            await asyncio.gather(sampling, return_exceptions=True)
            sampler.close()

    asyncio.run(scenario())


def test_podmans_log_is_tailed(podman: Any, intake: Any) -> None:
    loop = 'i=0; while [ $i -lt 500 ]; do echo "line $i \\"q\\""; echo e >&2; i=$((i+1)); done; '
    script = f"{loop} printf open; sleep 1000"

    async def scenario() -> None:
        async with following() as follow:
            tails = Tails(follow.containers, intake, Sources(follow.containers, "host"))
            thread = threading.Thread(target=tails.run_forever, daemon=True)
            thread.start()
            try:
                await asyncio.to_thread(podman.run, "talks", script)
                await follow.until(lambda: tails.totals().lines >= 1001)
            finally:
                tails.stop()
                thread.join(60)
            await asyncio.to_thread(podman, "rm", "-f", "-t", "0", "talks")

    asyncio.run(scenario())
    mine = [block for source, block in intake.blocks if source.container_name == "talks"]
    records = [record for block in mine for record in codec.decode(block.data)]
    out = [record.log for record in records if record.stream.text == "stdout"]
    assert out == [b'line %d "q"\n' % number for number in range(500)] + [b"open"]
    assert sum(record.log == b"e\n" for record in records) == 500


def test_podmans_socket_started_later_knows_better_and_it_is_one_container(podman: Any) -> None:
    socket = podman.root / "api" / "podman.sock"

    async def scenario() -> None:
        async with following() as follow:
            engine = EngineDiscovery(socket, follow.containers, max_wait=0.2)
            task = asyncio.create_task(engine.run())
            both = await asyncio.to_thread(podman.run, "both", "sleep 1000")
            await follow.until(lambda: follow.containers.get(both))
            assert follow.containers.offered(both)
            socket.parent.mkdir()
            service = await asyncio.create_subprocess_exec(
                *podman.command, "system", "service", "--time=0", f"unix://{socket}"
            )
            try:
                await follow.until(lambda: engine.connected)
                await follow.until(lambda: not follow.containers.offered(both))
                assert follow.named("both").engine == "podman"
                assert [c.id for c in follow.containers.all() if c.name == "both"] == [both]
            finally:
                service.terminate()
                await service.wait()
            await asyncio.to_thread(podman, "rm", "-f", "-t", "0", "both")
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scenario())


def test_podman_of_a_user_without_rights(intake: Any) -> None:
    engine = live.RootlessPodman(Path(tempfile.mkdtemp(dir="/tmp", prefix="tfr")))

    async def scenario() -> None:
        async with following(below=f"/tf-{engine.root.name}") as follow:
            sampler = Sampler(follow.containers, interval=3600)
            tails = Tails(follow.containers, intake, Sources(follow.containers, "host"))
            thread = threading.Thread(target=tails.run_forever, daemon=True)
            thread.start()
            try:
                burn = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; echo mine; sleep 1000"
                mine = await asyncio.to_thread(engine.run, "mine", burn, "-l", "a.b=c")
                await follow.until(lambda: follow.containers.get(mine))
                found = follow.named("mine")
                assert (found.image, found.engine, found.labels) == ("localhost/bb:1", "podman", {"a.b": "c"})
                assert found.cgroup == f"/tf-{engine.root.name}/{mine}"
                assert found.log.path.startswith(f"{engine.root}/home/.local/share/containers/storage/")
                await follow.until(lambda: tails.totals().lines == 1)
                sampler.sample_all()
                sample = sampler.latest(mine)
                assert sample is not None
                assert sample.cpu is not None
                assert sample.cpu.usage_seconds > 0.01
                assert (sample.pids, sample.errors) == (1, ())
                await asyncio.to_thread(engine, "kill", "mine")
                await follow.until(lambda: follow.named("mine").exit_code == 137)
                await asyncio.to_thread(engine, "rm", "mine")
                await follow.until(lambda: ("removed", "mine", "exited") in follow.heard)
            finally:
                tails.stop()
                thread.join(60)
                sampler.close()

    try:
        asyncio.run(scenario())
    finally:
        engine.close()


def test_containerd_by_ctr(containerd: Any) -> None:
    async def scenario() -> None:
        async with following() as follow:
            sampler = Sampler(follow.containers, interval=3600)
            labels = ("team=blue", "io.kubernetes.pod.name=p")
            await asyncio.to_thread(containerd.run, "box", "/bin/sleep", "1000", labels=labels)
            key = f"box@{containerd.namespace}"
            found = await follow.until(lambda: follow.containers.get(key))
            assert (found.name, found.engine, found.state) == ("box", "containerd", "running")
            assert found.labels == {"team": "blue", "io.kubernetes.pod.name": "p"}
            assert found.cgroup == f"/{containerd.namespace}/box"
            await follow.until(lambda: follow.named(key).pid)
            await follow.until(lambda: Path(f"/proc/{follow.named(key).pid}/comm").read_text() == "sleep\n")
            sampler.sample_all()
            assert sampler.stats(key).pids == 1
            await asyncio.to_thread(containerd.remove, "box")
            await follow.until(lambda: ("removed", "box", "exited") in follow.heard)
            last = sampler.latest(key)
            assert last is not None
            assert last.cpu is not None
            sampler.close()

    asyncio.run(scenario())


def test_a_service_is_sampled_and_listed_apart(make_cgroup: Any) -> None:
    made = make_cgroup()
    process = made.python(
        "import time\nx = b'x' * (32 << 20)\nprint('ready', flush=True)\ntime.sleep(1000)\n"
    )
    assert process.stdout.readline() == b"ready\n"

    async def scenario() -> None:
        async with following(patience_seconds=0.1) as follow:
            sampler = Sampler(follow.containers, interval=3600, bare_every=1)
            found = await follow.until(lambda: follow.containers.get(made.path))
            assert (found.name, found.image, found.engine, found.cgroup) == ("", "", "", made.path)
            assert made.path not in {container.id for container in follow.containers.all()}
            sampler.sample_all()
            assert sampler.stats(made.path).memory_usage_bytes > 32 << 20
            await asyncio.to_thread(made.end)
            await follow.until(lambda: follow.containers.get(made.path) is None)
            assert sampler.latest(made.path) is None
            sampler.close()

    asyncio.run(scenario())


@pytest.fixture
def parent() -> Iterator[Path]:
    """A cgroup of the test's own, in the hierarchy that is followed."""
    directory = Path("/sys/fs/cgroup/memory") / f"tf-{uuid.uuid4().hex[:12]}"
    directory.mkdir()
    yield directory
    for child in sorted(directory.rglob("*"), reverse=True):
        if child.is_dir():
            child.rmdir()
    directory.rmdir()


def test_a_hundred_a_second_leak_nothing(parent: Path) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    def churn(count: int) -> None:
        for number in range(count):
            directory = parent / f"{number:064x}"
            directory.mkdir()
            (directory / "inner").mkdir()
            time.sleep(0.002)
            (directory / "inner").rmdir()
            directory.rmdir()
            time.sleep(0.002)

    async def scenario() -> None:
        async with following(below=f"/{parent.name}", patience_seconds=0.01) as follow:
            sampler = Sampler(follow.containers, interval=3600, bare_every=1)
            await asyncio.to_thread(churn, 100)
            await follow.until(lambda: follow.discovery.known == 0)
            gc.collect()  # what tests before left behind may not go meanwhile
            opened, watches = descriptors(), kernel_watches()
            tracemalloc.start()
            await asyncio.to_thread(churn, 50)
            await follow.until(lambda: follow.discovery.known == 0)
            before = tracemalloc.take_snapshot()
            await asyncio.to_thread(churn, 600)
            await follow.until(lambda: follow.discovery.known == 0)
            after = tracemalloc.take_snapshot()
            tracemalloc.stop()
            assert (descriptors(), kernel_watches(), follow.discovery.watches) == (opened, watches, 1)
            grown = sum(
                each.size_diff for each in after.compare_to(before, "filename") if "collector" in str(each)
            )
            assert grown < 100_000
            assert follow.discovery.failures == {}
            sampler.close()

    asyncio.run(scenario())


def kernel_watches() -> int:
    """Watches the kernel keeps for this process."""
    total = 0
    for entry in Path("/proc/self/fdinfo").iterdir():
        with contextlib.suppress(OSError):
            total += entry.read_text().count("inotify wd:")
    return total


def test_lost_events_are_made_up_for(parent: Path) -> None:
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())

    async def scenario() -> None:
        async with following(below=f"/{parent.name}", patience_seconds=0.01) as follow:
            (parent / "stays").mkdir()
            await follow.until(lambda: follow.containers.get(f"/{parent.name}/stays"))
            for number in range(limit // 2 + 100):  # two events each, while nobody listens
                (parent / f"x{number}").mkdir()
                (parent / f"x{number}").rmdir()
            (parent / "stays").rmdir()
            (parent / "new").mkdir()
            await follow.until(lambda: follow.containers.get(f"/{parent.name}/new"))
            await follow.until(lambda: follow.containers.get(f"/{parent.name}/stays") is None)
            assert follow.discovery.lost_events == 1
            assert follow.discovery.watches == 2

    asyncio.run(scenario())
