"""The line a container leaves behind, with what it was known to have used."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path
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
    run_ns = 0

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
        nonlocal run_ns
        run_ns = int(Path(f"/proc/{process.pid}/schedstat").read_text().split()[0])
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    try:
        asyncio.run(live())
    finally:
        sampler.close()
    (line,) = map(orjson.loads, intake.stored())
    assert line["exit_code"] == 3
    assert 0.3 <= line["cpu_seconds"] <= run_ns / 1e9  # it ran before it was in the cgroup, too
    assert line["memory_peak_bytes"] > 1 << 20
    assert intake.blocks[0][0].container_name == "burner"


def test_what_cannot_be_stored_is_counted() -> None:
    containers, intake = Containers(), MemoryIntake()
    intake.fail = 1

    class Nothing:
        def of_run(self, _container: Container) -> None:
            return None

    records = FinalRecords(containers, Nothing(), intake, Sources(containers, "host"))

    async def live() -> None:
        task = asyncio.create_task(records.run())
        await asyncio.sleep(0)
        containers.update(replace(WEB, state="running"))
        containers.update(WEB)
        async with asyncio.timeout(120):
            while not records.failures:
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(live())
    assert (records.records, records.failures) == (0, 1)


def records_of(*changes: Container | None, samples: Any = None) -> list[dict[str, Any]]:
    """What is stored when the registry is told of these containers one after the other; None: removed."""
    containers, intake = Containers(), MemoryIntake()
    sampler = samples(containers) if samples else Sampler(containers)
    records = FinalRecords(containers, sampler, intake, Sources(containers, "host"))

    async def live() -> None:
        task = asyncio.create_task(records.run())
        await asyncio.sleep(0)
        for change in changes:
            if change is None:
                containers.remove(WEB.id, WEB.engine)
            else:
                containers.update(change)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    try:
        asyncio.run(live())
    finally:
        sampler.close()
    return [orjson.loads(line) for line in intake.stored()]


def test_a_run_that_was_over_before_anybody_looked_leaves_one_line() -> None:
    now = time.time_ns()
    ended = replace(WEB, exit_code=3, started_ns=now + SECOND, finished_ns=now + 2 * SECOND)
    later = replace(WEB, exit_code=4, started_ns=now + 5 * SECOND, finished_ns=now + 6 * SECOND)
    told = records_of(
        replace(WEB, state="created", started_ns=0),
        ended,
        replace(
            ended, finished_ns=now + 2 * SECOND + 5
        ),  # told again, with the engine's word of when it ended
        later,
        None,
    )
    assert [(line["exit_code"], line["duration_seconds"]) for line in told] == [(3, 1.0), (4, 1.0)]


def test_a_run_that_ends_before_it_began_leaves_one_line() -> None:
    """The clock was set back while it ran; who looks meanwhile hears of the end several times."""
    now = time.time_ns()
    run = replace(WEB, state="running", network_mode="none", started_ns=now + 3600 * SECOND)
    ended = replace(run, state="exited", exit_code=3, finished_ns=now + 5 * SECOND)
    told = records_of(
        run, ended, replace(ended, finished_ns=ended.finished_ns + 5), replace(ended, name="other"), None
    )
    assert [line["exit_code"] for line in told] == [3]


def test_an_end_heard_of_after_that_of_the_next_run_is_told_once() -> None:
    now = time.time_ns()
    one = replace(WEB, state="running", network_mode="none", started_ns=now + SECOND)
    two = replace(WEB, exit_code=7, started_ns=now + 3 * SECOND, finished_ns=now + 5 * SECOND)
    told = records_of(
        one,
        two,
        replace(two, labels={"a": "b"}),
        replace(one, state="exited", exit_code=5, finished_ns=now + 2 * SECOND),
        two,
        None,
    )
    assert [(line["exit_code"], line["duration_seconds"]) for line in told] == [(7, 2.0), (5, 1.0)]


def test_what_ended_before_us_is_not_told() -> None:
    assert records_of(replace(WEB, finished_ns=103 * SECOND), None) == []


def test_a_former_runs_end_has_its_own_numbers(make_cgroup: Any) -> None:
    """Heard of while the next run goes on already, and that one is not told of by it."""
    first, second = make_cgroup(), make_cgroup()
    burn = (
        "import time\nend = time.process_time() + 1\nwhile time.process_time() < end: pass\n"
        "print('burnt', flush=True)\nsys.stdin.readline()\n"
    )
    burner = first.python(burn)
    assert burner.stdout.readline() == b"burnt\n"
    idler = second.python("print('there', flush=True)\nsys.stdin.readline()\n")
    assert idler.stdout.readline() == b"there\n"
    begun = time.time_ns() - 10 * SECOND
    run = replace(WEB, state="running", network_mode="none")
    one = replace(run, pid=burner.pid, cgroup=first.path, started_ns=begun)
    two = replace(run, pid=idler.pid, cgroup=second.path, started_ns=begun + 3 * SECOND)
    missed = replace(WEB, exit_code=9, started_ns=begun + 2 * SECOND, finished_ns=begun + 2 * SECOND + 1)
    told = records_of(
        one,
        two,
        replace(one, state="exited", pid=0, exit_code=5, finished_ns=begun + SECOND),
        two,
        missed,
        two,
        replace(two, state="exited", pid=0, exit_code=6, finished_ns=begun + 4 * SECOND),
    )
    assert [(line["exit_code"], line["duration_seconds"]) for line in told] == [(5, 1.0), (9, 1e-9), (6, 1.0)]
    assert told[0]["cpu_seconds"] > 0.7
    assert "cpu_seconds" not in told[1]
    assert told[2]["cpu_seconds"] < 0.7
