"""What discovery by cgroups does when the kernel refuses, files are odd, and it has to begin again."""

from __future__ import annotations

import asyncio
import errno
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from host_tree import HostTree

from collector.discovery.cgroups import CgroupDiscovery
from collector.discovery.endings import Endings
from collector.discovery.facts import Facts
from collector.discovery.keeper import read_process
from collector.discovery.registry import Containers
from collector.discovery.scopes import Kind
from collector.discovery.tree import CgroupTree


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(200):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
def parent() -> Iterator[Path]:
    directory = Path("/sys/fs/cgroup/memory") / f"tf-{uuid.uuid4().hex[:12]}"
    directory.mkdir()
    yield directory
    for child in directory.iterdir():
        if child.is_dir():
            child.rmdir()
    directory.rmdir()


async def stopped(task: asyncio.Task[None]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_odd_files_of_one_cgroup_do_not_end_the_search(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("odd", "sound"):
        (parent / name).mkdir()
    find = Facts.find

    def fail(self: Facts, scope: Any, process: Any) -> Any:
        if scope.path.endswith("/odd"):
            raise KeyError("Config")
        return find(self, scope, process)

    monkeypatch.setattr(Facts, "find", fail)

    async def scenario() -> None:
        containers = Containers()
        discovery = CgroupDiscovery(containers, below=f"/{parent.name}", patience_seconds=0.01)
        task = asyncio.create_task(discovery.run())
        await until(lambda: containers.get(f"/{parent.name}/sound"))
        assert discovery.failures == {"identify": 1}
        await stopped(task)

    asyncio.run(scenario())


def test_what_went_between_two_attempts_is_let_go(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (parent / "brief").mkdir()
    scans = 0
    scan = CgroupTree.scan

    def second_fails(self: CgroupTree) -> Any:
        nonlocal scans
        scans += 1
        if scans == 2:
            (parent / "brief").rmdir()
            raise OSError(errno.EIO, "no such luck")
        return scan(self)

    monkeypatch.setattr(CgroupTree, "scan", second_fails)
    monkeypatch.setattr(CgroupTree, "read", lambda self: [])

    async def scenario() -> None:
        containers = Containers()
        discovery = CgroupDiscovery(
            containers, below=f"/{parent.name}", patience_seconds=0.01, rescan_seconds=0.2
        )
        task = asyncio.create_task(discovery.run())
        await until(lambda: containers.get(f"/{parent.name}/brief"))
        await until(lambda: scans > 2 and containers.get(f"/{parent.name}/brief") is None)
        assert discovery.failures == {"watch": 1}
        await stopped(task)

    asyncio.run(scenario())


@pytest.mark.parametrize(("number", "again"), [(errno.ESRCH, True), (errno.EMFILE, False)])
def test_a_process_that_cannot_be_held_is_not_asked_for_without_end(
    parent: Path, monkeypatch: pytest.MonkeyPatch, number: int, again: bool
) -> None:
    def refuse(pid: int, flags: int = 0) -> int:
        raise OSError(number, os.strerror(number))

    (parent / "one").mkdir()

    async def scenario() -> None:
        discovery = CgroupDiscovery(Containers(), below=f"/{parent.name}", patience_seconds=0.01)
        task = asyncio.create_task(discovery.run())
        await until(lambda: discovery.known)
        member = next(iter(discovery._members.values()))
        monkeypatch.setattr(os, "pidfd_open", refuse)
        discovery._hold(member, os.getpid(), 1)
        assert (member.timer is not None) is again
        assert discovery.failures == ({} if again else {"hold": 1})
        await stopped(task)

    asyncio.run(scenario())


def test_a_number_that_went_to_another_process_is_not_taken_for_the_containers(tmp_path: Path) -> None:
    """The first process ends after the list of processes was read, and its number is given away."""
    host = HostTree(tmp_path, "v2")
    path = "/system.slice/docker-" + "d" * 64 + ".scope"
    pid = host.process("sleep")
    other = host.process("sshd")
    procs = tmp_path / f"sys/fs/cgroup{path}/cgroup.procs"
    host.cgroup(path, pid)

    class Reused(Facts):
        def _first_of(self, pids: set[int]) -> Any:
            procs.write_text("")
            return super()._first_of(pids)

    assert Facts(host.roots).first_process(procs.parent, Kind.CONTAINER).pid == pid  # type: ignore[union-attr]
    assert Reused(host.roots).first_process(procs.parent, Kind.CONTAINER) is None

    class Replaced(Facts):
        def _first_of(self, pids: set[int]) -> Any:
            found = super()._first_of(pids)
            procs.write_text(f"{other}\n")
            return found

    procs.write_text(f"{pid}\n")
    process = Replaced(host.roots).first_process(procs.parent, Kind.CONTAINER)
    assert process is not None
    assert process.pid == other


def test_only_the_process_that_was_found_is_held(parent: Path) -> None:
    (parent / "one").mkdir()

    async def scenario() -> None:
        discovery = CgroupDiscovery(Containers(), below=f"/{parent.name}", patience_seconds=0.01)
        task = asyncio.create_task(discovery.run())
        await until(lambda: discovery.known)
        member = next(iter(discovery._members.values()))
        own = read_process(Path("/proc"), os.getpid())
        discovery._hold(member, own.pid, own.started_ticks - 1)
        assert (member.pidfd, member.pid) == (-1, 0)
        assert member.timer is not None, "it is looked for again"
        discovery._hold(member, own.pid, own.started_ticks)
        assert member.pidfd >= 0
        await stopped(task)

    asyncio.run(scenario())


def test_without_any_watch_containers_and_their_ends_are_found_late(
    parent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EMFILE, "no (fs.inotify.max_user_instances)")

    monkeypatch.setattr("collector.discovery.tree.Watch", refuse)
    monkeypatch.setattr("collector.discovery.endings.Watch", refuse)

    async def scenario() -> None:
        containers = Containers()
        discovery = CgroupDiscovery(
            containers, below=f"/{parent.name}", patience_seconds=0.01, rescan_seconds=0.02
        )
        task = asyncio.create_task(discovery.run())
        await until(lambda: discovery.rescans)
        (parent / "late").mkdir()
        await until(lambda: containers.get(f"/{parent.name}/late"))
        (parent / "late").rmdir()
        await until(lambda: not discovery.known)
        monkeypatch.undo()
        await until(lambda: discovery.watches)
        (parent / "told").mkdir()
        await until(lambda: containers.get(f"/{parent.name}/told"))
        assert not discovery.failures
        await stopped(task)

    asyncio.run(scenario())


def test_exits_and_removals_the_kernel_did_not_tell_of_are_found_by_looking(tmp_path: Path) -> None:
    told: list[tuple[str, int]] = []
    gone: list[str] = []
    exits, storage = tmp_path / "exits", tmp_path / "storage"
    directory = storage / "overlay-containers" / ("a" * 64)
    exits.mkdir()
    directory.mkdir(parents=True)
    endings = Endings(lambda container_id, code: told.append((container_id, code)), gone.append)
    endings.watch(exits, storage, "a" * 64)  # never started: nothing is told
    (exits / ("a" * 64)).write_text("3")
    endings.look_again()
    assert (told, gone) == ([("a" * 64, 3)], [])
    directory.rmdir()
    endings.look_again()
    assert gone == ["a" * 64]


def test_ends_are_told_again_after_a_new_start(tmp_path: Path) -> None:
    told: list[tuple[str, int]] = []

    async def scenario() -> None:
        endings = Endings(lambda container_id, code: told.append((container_id, code)), lambda _: None)
        for container_id in ("a" * 64, "b" * 64):
            endings.start(asyncio.get_running_loop())
            endings.watch(tmp_path, None, container_id)
            (tmp_path / container_id).write_text("3")
            await until(lambda wanted=container_id: (wanted, 3) in told)
            endings.close()

    asyncio.run(scenario())
