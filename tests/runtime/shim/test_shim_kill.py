"""kill -9 of shim, engine and template, alone and together: no line lost, none twice, the exit code kept."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.shim.exit_status import ExitStatus, Waited
from runtime.shim.linux import process_start

LINES = 200_000
KILLS = 30
#: Kernels before 6.15 cannot tell how a process ended that somebody else has reaped.
TELLS_EXITS = tuple(int(n) for n in re.findall(r"\d+", os.uname().release)[:2]) >= (6, 15)
#: 200,000 numbered lines in bursts, and some on stderr beside them, for about seven seconds; more of either until
#: /go is there.
WRITER = (
    "(i=0; while [ $i -lt 200 ] || [ ! -e /go ]; do seq $((i*1000+1)) $((i*1000+1000)); usleep 30000; i=$((i+1)); "
    "done; echo $i >/bursts) & "
    "j=0; while [ $j -lt 1000 ] || [ ! -e /go ]; do echo err $j >&2; usleep 3000; j=$((j+1)); done; "
    "echo $j >/errors; wait; exit 42"
)
#: Bursts of a hundred lines, a hundred of them at least, until /go is there.
SOME = (
    "i=0; while [ $i -lt 100 ] || [ ! -e /go ]; do seq $((i*100+1)) $((i*100+100)); usleep 10000; i=$((i+1)); "
    "done; echo $i >/bursts; exit 42"
)


def numbers(last: int) -> list[str]:
    return [f"{n}\n" for n in range(1, last + 1)]


def go(bundles) -> None:
    """The writer may end."""
    (bundles.directory / "rootfs" / "go").touch()


def told(bundles, name: str = "bursts") -> int:
    """How many the writer says there were."""
    return int((bundles.directory / "rootfs" / name).read_text())


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


async def lines_written(handle, count: int) -> None:
    while (await handle.counters())["lines"] < count:
        await asyncio.sleep(0.005)


async def until(condition) -> None:
    async with asyncio.timeout(100):
        while not condition():
            await asyncio.sleep(0.01)


def started_by_an_engine(bundles, spec) -> tuple[subprocess.Popen[bytes], int, int]:
    """The engine's process, the container's and the shim's pid."""
    engine = bundles.engine_that_runs(spec)
    assert engine.stdout is not None
    pid, shim_pid = map(int, engine.stdout.readline().split())
    return engine, pid, shim_pid


def end(engine: subprocess.Popen[bytes]) -> None:
    engine.kill()
    engine.wait()
    assert engine.stdout is not None
    engine.stdout.close()


@pytest.mark.parametrize("seed", [1, 2])
def test_shims_killed_again_and_again(bundles, seed):
    spec = bundles.spec(WRITER)
    chance = random.Random(seed)

    async def scenario(shims):
        handle = await shims.run(spec)
        kills = 0
        while handle.running:
            await asyncio.sleep(chance.uniform(0.01, 0.08))
            if handle.running and handle.shim_pid:
                kill(handle.shim_pid)
                kills += 1
                if kills == KILLS:
                    go(bundles)
                # The next one is only worth killing once it has taken over.
                killed = handle.shim_pid
                await until(lambda killed=killed: not handle.running or handle.shim_pid != killed)
        return kills, await handle.wait()

    kills, status = bundles.play(scenario)
    assert kills >= KILLS
    assert status.code == 42
    assert bundles.records(spec) == numbers(1000 * told(bundles))
    assert bundles.records(spec, "stderr") == [f"err {n}\n" for n in range(told(bundles, "errors"))]


def test_a_shim_killed_while_the_container_writes_as_fast_as_it_can(bundles):
    spec = bundles.spec(f"seq 1 {10 * LINES}; exit 42")
    chance = random.Random(3)

    async def scenario(shims):
        handle = await shims.run(spec)
        for _ in range(8):
            await asyncio.sleep(chance.uniform(0.01, 0.06))
            if not handle.running:
                break
            killed = handle.shim_pid
            kill(killed)
            await until(lambda killed=killed: not handle.running or handle.shim_pid != killed)
        return await handle.wait()

    assert bundles.play(scenario).code == 42
    assert bundles.records(spec) == numbers(10 * LINES)


def test_the_engine_killed_and_another_takes_over(bundles):
    spec = bundles.spec(SOME)
    engine, pid, shim_pid = started_by_an_engine(bundles, spec)
    end(engine)
    ticks = process_start(shim_pid)

    async def scenario(shims):
        handle = await shims.adopt(spec)
        assert (handle.pid, handle.shim_pid) == (pid, shim_pid)
        assert process_start(shim_pid) == ticks
        go(bundles)
        return await handle.wait()

    assert bundles.play(scenario).code == 42
    assert bundles.records(spec) == numbers(100 * told(bundles))


def test_engine_and_shim_killed_together(bundles):
    spec = bundles.spec(SOME)
    engine, pid, shim_pid = started_by_an_engine(bundles, spec)
    end(engine)
    kill(shim_pid)

    async def scenario(shims):
        handle = await shims.adopt(spec)
        assert handle.pid == pid
        assert handle.shim_pid != shim_pid
        go(bundles)
        return await handle.wait()

    assert bundles.play(scenario).code == 42
    assert bundles.records(spec) == numbers(100 * told(bundles))


def test_the_template_killed_does_not_touch_what_runs(bundles):
    spec, later = bundles.spec(SOME), bundles.spec("echo later; exit 7")

    async def scenario(shims):
        handle = await shims.run(spec)
        shim_pid = handle.shim_pid
        kill(bundles.template_pid())
        other = await shims.run(later)
        assert (await other.wait()).code == 7
        assert handle.shim_pid == shim_pid
        go(bundles)
        return await handle.wait()

    assert bundles.play(scenario).code == 42
    assert bundles.records(spec) == numbers(100 * told(bundles))


@pytest.mark.parametrize("order", ["template first", "shim first"])
def test_template_and_shim_killed_while_the_engine_lives(bundles, order):
    spec = bundles.spec(SOME)

    async def scenario(shims):
        handle = await shims.run(spec)
        await lines_written(handle, 1000)
        victims = [bundles.template_pid(), handle.shim_pid]
        for pid in victims if order == "template first" else reversed(victims):
            kill(pid)
        go(bundles)
        return await handle.wait()

    assert bundles.play(scenario).code == 42
    assert bundles.records(spec) == numbers(100 * told(bundles))


def test_everything_of_ours_killed_at_once_while_the_container_writes(bundles):
    spec = bundles.spec(SOME)
    engine, pid, shim_pid = started_by_an_engine(bundles, spec)
    for victim in (engine.pid, bundles.template_pid(), shim_pid):
        kill(victim)
    end(engine)

    async def scenario(shims):
        handle = await shims.adopt(spec)
        assert handle.pid == pid
        go(bundles)
        return await handle.wait()

    bundles.play(scenario)
    # Nobody of ours was its parent when it ended; kernels before 6.15 cannot tell how it did.
    assert bundles.records(spec) == numbers(100 * told(bundles))


def test_a_container_that_ends_without_an_engine(bundles):
    spec = bundles.spec("echo last words; sleep 0.3; exit 11")
    engine, _, _ = started_by_an_engine(bundles, spec)
    end(engine)
    bundles.wait_until(lambda: ExitStatus.read(spec.run_dir))

    async def scenario(shims):
        handle = await shims.adopt(spec)
        assert not handle.running
        return await handle.wait()

    assert bundles.play(scenario).code == 11
    assert bundles.records(spec) == ["last words\n"]


def test_a_container_that_ends_without_engine_and_shim(bundles):
    spec = bundles.spec("seq 1 10000; until test -e /go; do usleep 10000; done; seq 10001 20000; exit 12")
    engine, _, shim_pid = started_by_an_engine(bundles, spec)
    end(engine)
    kill(shim_pid)
    go(bundles)
    bundles.wait_until(lambda: Waited.read(spec.run_dir))
    assert ExitStatus.read(spec.run_dir) is None

    async def scenario(shims):
        return await (await shims.adopt(spec)).wait()

    assert bundles.play(scenario).code == 12
    assert bundles.records(spec) == numbers(20_000)


def test_a_template_that_took_over_tells_how_a_container_without_engine_and_shim_ended(bundles):
    go = bundles.directory / "rootfs" / "go"
    spec = bundles.spec("echo one; until test -e /go; do usleep 10000; done; echo two; exit 17")
    engine, _, shim_pid = started_by_an_engine(bundles, spec)
    first = bundles.template_pid()
    kill(first)

    def taken_over() -> bool:
        with contextlib.suppress(StopIteration, OSError):
            template = bundles.template_pid()
            held = [str(path.readlink()) for path in Path(f"/proc/{template}/fd").iterdir()]
            return template != first and any(spec.container_id in link for link in held)
        return False

    bundles.wait_until(taken_over)
    end(engine)
    kill(shim_pid)
    go.touch()
    if TELLS_EXITS:
        bundles.wait_until(lambda: Waited.read(spec.run_dir))

    async def scenario(shims):
        return await (await shims.adopt(spec)).wait()

    assert bundles.play(scenario).code == (17 if TELLS_EXITS else 255)
    assert bundles.records(spec) == ["one\n", "two\n"]


def test_an_engine_has_its_template_keep_the_streams_of_shims_it_finds(bundles):
    go = bundles.directory / "rootfs" / "go"
    spec = bundles.spec("echo one; until test -e /go; do usleep 10000; done; echo two; exit 18")
    engine, _, shim_pid = started_by_an_engine(bundles, spec)
    kill(bundles.template_pid())
    end(engine)

    async def found(shims):
        assert (await shims.adopt(spec)).shim_pid == shim_pid

    bundles.play(found)
    kill(shim_pid)
    go.touch()
    if TELLS_EXITS:
        bundles.wait_until(lambda: Waited.read(spec.run_dir))

    async def scenario(shims):
        return await (await shims.adopt(spec)).wait()

    assert bundles.play(scenario).code == (18 if TELLS_EXITS else 255)
    assert bundles.records(spec) == ["one\n", "two\n"]


def test_a_container_started_again_after_nobody_saw_it_end(bundles):
    spec = bundles.spec("echo life; until test -e /go; do usleep 10000; done; exit 13")
    engine, _, shim_pid = started_by_an_engine(bundles, spec)
    end(engine)
    kill(shim_pid)
    go(bundles)
    bundles.wait_until(lambda: Waited.read(spec.run_dir))

    async def scenario(shims):
        return await (await shims.run(spec)).wait()

    assert bundles.play(scenario).code == 13
    assert bundles.records(spec) == ["life\n", "life\n"]


def test_a_shim_killed_while_it_starts_the_container_starts_it_once(bundles):
    chance = random.Random(5)

    async def one(shims) -> None:
        spec = bundles.spec("echo ran; exit 14")
        before = set(bundles.processes())
        running = asyncio.create_task(shims.run(spec))
        await asyncio.sleep(chance.uniform(0.001, 0.05))
        for pid in set(bundles.processes()) - before:
            kill(pid)
        assert (await (await running).wait()).code == 14
        assert bundles.records(spec) == ["ran\n"]

    async def scenario(shims):
        for _ in range(12):
            await one(shims)

    bundles.play(scenario)


def test_a_terminal_survives_its_shim(bundles):
    spec = bundles.spec("read a; echo one $a; read b; echo two $b; exit 15", tty=True)

    async def scenario(shims):
        handle = await shims.run(spec)
        session = await handle.attach()
        await session.write_stdin(b"x\n")
        await lines_written(handle, 2)
        killed = handle.shim_pid
        kill(killed)
        await session.close()
        await until(lambda: handle.shim_pid != killed)
        session = await handle.attach()
        await session.write_stdin(b"y\n")
        status = await handle.wait()
        await session.close()
        return status

    assert bundles.play(scenario).code == 15
    assert "two y\r\n" in bundles.records(spec)


def test_stdin_survives_the_shim_and_can_still_be_ended(bundles):
    spec = bundles.spec("cat; exit 16", open_stdin=True)

    async def scenario(shims):
        handle = await shims.run(spec)
        session = await handle.attach()
        await session.write_stdin(b"one\n")
        await lines_written(handle, 1)
        killed = handle.shim_pid
        kill(killed)
        await session.close()
        await until(lambda: handle.shim_pid != killed)
        session = await handle.attach()
        await session.write_stdin(b"two\n")
        await lines_written(handle, 2)
        await handle.close_stdin()
        status = await handle.wait()
        await session.close()
        return status

    assert bundles.play(scenario).code == 16
    assert bundles.records(spec) == ["one\n", "two\n"]


def test_a_template_serves_a_directory_alone(bundles):
    async def scenario(shims):
        first = bundles.template_pid()
        other = bundles.shims()
        await other.start()
        assert bundles.template_pid() == first
        await other.close()
        done = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "runtime.shim.template", str(bundles.directory / "run"),
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])},
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        _, message = await done.communicate()
        assert done.returncode == 2
        assert b"another template serves" in message
        await shims.shutdown()
        await until(lambda: bundles.processes() == [])

    bundles.play(scenario)
