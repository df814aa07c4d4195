"""A process killed for want of memory in a cgroup of the test's own, and what kernels write of such kills."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from memory_intake import MemoryIntake

from collector.container import Container
from collector.discovery.registry import Containers
from collector.enrich import Sources
from collector.inputs.kernel_log import KernelLog, Kill, Kills, parse_record

ID = "ab" * 32
KILL = """\
python3 invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0
CPU: 1 PID: 77 Comm: python3 Not tainted 6.1.0
memory: usage 20480kB, limit 20480kB, failcnt 31
swap: usage 0kB, limit 9007199254740988kB, failcnt 0
oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset={id},mems_allowed=0,\
oom_memcg=/docker/{id},task_memcg=/docker/{id}/in, side,task=my (odd) task,pid=77,uid=0
Memory cgroup out of memory: Killed process 77 (my (odd) task) \
total-vm:67804kB, anon-rss:15616kB, file-rss:968kB, shmem-rss:16kB, UID:0 pgtables:72kB oom_score_adj:0
""".replace("{id}", ID)
GLOBAL = """\
tail invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0
oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,task_memcg=/system.slice/x.service,task=tail,pid=5,uid=0
Out of memory: Killed process 5 (tail) \
total-vm:1kB, anon-rss:1kB, file-rss:0kB, shmem-rss:0kB, UID:0 pgtables:1kB oom_score_adj:0
"""


class Setting:
    """The log of a made kernel, told through a socket, and where its lines go."""

    def __init__(self, intake: MemoryIntake, proc: Path = Path("/proc")) -> None:
        self.containers = Containers()
        self.intake = intake
        self.log = KernelLog(self.containers, intake, Sources(self.containers, "host"), proc)
        self.ours, self.kernels = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.ours.setblocking(False)
        self._number = 100

    def write(self, text: str) -> None:
        for line in text.splitlines():
            self.kernels.send(f"4,{self._number},25625806905,-;{line}\n SUBSYSTEM=x\n".encode())
            self._number += 1
        self.log.read(self.ours.fileno())

    def lines(self) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in self.intake.stored()]


@pytest.fixture
def setting() -> Iterator[Setting]:
    made = Setting(MemoryIntake())
    yield made
    made.ours.close()
    made.kernels.close()


def test_a_real_kill_is_a_line_of_its_container(make_cgroup: Any) -> None:
    made = make_cgroup()
    limit = 24 << 20
    made.limit_memory(limit)
    containers, intake = Containers(), MemoryIntake()
    code = """
pid = os.fork()
if pid == 0:
    open("/proc/self/comm", "w").write("hungry")
    os.read(0, 1)
    held = b"x" * (200 << 20)
print(pid, flush=True)
os.waitpid(pid, 0)
sys.stdin.readline()
"""
    process = made.python(code)
    containers.update(Container(made.id, "victim", "image", pid=process.pid, cgroup=made.path))
    log = KernelLog(containers, intake, Sources(containers, "host"))

    async def follow() -> None:
        task = asyncio.create_task(log.run())
        pid = int(await asyncio.to_thread(process.stdout.readline))
        process.stdin.write(b"xx")
        process.stdin.flush()
        async with asyncio.timeout(120):
            while not any(source.container_id == made.id for source, _ in intake.blocks):
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        ((source, block),) = [pair for pair in intake.blocks if pair[0].container_id == made.id]
        line = orjson.loads(block.data)
        assert (source.container_name, source.input) == ("victim", "kernel")
        assert (line["event"], line["pid"], line["command"]) == ("oom_kill", pid, "hungry")
        assert line["limit_bytes"] == limit
        assert limit / 2 < line["rss_bytes"] <= 2 * limit  # with what it shares
        assert line["usage_bytes"] <= limit
        assert line["cgroup"] == line["limited_cgroup"] == made.path
        assert abs(block.first_ns - time.time_ns()) < 250e9

        boot, number = intake.checkpoints["kernel-log"].decode().split()
        for seen, expected in (
            (int(number) - 100, 1),
            (int(number), 0),
        ):  # a restart before the kill, and after it
            again = MemoryIntake()
            again.checkpoints["kernel-log"] = f"{boot} {seen}".encode()
            task = asyncio.create_task(KernelLog(containers, again, Sources(containers, "host")).run())
            for _ in range(5):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert sum(source.container_id == made.id for source, _ in again.blocks) == expected

    asyncio.run(follow())
    assert log.kills >= 1


def test_all_that_is_known_of_a_kill(setting: Setting) -> None:
    setting.containers.update(Container(ID, "web", "nginx", pid=1, cgroup=f"/docker/{ID}"))
    setting.write(KILL)
    ((source, _),) = setting.intake.blocks
    assert source.container_name == "web"
    assert setting.lines() == [
        {
            "level": "error",
            "message": "process 77 (my (odd) task) was killed for want of memory: its cgroup's limit was reached",
            "event": "oom_kill",
            "pid": 77,
            "command": "my (odd) task",
            "rss_bytes": (15616 + 968 + 16) * 1024,
            "usage_bytes": 20480 * 1024,
            "limit_bytes": 20480 * 1024,
            "cgroup": f"/docker/{ID}/in, side",
            "limited_cgroup": f"/docker/{ID}",
        }
    ]


def test_of_a_container_that_is_gone_already(setting: Setting) -> None:
    name = f"/system.slice/docker-{ID}.scope"
    container = Container(ID, "web", "nginx", engine="docker", pid=1, cgroup=name)
    setting.containers.update(container)
    setting.containers.remove(ID, "docker")
    setting.write(KILL.replace(f"/docker/{ID}/in, side", name))
    assert setting.intake.blocks[0][0].container_name == "web"


def test_the_hosts_own_memory(setting: Setting) -> None:
    setting.write(KILL.splitlines()[2] + "\n" + GLOBAL)
    (line,) = setting.lines()
    assert line["message"].endswith("the host's memory was reached")
    assert line.keys() == {"level", "message", "event", "pid", "command", "rss_bytes", "cgroup"}
    assert setting.intake.blocks[0][0].container_id == ""


def test_kills_the_kernel_says_little_of(tmp_path: Path) -> None:
    """Where it kills often it leaves out all but the last line."""
    kills = Kills()
    for line in KILL.splitlines():
        kills.take(line)
    assert kills.take(KILL.splitlines()[-1].replace("77", "78")) == Kill(
        78, "my (odd) task", 16600 * 1024, in_cgroup=True
    )


def test_the_cgroup_of_a_process_that_lives_is_asked_for(tmp_path: Path) -> None:
    made = Setting(MemoryIntake(), tmp_path)
    made.containers.update(Container(ID, "web", "nginx", pid=1, cgroup=f"/docker/{ID}"))
    (tmp_path / "77").mkdir()
    (tmp_path / "77/cgroup").write_text(f"5:devices:/\n4:memory:/docker/{ID}\n0::/docker/{ID}\n")
    made.write(KILL.splitlines()[-1])
    assert made.intake.blocks[0][0].container_name == "web"
    made.ours.close()
    made.kernels.close()


def test_other_lines_and_what_cannot_be_stored(setting: Setting) -> None:
    setting.intake.fail = 1
    setting.write("usb 1-1: new device\n" + GLOBAL + GLOBAL)
    assert (setting.log.kills, setting.log.failures, len(setting.intake.blocks)) == (1, 1, 1)
    setting.kernels.send(b"nonsense")
    setting.log.read(setting.ours.fileno())
    assert setting.log.failures == 2


def test_without_a_kernel_log_nothing_fails(tmp_path: Path) -> None:
    containers = Containers()
    log = KernelLog(containers, MemoryIntake(), Sources(containers, "host"), device=tmp_path / "kmsg")

    async def run() -> None:
        async with asyncio.timeout(120):
            task = asyncio.create_task(log.run())
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())


def test_a_record() -> None:
    assert parse_record(b"6,1234,5678,-,caller=T1;a; b\n KEY=value\n") == (1234, 5678, "a; b")
    with pytest.raises(ValueError, match="expected level, number and time"):
        parse_record(b"x")


def test_a_log_that_cannot_be_read_any_more_is_left(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A directory in the device's place can be opened, and not read."""
    setting = Setting(MemoryIntake())
    fd = os.open(tmp_path, os.O_RDONLY)

    async def read() -> None:
        setting.log._readable(fd, asyncio.get_running_loop())

    try:
        asyncio.run(read())
    finally:
        for opened in (setting.ours, setting.kernels):
            opened.close()
        os.close(fd)
    assert setting.log.failures == 1
    assert "Is a directory" in caplog.text
