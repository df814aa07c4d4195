"""The line a container leaves behind, with what it was known to have used."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import orjson
from memory_intake import MemoryIntake

from collector.container import Container
from collector.discovery.registry import Containers
from collector.enrich import Sources
from collector.final_records import FinalRecords, final_record
from collector.sample import BlockIO, Cpu, Interface, Memory, Sample
from collector.sampler import Sampler
from tests.collector.conftest import eventually

SECOND = 1_000_000_000
WEB = Container("ab" * 32, "web", "nginx", state="exited", started_ns=100 * SECOND, exit_code=0)


def test_all_that_is_known() -> None:
    sample = Sample(
        1,
        Cpu(2.5),
        Memory(10, 10, max_usage_bytes=4096, oom_kills=1),
        (BlockIO("8:0", 1, 2, 0, 0), BlockIO("8:16", 10, 20, 0, 0)),
        interfaces=(Interface("eth0", 5, 0, 0, 0, 6, 0, 0, 0), Interface("eth1", 50, 0, 0, 0, 60, 0, 0, 0)),
    )
    assert final_record(replace(WEB, exit_code=137, oom_killed=True), sample, 103 * SECOND) == {
        "level": "warn",
        "message": "container web ended with exit code 137",
        "event": "container_end",
        "exit_code": 137,
        "oom_killed": True,
        "duration_seconds": 3.0,
        "cpu_seconds": 2.5,
        "memory_peak_bytes": 4096,
        "oom_kills": 1,
        "read_bytes": 11,
        "written_bytes": 22,
        "received_bytes": 55,
        "sent_bytes": 66,
    }


def test_of_a_container_nobody_sampled_its_end_is_told() -> None:
    assert final_record(replace(WEB, started_ns=0, exit_code=None), None, 1) == {
        "level": "info",
        "message": "container web ended",
        "event": "container_end",
        "oom_killed": False,
    }


def test_the_end_of_a_real_container_is_one_line(make_cgroup: Any) -> None:
    made = make_cgroup()
    code = """
import time
held = b"x" * (2 << 20)
end = time.process_time() + 0.3
while time.process_time() < end: pass
print("burnt", flush=True)
sys.stdin.readline()
"""
    process = made.python(code)
    containers, intake = Containers(), MemoryIntake()
    sampler = Sampler(containers)
    records = FinalRecords(containers, sampler, intake, Sources(containers, "host"))

    async def live() -> None:
        task = asyncio.create_task(records.run())
        await asyncio.sleep(0)
        running = Container(made.id, "burner", "image", engine="docker", pid=process.pid, cgroup=made.path)
        containers.update(running)
        assert await asyncio.to_thread(process.stdout.readline) == b"burnt\n"
        ended = replace(running, state="exited", pid=0, exit_code=3)
        await asyncio.to_thread(containers.update, ended)  # as discovery does, in a thread of its own
        containers.remove(made.id, "docker")
        await asyncio.to_thread(eventually, lambda: records.records == 1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    try:
        asyncio.run(live())
    finally:
        sampler.close()
    (line,) = map(orjson.loads, intake.stored())
    assert line["exit_code"] == 3
    assert 0.3 <= line["cpu_seconds"] < 1
    assert line["memory_peak_bytes"] > 1 << 20
    assert intake.blocks[0][0].container_name == "burner"


def test_what_cannot_be_stored_is_counted() -> None:
    containers, intake = Containers(), MemoryIntake()
    intake.fail = 1

    class Nothing:
        def latest(self, _container_id: str) -> None:
            return None

    records = FinalRecords(containers, Nothing(), intake, Sources(containers, "host"))

    async def live() -> None:
        task = asyncio.create_task(records.run())
        await asyncio.sleep(0)
        containers.update(replace(WEB, state="running"))
        containers.update(WEB)
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(live())
    assert (records.records, records.failures) == (0, 1)
