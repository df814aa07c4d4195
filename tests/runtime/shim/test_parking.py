"""A quiet container's shim is parked: nothing of that shows, whatever wakes it and whoever is killed meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runtime.shim import linux
from runtime.shim.exit_status import ExitStatus
from runtime.shim.parking import Parked
from runtime.shim.shims import ShimSpec

#: Elsewhere no shim is parked.
parks = pytest.mark.skipif(not linux.tells_exits(), reason="the kernel does not tell exits by pidfd")
#: A kernel before 6.15, as far as the template and its shims can see.
OLD_KERNEL = "from runtime.shim import linux\nlinux.exit_status_of = lambda pidfd: None"

#: Says a line when it starts and two when the file is there.
WAITER = "echo up; while [ ! -e /tmp/NAME ]; do usleep 20000; done; echo went; echo oops >&2; exit 42"


def waiter(bundles: Any, **options: Any) -> tuple[ShimSpec, Path]:
    """A container that goes on when the returned file is made."""
    spec = bundles.spec("", park_seconds=0.05, **options)
    name = spec.container_id[:12]
    return bundles.respec(spec, WAITER.replace("NAME", name)), bundles.directory / "rootfs/tmp" / name


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


async def parked(handle: Any) -> int:
    """Wait until the shim has been followed by one that waits; its pid."""
    first = handle.shim_pid
    await until(lambda: handle.shim_pid != first)
    return int(handle.shim_pid)


def check(bundles: Any, spec: ShimSpec, status: Any) -> None:
    assert status.code == 42
    assert bundles.records(spec) == ["up\n", "went\n"]
    assert bundles.records(spec, "stderr") == ["oops\n"]


@parks
@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_output_and_exit_wake_it(bundles: Any, driver: str) -> None:
    spec, go = waiter(bundles, driver=driver)

    async def scenario(shims: Any) -> Any:
        handle = await shims.run(spec)
        await parked(handle)
        go.touch()
        return await handle.wait()

    status = bundles.play(scenario)
    assert status.code == 42
    if driver == "json-file":
        check(bundles, spec, status)


@parks
def test_a_request_wakes_it_and_its_counts_are_whole(bundles: Any) -> None:
    spec, go = waiter(bundles)

    async def scenario(shims: Any) -> Any:
        handle = await shims.run(spec)
        await parked(handle)
        lines = (await handle.counters())["lines"]
        session = await handle.exec({"args": ["/bin/echo", "in"], "cwd": "/", "env": ["PATH=/bin"]})
        said = b"".join([data async for _, data in session])
        go.touch()
        return lines, said, await handle.wait()

    lines, said, status = bundles.play(scenario)
    assert (lines, said) == (1, b"in\n")
    check(bundles, spec, status)


@parks
@pytest.mark.parametrize("victims", ["shim", "template", "both"])
def test_killed_while_it_is_parked(bundles: Any, victims: str) -> None:
    spec, go = waiter(bundles)

    async def scenario(shims: Any) -> Any:
        handle = await shims.run(spec)
        pid = await parked(handle)
        if victims != "shim":
            os.kill(bundles.template_pid(), signal.SIGKILL)
        if victims != "template":
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        go.touch()
        return await handle.wait()

    check(bundles, spec, bundles.play(scenario))


@parks
def test_another_engine_finds_it(bundles: Any) -> None:
    spec, go = waiter(bundles)

    async def first(shims: Any) -> None:
        await parked(await shims.run(spec))

    async def second(shims: Any) -> Any:
        handle = await shims.adopt(spec)
        go.touch()
        return await handle.wait()

    bundles.play(first)
    check(bundles, spec, bundles.play(second))


def shim_of(bundles: Any, but: int) -> int:
    """The one shim there is, if it is another than that; 0 otherwise."""
    template = bundles.template_pids()
    found = [pid for pid in bundles.processes() if pid not in template and b"-c" not in arguments(pid)]
    return found[0] if len(found) == 1 and found[0] != but else 0


def arguments(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return []


@parks
def test_engine_and_template_killed_while_it_is_parked(bundles: Any) -> None:
    spec, go = waiter(bundles)
    engine = bundles.engine_that_runs(spec)
    assert engine.stdout is not None
    _, shim_pid = map(int, engine.stdout.readline().split())
    bundles.wait_until(lambda: shim_of(bundles, shim_pid))
    first = shim_of(bundles, shim_pid)
    engine.kill()  # which wakes it
    engine.wait()
    engine.stdout.close()
    bundles.wait_until(lambda: shim_of(bundles, first))
    last = shim_of(bundles, first)
    for pid in bundles.template_pids():
        os.kill(pid, signal.SIGKILL)
    bundles.wait_until(lambda: bundles.processes() == [last])
    go.touch()
    bundles.wait_until(lambda: ExitStatus.read(spec.run_dir))
    check(bundles, spec, ExitStatus.read(spec.run_dir))

    async def scenario(shims: Any) -> Any:
        return await (await shims.adopt(spec)).wait()

    check(bundles, spec, bundles.play(scenario))


def test_a_kernel_that_does_not_tell_exits_costs_no_exit_code(bundles: Any) -> None:
    spec, go = waiter(bundles)
    template = bundles.template_after(OLD_KERNEL)

    async def first(shims: Any) -> int:
        handle = await shims.run(spec)
        shim_pid = int(handle.shim_pid)
        await asyncio.sleep(1)  # twenty times what it takes to be parked
        assert handle.shim_pid == shim_pid
        return shim_pid

    async def second(shims: Any) -> Any:
        handle = await shims.adopt(spec)
        template.kill()
        go.touch()
        return handle.shim_pid, await handle.wait()

    shim_pid = bundles.play(first)
    found, status = bundles.play(second)
    template.wait()
    assert found == shim_pid
    check(bundles, spec, status)


@pytest.mark.parametrize("answer", [None, 7 << 8, 0])
def test_the_kernel_is_asked_with_a_real_process(monkeypatch: Any, answer: int | None) -> None:
    monkeypatch.setattr(linux, "exit_status_of", lambda _pidfd: answer)
    assert linux.tells_exits.__wrapped__() == (answer == 7 << 8)


@parks
@pytest.mark.parametrize(
    "options", [{"tty": True}, {"open_stdin": True}, {"log_options": {"rate-limit": "1m"}}]
)
def test_what_only_memory_knows_keeps_it(bundles: Any, options: dict[str, Any]) -> None:
    spec, go = waiter(bundles, **options)
    quiet, quiet_go = waiter(bundles)

    async def scenario(shims: Any) -> Any:
        handle = await shims.run(spec)
        first = handle.shim_pid
        other = await shims.run(quiet)
        await parked(other)  # which was started later
        kept = handle.shim_pid == first
        go.touch()
        quiet_go.touch()
        return kept, await handle.wait(), await other.wait()

    kept, status, other = bundles.play(scenario)
    assert kept
    assert (status.code, other.code) == (42, 42)


def test_descriptors_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="5 descriptors, expected 7"):
        Parked.of([3, 4, 5, 6, 7], 2, [True], 1.0)


def test_it_stays_if_the_one_before_does_not_hand_over() -> None:
    read, write = os.pipe()
    os.close(write)
    try:
        assert not Parked(read, -1, -1, -1, (), (), (), 1.0).wait()
    finally:
        os.close(read)
