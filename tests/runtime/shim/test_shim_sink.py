"""Disks that are full and sinks behind a shim: what cannot go out waits, and nothing waits for a sink."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess

import pytest


def numbers(last: int) -> list[str]:
    return [f"{n}\n" for n in range(1, last + 1)]


@pytest.fixture
def small_disk(bundles):
    """A tmpfs of 2 MB where the logs are; grows with ``mount -o remount``."""
    logs = bundles.directory / "logs"
    logs.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", logs], check=True)
    yield lambda: subprocess.run(["mount", "-o", "remount,size=64m", logs], check=True)
    bundles.clear()
    subprocess.run(["umount", logs], check=True)


async def until(handle, condition) -> None:
    async with asyncio.timeout(30):
        while not condition(await handle.counters()):
            await asyncio.sleep(0.02)


def test_a_full_disk_holds_the_container_and_loses_nothing(bundles, small_disk):
    spec = bundles.spec("seq 1 100000; exit 3")

    async def scenario(shims):
        handle = await shims.run(spec)
        await until(handle, lambda counters: counters["write_failures"] > 0)
        assert handle.running
        small_disk()
        return await handle.wait()

    assert bundles.play(scenario).code == 3
    assert bundles.records(spec) == numbers(100_000)


def test_a_shim_killed_while_the_disk_is_full(bundles, small_disk):
    spec = bundles.spec("seq 1 100000; sleep 0.2; exit 4")

    async def scenario(shims):
        handle = await shims.run(spec)
        await until(handle, lambda counters: counters["write_failures"] > 0)
        os.kill(handle.shim_pid, signal.SIGKILL)
        small_disk()
        return await handle.wait()

    assert bundles.play(scenario).code == 4
    assert bundles.records(spec) == numbers(100_000)


def gelf_receiver() -> tuple[socket.socket, str]:
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    receiver.bind(("127.0.0.1", 0))
    receiver.settimeout(20)
    return receiver, f"udp://127.0.0.1:{receiver.getsockname()[1]}"


def test_lines_reach_a_sink_and_the_shim_stays_until_they_have(bundles):
    receiver, address = gelf_receiver()
    options = {"gelf-address": address, "gelf-compression-type": "none"}
    spec = bundles.spec("seq 1 100; echo oops >&2; exit 5", driver="gelf", log_options=options)

    async def scenario(shims):
        return await (await shims.run(spec)).wait()

    assert bundles.play(scenario).code == 5
    with receiver:
        messages = [json.loads(receiver.recv(65536)) for _ in range(101)]
    assert [m["short_message"] for m in messages if m["level"] == 6] == [str(n) for n in range(1, 101)]
    assert [m["short_message"] for m in messages if m["level"] == 3] == ["oops"]
    assert {m["_container_id"] for m in messages} == {spec.container_id}


def test_a_sink_that_is_down_costs_the_container_nothing(bundles):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{closed.getsockname()[1]}"
        spec = bundles.spec("seq 1 20000; sleep 1000", driver="gelf", log_options={"gelf-address": address})

        async def scenario(shims):
            handle = await shims.run(spec)
            await until(handle, lambda counters: counters["lines"] == 20_000 and not counters["sink_up"])
            counters = await handle.counters()
            await handle.signal(signal.SIGKILL)
            await handle.wait()
            return counters

        counters = bundles.play(scenario)
    assert (counters["delivered"], counters["held"], counters["dropped"]) == (0, 20_000, {})


def test_the_next_start_does_not_wait_for_the_last_delivery(bundles):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{closed.getsockname()[1]}"
        spec = bundles.spec("seq 1 10", driver="gelf", log_options={"gelf-address": address})

        async def scenario(shims):
            shim_pids = []
            for _ in range(3):
                handle = await shims.run(spec)
                shim_pids.append(handle.shim_pid)
                await handle.wait()
            assert len(set(shim_pids)) == 3
            handle = await shims.run(bundles.respec(spec, "seq 1 10; sleep 1000"))
            await until(handle, lambda counters: counters["lines"] == 40)
            return await handle.counters()

        counters = bundles.play(scenario)
    assert (counters["delivered"], counters["held"]) == (0, 40)


def test_delivery_goes_on_in_the_successor_of_a_killed_shim(bundles):
    receiver, address = gelf_receiver()
    options = {"gelf-address": address, "gelf-compression-type": "none"}
    script = (
        "i=0; while [ $i -lt 60 ]; do seq $((i*10+1)) $((i*10+10)); usleep 20000; i=$((i+1)); done; exit 6"
    )
    spec = bundles.spec(script, driver="gelf", log_options=options)

    async def scenario(shims):
        handle = await shims.run(spec)
        for count in (100, 300):
            await until(handle, lambda counters, count=count: counters["lines"] >= count)
            killed = handle.shim_pid
            os.kill(killed, signal.SIGKILL)
            while handle.shim_pid == killed:
                await asyncio.sleep(0.01)
        return await handle.wait()

    assert bundles.play(scenario).code == 6
    got = []
    with receiver:
        while "600" not in got:
            got.append(json.loads(receiver.recv(65536))["short_message"])
    # At least once, in order but for what was sent again.
    assert list(dict.fromkeys(got)) == [str(n) for n in range(1, 601)]
