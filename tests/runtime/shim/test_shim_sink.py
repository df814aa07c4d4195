"""Disks that are full and sinks behind a shim: what cannot go out waits, and nothing waits for a sink."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time

import pytest

from logdrivers.delivery import STATE_NAME, read_counters
from runtime.remainders import Remainders
from runtime.shim.messages import SHIM_SOCKET, connect
from runtime.shim.shims import finish_last_shim, finishing_shim


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
    subprocess.run(["umount", "-l", logs], check=True)


async def until(handle, condition) -> None:
    async with asyncio.timeout(100):
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
    # Room for all of it, whatever the host's limit: it is read only when the container has ended.
    receiver.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE
    receiver.bind(("127.0.0.1", 0))
    receiver.settimeout(100)
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


class PatientReceiver:
    """Takes a connection at once, and reads from it only once it is told to; ``lines`` are the messages' texts."""

    def __init__(self) -> None:
        self._listening = socket.socket()
        # What is not read is not taken.
        self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
        self._listening.bind(("127.0.0.1", 0))
        self._listening.listen()
        self.address = f"tcp://127.0.0.1:{self._listening.getsockname()[1]}"
        self.lines: list[str] = []
        self.may_read = threading.Event()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                connection = self._listening.accept()[0]
                self._threads.append(threading.Thread(target=self._read, args=(connection,), daemon=True))
                self._threads[-1].start()

    def _read(self, connection: socket.socket) -> None:
        self.may_read.wait()
        rest = b""
        with connection, contextlib.suppress(ConnectionError):
            while data := connection.recv(1 << 16):
                *messages, rest = (rest + data).split(b"\0")
                self.lines += [json.loads(message)["short_message"] for message in messages]

    def close(self) -> None:
        self.may_read.set()
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for thread in self._threads:
            thread.join(100)


@pytest.fixture
def patient_receiver():
    receiver = PatientReceiver()
    yield receiver
    receiver.close()


def test_what_a_slow_sink_is_taking_when_the_shim_is_to_go_is_not_sent_again(bundles, patient_receiver):
    options = {"gelf-address": patient_receiver.address}
    spec = bundles.spec("seq 1 300000", driver="gelf", log_options=options)

    async def scenario(shims):
        handle = await shims.run(spec)
        await handle.wait()
        finished = asyncio.create_task(finish_last_shim(spec.run_dir, spec.container_id))
        # Longer than a shim that is only told to stop waits for its sink.
        done, _ = await asyncio.wait([finished], timeout=1)
        assert not done
        patient_receiver.may_read.set()
        await finished

    bundles.play(scenario)
    with pytest.raises(OSError, match="No such file"):
        connect(spec.run_dir, SHIM_SOCKET)
    taken = read_counters(spec.info.directory / STATE_NAME)
    assert 0 < taken.delivered < 300_000, "the shim leaves the batches behind this one to the engine"
    remainders = Remainders(bundles.directory / "undelivered")
    remainders.start()
    remainders.take("gelf", spec.info)
    try:
        deadline = time.monotonic() + 150
        while len(patient_receiver.lines) < 300_000:
            assert time.monotonic() < deadline, len(patient_receiver.lines)
            time.sleep(0.02)
    finally:
        remainders.close()
    assert patient_receiver.lines == [str(number) for number in range(1, 300_001)]


def test_a_removal_cuts_off_no_batch_that_a_slow_sink_is_taking(bundles, patient_receiver):
    """Its shim has time for it, and whoever delivers next waits for that."""
    options = {"gelf-address": patient_receiver.address}
    spec = bundles.spec("seq 1 20000", driver="gelf", log_options=options)
    remainders = Remainders(bundles.directory / "undelivered")
    remainders.start()

    async def scenario(shims):
        handle = await shims.run(spec)
        await handle.wait()
        shim = await asyncio.to_thread(finishing_shim, spec.run_dir, spec.container_id)
        assert shim is not None
        await asyncio.to_thread(remainders.bury, "gelf", spec.info, shim)
        shutil.rmtree(spec.run_dir)
        shutil.rmtree(spec.info.directory)
        assert remainders._remainders == {}, "the next delivery waits for the shim's"
        patient_receiver.may_read.set()
        async with asyncio.timeout(150):
            while len(patient_receiver.lines) < 20_000 or (remainders.directory / spec.container_id).exists():
                await asyncio.sleep(0.02)

    try:
        bundles.play(scenario)
    finally:
        remainders.close()
    assert patient_receiver.lines == [str(number) for number in range(1, 20_001)]


def test_a_shim_whose_container_runs_goes_on_delivering(bundles, patient_receiver):
    patient_receiver.may_read.set()
    options = {"gelf-address": patient_receiver.address}
    script = "trap 'seq 11 20; exit 7' USR1; seq 1 10; while :; do usleep 10000; done"
    spec = bundles.spec(script, driver="gelf", log_options=options)

    async def scenario(shims):
        handle = await shims.run(spec)
        await until(handle, lambda counters: counters["delivered"] == 10)
        await finish_last_shim(spec.run_dir, spec.container_id)
        await handle.signal(signal.SIGUSR1)
        return await handle.wait()

    assert bundles.play(scenario).code == 7
    while len(patient_receiver.lines) < 20:
        time.sleep(0.02)
    assert patient_receiver.lines == [str(number) for number in range(1, 21)]
