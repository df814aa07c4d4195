"""Real cgroups with known loads."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import subprocess
import time
import uuid
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from collector.cgroup.layout import Layout
from collector.container import Container
from collector.discovery.registry import Containers
from collector.history import History
from collector.netlink import Counters, LinkCounters
from collector.oom_kills import OomKills
from collector.roots import Roots
from collector.sampler import HOST, Sampler, read_container
from collector.target import Target, is_members

WAIT = "import sys\nprint('ready', flush=True)\nsys.stdin.readline()\n"


@pytest.fixture
def containers() -> Containers:
    return Containers()


@pytest.fixture
def sampler(containers: Containers) -> Iterator[Sampler]:
    sampler = Sampler(containers)
    yield sampler
    sampler.close()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def container(made: Any, process: Any, **more: Any) -> Container:
    more = {"network_mode": "bridge", "name": f"c{made.id[:8]}"} | more
    return Container(id=made.id, pid=process.pid, cgroup=made.path, engine="docker", **more)


def started(made: Any, code: str = "", *prefix: str) -> Any:
    process = made.python(code + WAIT, *prefix)
    assert process.stdout.readline() == b"ready\n"
    return process


def test_half_a_second_of_cpu(make_cgroup: Any, containers: Containers, sampler: Sampler) -> None:
    burn = "import time\nt = time.process_time()\nwhile time.process_time() - t < 0.5: pass\n"
    made = make_cgroup()
    process = started(made, burn)
    containers.update(container(made, process))
    sampler.sample_all()
    sample = sampler.latest(made.id)
    assert sample is not None
    assert sample.errors == ()
    assert sample.cpu is not None
    run_ns = int(Path(f"/proc/{process.pid}/schedstat").read_text().split()[0])
    assert 0.49 < sample.cpu.usage_seconds <= run_ns / 1e9  # before it was in the cgroup it ran, too
    spent = (sample.cpu.user_seconds or 0) + (sample.cpu.system_seconds or 0)
    assert spent == pytest.approx(sample.cpu.usage_seconds, abs=0.05)


def test_memory_tasks_and_limits(make_cgroup: Any, containers: Containers, sampler: Sampler) -> None:
    made = make_cgroup()
    made.limit_memory(200 << 20)
    (made.directories["pids"] / "pids.max").write_text("33")
    (made.directories["cpu"] / "cpu.shares").write_text("512")
    hold = "import threading\nheld = b'x' * (64 << 20)\n"
    hold += "[threading.Thread(target=threading.Event().wait, daemon=True).start() for _ in range(3)]\n"
    process = started(made, hold)
    containers.update(container(made, process))
    sample = sampler.latest(made.id)  # taken when it was added
    assert sample is not None
    assert sample.memory is not None
    assert sample.cpu is not None
    assert 64 << 20 <= (sample.memory.rss_bytes or 0) < 96 << 20
    assert sample.memory.limit_bytes == 200 << 20
    assert (sample.pids, sample.pids_limit) == (4, 33)
    assert sample.cpu.shares == 512
    stats = sampler.stats(made.id)
    assert stats.memory_limit_bytes == 200 << 20
    assert stats.memory_percent == stats.memory_usage_bytes / (200 << 20) * 100


def test_a_changed_limit_is_seen_when_the_engine_tells(
    make_cgroup: Any, containers: Containers, sampler: Sampler
) -> None:
    made = make_cgroup()
    known = container(made, started(made))
    containers.update(known)
    (made.directories["memory"] / "memory.limit_in_bytes").write_text(str(100 << 20))
    containers.update(replace(known, memory_limit_bytes=100 << 20))
    sampler.sample_all()
    sample = sampler.latest(made.id)
    assert sample is not None
    assert sample.memory is not None
    assert sample.memory.limit_bytes == 100 << 20


def test_a_throttled_container(make_cgroup: Any, containers: Containers, sampler: Sampler) -> None:
    made = make_cgroup()
    # So little that it uses it up at once, also where others leave it no more than a moment at a time.
    (made.directories["cpu"] / "cpu.cfs_quota_us").write_text("2000")
    burn = "import time\nbegun = time.process_time()\nwhile time.process_time() - begun < 0.03: pass\n"
    process = started(made, burn)

    def counted() -> tuple[int, float]:
        stat = dict(map(str.split, (made.directories["cpu"] / "cpu.stat").read_text().splitlines()))
        return int(stat["nr_throttled"]), int(stat["throttled_time"]) / 1e9

    # How often depends on what else the host runs: the kernel's own count before and after is what is told between.
    before = counted()
    containers.update(container(made, process))
    after = counted()
    sample = sampler.latest(made.id)
    assert sample is not None
    assert sample.cpu is not None
    assert sample.cpu.quota_us == 2000
    assert before[0] <= (sample.cpu.throttled_periods or 0) <= after[0]
    assert before[1] <= (sample.cpu.throttled_seconds or 0) <= after[1]
    assert after > (0, 0.0)


def test_an_oom_kill_is_counted_and_survives_the_cgroup(
    make_cgroup: Any, containers: Containers, sampler: Sampler
) -> None:
    made = make_cgroup()
    made.limit_memory(32 << 20)
    victim = made.python("print('ready', flush=True)\ninput()\nx = b'x' * (200 << 20)\n")
    assert victim.stdout.readline() == b"ready\n"
    known = container(made, victim)
    containers.update(known)
    victim.stdin.write(b"go\n")
    victim.stdin.close()
    victim.wait()
    assert victim.returncode == -signal.SIGKILL
    containers.update(replace(known, state="exited", pid=0, exit_code=137))
    made.end()
    sampler.sample_all()
    sample = sampler.latest(made.id)
    assert sample is not None
    assert sample.memory is not None
    assert sample.memory.oom_kills == 1


def test_a_removed_cgroup_is_the_end_even_without_an_engines_word(
    make_cgroup: Any, containers: Containers, sampler: Sampler
) -> None:
    made = make_cgroup()
    containers.update(container(made, started(made)))
    before = open_files()
    made.end()
    sampler.sample_all()
    last = sampler.latest(made.id)
    assert last is not None
    assert last.cpu is not None
    assert last.errors == ()
    assert open_files() < before - 10
    assert sampler.stats(made.id).time_ns == 0
    sampler.sample_all()
    assert sampler.latest(made.id) is last


def test_numbers_of_a_forgotten_container_go_with_its_tombstone(make_cgroup: Any) -> None:
    clock = [time.time_ns()]
    containers = Containers(300, lambda: clock[0])
    sampler = Sampler(containers)
    made = make_cgroup()
    containers.update(container(made, started(made)))
    containers.remove(made.id, "docker")
    sampler.sample_all()
    assert sampler.latest(made.id) is not None
    clock[0] += 301 * 10**9
    sampler.sample_all()
    assert sampler.latest(made.id) is None
    sampler.close()


def test_a_former_run_is_forgotten_although_the_next_could_not_be_opened(
    make_cgroup: Any, caplog: pytest.LogCaptureFixture
) -> None:
    # A record of the error would keep all that it met.
    caplog.set_level(logging.CRITICAL, "collector.sampler")
    clock = [time.time_ns()]
    containers, kills = Containers(300, lambda: clock[0]), OomKills()
    sampler = Sampler(containers, oom_kills=kills)
    made = make_cgroup()
    one = container(made, started(made), network_mode="none", started_ns=1)
    containers.update(one)
    target = weakref.ref(sampler.targets()[made.id])
    containers.update(replace(one, state="exited", pid=0, finished_ns=2, oom_killed=True))
    assert kills.total(made.id) == 1
    containers.update(replace(one, pid=0, cgroup="/nowhere", started_ns=3))
    assert sampler.failures == {"open": 1}
    containers.remove(made.id, "docker")
    clock[0] += 301 * 10**9
    sampler.sample_all()
    gc.collect()
    assert target() is None
    assert kills.total(made.id) == 0
    sampler.close()


def test_a_restart_is_a_new_cgroup_in_the_same_history(
    make_cgroup: Any, containers: Containers, sampler: Sampler
) -> None:
    first = make_cgroup()
    known = container(first, started(first, "x = b'x' * (64 << 20)\n"))
    containers.update(known)
    points = len(sampler.history(known.id))
    second = make_cgroup()
    process = started(second)
    containers.update(replace(known, pid=process.pid, cgroup=second.path, restarts=1))
    sample = sampler.latest(known.id)
    assert sample is not None
    assert sample.memory is not None
    assert sample.memory.usage_bytes < 64 << 20
    assert len(sampler.history(known.id)) > points
    starts = [point.starts for point in sampler.history(known.id)]
    assert set(starts[:points]) == {0}
    assert set(starts[points + 1 :]) == {1}  # between them the last read of the first run


def test_one_that_is_lost_sight_of_and_found_again_goes_on_counting(
    make_cgroup: Any, containers: Containers, sampler: Sampler
) -> None:
    made = make_cgroup()
    known = container(made, started(made))
    containers.update(known)
    containers.update(replace(known, state="exited", pid=0))
    containers.update(known)
    assert {point.starts for point in sampler.history(known.id)} == {0}, "it is the same run"


@pytest.mark.parametrize(
    ("mode", "own", "counted"), [("bridge", True, True), ("bridge", False, False), ("host", False, False)]
)
def test_only_a_namespace_of_its_own_is_counted(
    make_cgroup: Any, containers: Containers, sampler: Sampler, mode: str, own: bool, counted: bool
) -> None:
    made = make_cgroup()
    add = "import subprocess\nsubprocess.run('ip link add eth0 type veth peer name p0'.split(), check=True)\n"
    process = started(made, add, "unshare", "-n") if own else started(made)
    containers.update(container(made, process, network_mode=mode))
    sampler.sample_all()
    sample = sampler.latest(made.id)
    assert sample is not None
    assert bool(sample.interfaces) is counted


def test_a_network_connected_later_is_counted_from_the_next_pass(
    make_cgroup: Any, containers: Containers, sampler: Sampler
) -> None:
    made = make_cgroup()
    process = started(made, "", "unshare", "-n")

    def connect(interface: str) -> None:
        ours = f"tt{uuid.uuid4().hex[:8]}"
        add = f"ip link add {ours} type veth peer name {interface} netns {process.pid}"
        subprocess.run(add.split(), check=True)

    connect("eth0")
    known = container(made, process, networks=("n2",))
    containers.update(known)
    sampler.sample_all()
    connect("eth1")
    containers.update(replace(known, networks=("n2", "n3")))
    sampler.sample_all()
    sample = sampler.latest(made.id)
    assert sample is not None
    assert [one.name for one in sample.interfaces] == ["eth0", "eth1"]


def test_a_shared_namespace_is_counted_once_by_its_owner(
    make_cgroup: Any, containers: Containers, sampler: Sampler
) -> None:
    owner, member = make_cgroup(), make_cgroup()
    add = "import subprocess\nsubprocess.run('ip link add eth0 type veth peer name p0'.split(), check=True)\n"
    process = started(owner, add, "unshare", "-n")
    joined = started(member, "", "nsenter", "-t", str(process.pid), "-n")
    containers.update(container(member, joined, network_mode=f"container:{owner.id}"))
    containers.update(container(owner, process))
    sampler.sample_all()
    owned, shared = sampler.latest(owner.id), sampler.latest(member.id)
    assert owned is not None
    assert shared is not None
    assert {interface.name for interface in owned.interfaces} == {"eth0", "p0"}
    assert shared.interfaces == ()


def test_a_clock_that_was_set_back_does_not_stop_sampling(sampler: Sampler) -> None:
    sampler.sample_all(time.time_ns() + 3600 * 10**9)
    sampler.sample_if_older()
    assert sampler.passes == 2
    sampler.sample_if_older(3600)
    assert sampler.passes == 2


def test_the_host_has_its_own_sample(sampler: Sampler) -> None:
    sampler.sample_all()
    sampler.sample_all()
    sample = sampler.latest(HOST)
    assert sample is not None
    assert sample.cpu is not None
    assert sample.memory is not None
    assert sample.memory.limit_bytes == sampler.machine.memory.total_bytes
    assert sample.disks
    assert sampler.previous(HOST) is not None
    assert len(sampler.history(HOST)) == 2
    assert sampler.stats(HOST).memory_limit_bytes == sampler.machine.memory.total_bytes


def test_the_last_read_is_made_when_the_process_ends(
    make_cgroup: Any, containers: Containers, sampler: Sampler
) -> None:
    """Without an engine's word and between two passes: the process's end itself is heard."""

    async def scenario() -> float:
        sampler.interval = 3600.0
        running = asyncio.create_task(sampler.run())
        made = make_cgroup()
        burn = "import time\nbegun = time.process_time()\nwhile time.process_time() - begun < 0.4: pass\n"
        process = made.python("print('ready', flush=True)\ninput()\n" + burn)
        assert process.stdout.readline() == b"ready\n"
        while sampler.passes == 0:
            await asyncio.sleep(0.01)
        containers.update(container(made, process))
        first = sampler.latest(made.id)
        process.stdin.write(b"go\n")
        process.stdin.close()
        async with asyncio.timeout(200):
            while sampler.latest(made.id) is first:
                await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        sample = sampler.latest(made.id)
        assert sample is not None
        assert sample.cpu is not None
        assert first is not None
        assert first.cpu is not None
        return sample.cpu.usage_seconds - first.cpu.usage_seconds

    assert asyncio.run(scenario()) > 0.38


def test_one_shot_reading_keeps_nothing_open(make_cgroup: Any) -> None:
    made = make_cgroup()
    known = container(made, started(made))
    before = open_files()
    sample = read_container(known)
    assert sample.cpu is not None
    assert sample.host_cpu_seconds is not None
    assert open_files() == before
    made.end()
    with pytest.raises(FileNotFoundError):
        read_container(known)


def test_a_container_that_cannot_be_opened_is_counted(
    containers: Containers, sampler: Sampler, caplog: pytest.LogCaptureFixture
) -> None:
    containers.update(Container(id="0" * 64, name="ghost", pid=0, cgroup="/nowhere"))
    assert sampler.failures == {"open": 1}
    assert "cannot sample container ghost" in caplog.text
    assert sampler.latest("0" * 64) is None
    for number in range(100):  # each is counted, not each is worth a line
        containers.update(Container(id=f"{number:064x}", name=f"ghost{number}", pid=0, cgroup="/nowhere"))
    assert sampler.failures == {"open": 101}
    assert caplog.text.count("cannot sample container") < 10
    assert sampler.stats("0" * 64).time_ns == 0


def test_a_process_not_yet_in_its_cgroup_does_not_lend_the_container_anothers_counters(
    make_cgroup: Any, containers: Containers, sampler: Sampler
) -> None:
    made, other = make_cgroup(), make_cgroup()
    process = started(other, "x = b'x' * (32 << 20)\n")
    containers.update(container(made, process))  # its path is known, its process elsewhere
    sample = sampler.latest(made.id)
    assert sample is not None
    assert sample.memory is not None
    assert sample.memory.usage_bytes < 1 << 20


def test_a_number_that_went_to_another_process_lends_neither_its_network_nor_its_end(
    make_cgroup: Any, containers: Containers, sampler: Sampler
) -> None:
    """The container's process ended before it was opened; its cgroup and its number are still known."""
    made, other = make_cgroup(), make_cgroup()
    stranger = started(other, "", "unshare", "--net")
    known = container(made, stranger)
    target = Target(known, Layout.read(Roots()), Roots(), History(1))
    assert target.namespace is None
    target.close()
    own = container(other, stranger)
    target = Target(own, Layout.read(Roots()), Roots(), History(1))
    assert target.namespace is not None
    target.close()
    inside = f"0::/../../{made.id}/init.scope\n".encode()
    assert is_members(inside, known), "seen from inside a cgroup namespace"
    assert is_members(inside, replace(known, cgroup=""))

    async def scenario() -> None:
        running = asyncio.create_task(sampler.run())
        while sampler.passes == 0:
            await asyncio.sleep(0.01)
        containers.update(known)
        assert not sampler._watched
        containers.update(own)
        assert len(sampler._watched) == 1
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(scenario())


def test_closing_twice_and_sampling_afterwards_do_nothing(sampler: Sampler) -> None:
    sampler.close()
    fd = os.open("/dev/null", os.O_RDONLY)  # would take the place of a descriptor closed twice
    sampler.close()
    os.fstat(fd)
    os.close(fd)
    sampler.sample_all()
    assert sampler.passes == 0


@pytest.mark.parametrize("name", ["v1", "hybrid", "v2"])
def test_recorded_hosts(recorded: Callable[[str], Roots], name: str) -> None:
    containers = Containers()
    identity = "4f" * 32
    containers.update(Container(id=identity, name="web", pid=4242, network_mode="bridge"))
    sampler = Sampler(containers, recorded(name))
    sampler.sample_all(2_000_000_000_000)
    sample, host = sampler.latest(identity), sampler.latest(HOST)
    sampler.close()
    assert sample is not None
    assert host is not None
    assert sample.errors == host.errors == ()
    assert [interface.name for interface in sample.interfaces] == ["eth0", "eth1"]
    assert [interface.name for interface in host.interfaces] == ["eth0"]
    assert [disk.device for disk in host.disks] == ["/dev/nvme0n1"]
    assert host.cpu is not None
    assert host.cpu.usage_seconds > 24_000
    assert Path(sampler.roots.proc).name == "proc"


def test_a_dump_of_interfaces_that_failed_is_tried_again(
    make_cgroup: Any, containers: Containers, sampler: Sampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    dumps: list[bool] = []
    real = LinkCounters.read

    def read(links: LinkCounters) -> dict[int, Counters]:
        dumps.append(bool(dumps))
        if len(dumps) == 1:
            raise TimeoutError("the kernel did not answer")
        return real(links)

    monkeypatch.setattr(LinkCounters, "read", read)
    made = make_cgroup()
    containers.update(container(made, started(made, "", "unshare", "-n")))
    for _ in range(70):
        sampler.sample_all()
    assert dumps[:2] == [False, True]
    assert len(dumps) < 15
    sample = sampler.latest(made.id)
    assert sample is not None
    assert sample.errors == ()
