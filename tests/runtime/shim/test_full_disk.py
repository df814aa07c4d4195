"""A full disk under every driver's files: the container waits or is refused, and no line is lost."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
from pathlib import Path

import pytest

from logdrivers.block import Encoding
from logdrivers.codecs.json_file import decode
from logdrivers.delivery import STATE_NAME, read_counters
from logdrivers.journals.segments import SegmentJournal
from logdrivers.registry import get
from runtime.shim.shims import StartError

#: Every driver with files of its own kind, its sink away.
DRIVERS = {
    "json-file": {},
    "json-file rotating": {"max-size": "200k", "max-file": "100"},
    "json-file compressing": {"max-size": "200k", "max-file": "100", "compress": "true"},
    "local": {"max-size": "200k", "max-file": "100", "compress": "false"},
    "gelf": {"gelf-address": "tcp://127.0.0.1:1"},
    "fluentd": {"fluentd-address": "tcp://127.0.0.1:1"},
    "syslog": {"syslog-address": "tcp://127.0.0.1:1"},
    "journald": {},
}
#: Pages free when the container starts: each file of a journal and of a delivery finds none in one of these.
PAGES = (0, 1, 2, 3, 4, 5, 6, 8)


@pytest.fixture
def disk(bundles):
    """Where the logs are: a tmpfs of 2 MB that grows when told."""
    logs = bundles.directory / "logs"
    logs.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", logs], check=True)
    yield lambda: subprocess.run(["mount", "-o", "remount,size=64m", logs], check=True)
    bundles.clear()
    subprocess.run(["umount", "-l", logs], check=True)


def read_lines(spec) -> list[bytes]:
    """What the journal holds, in order."""
    reader = get(spec.driver).reader(spec.info)
    position, data = reader.first(), []
    while entries := reader.read(position).entries:
        for block, end, _ in entries:
            position = end
            if block.encoding is Encoding.JSON_FILE:
                data += [record.log for record in decode(block.data)]
            else:
                data.append(block.data)
    reader.close()
    return b"".join(data).split(b"\n")[:-1]


def prepared(spec):
    """The container; without journald on this host it only starts where lines wait for one."""
    if spec.driver == "journald":
        SegmentJournal(spec.info.directory).close()
    return spec


@pytest.mark.parametrize("kind", DRIVERS)
def test_a_disk_that_fills_up_holds_the_container_and_loses_nothing(bundles, disk, kind):
    lines = [b"%d %s" % (n, os.urandom(40).hex().encode()) for n in range(60_000)]
    (bundles.directory / "rootfs" / "lines").write_bytes(b"\n".join([*lines, b""]))
    driver = kind.partition(" ")[0]
    spec = prepared(bundles.spec("cat /lines; exit 3", driver=driver, log_options=DRIVERS[kind]))

    async def scenario(shims):
        handle = await shims.run(spec)
        async with asyncio.timeout(100):
            while not (await handle.counters())["write_failures"]:
                await asyncio.sleep(0.02)
        assert handle.running
        disk()
        return await handle.wait()

    assert bundles.play(scenario).code == 3
    assert read_lines(spec) == lines


@pytest.mark.parametrize("kind", DRIVERS)
def test_a_disk_full_from_the_start(bundles, disk, kind):
    driver = kind.partition(" ")[0]
    logs = bundles.directory / "logs"
    lines = [b"%d" % n for n in range(1, 2001)]

    async def one(shims, pages):
        spec = prepared(bundles.spec("seq 1 2000; exit 4", driver=driver, log_options=DRIVERS[kind]))
        free = os.statvfs(logs).f_bavail - pages
        (logs / "ballast").write_bytes(bytes(free * 4096))
        try:
            handle = await shims.run(spec)
        except StartError as error:
            assert "No space left on device" in str(error)  # noqa: PT017 either is right
            return None
        finally:
            (logs / "ballast").unlink()
        assert (await handle.wait()).code == 4
        return spec

    async def scenario(shims):
        return [await one(shims, pages) for pages in PAGES]

    started = [spec for spec in bundles.play(scenario) if spec is not None]
    assert started
    for spec in started:
        assert read_lines(spec) == lines
        state = spec.info.directory / STATE_NAME
        if state.exists() and (counters := read_counters(state)) is not None:
            assert counters.written == counters.delivered + counters.held == 2000


def test_a_delivery_that_found_no_room_at_first_begins_later(bundles, disk):
    logs = bundles.directory / "logs"
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.bind(("127.0.0.1", 0))
    receiver.settimeout(100)
    options = {
        "gelf-address": f"udp://127.0.0.1:{receiver.getsockname()[1]}",
        "gelf-compression-type": "none",
    }
    started: dict[str, Path] = {}

    async def one(shims, pages):
        spec = bundles.spec(
            "echo first; sleep 3; echo second; sleep 1000", driver="gelf", log_options=options
        )
        (logs / "ballast").write_bytes(bytes((os.statvfs(logs).f_bavail - pages) * 4096))
        try:
            await shims.run(spec)
        except StartError:
            return
        finally:
            (logs / "ballast").unlink()
        started[spec.container_id] = spec.run_dir / "shim.log"

    async def scenario(shims):
        for pages in range(2, 10):
            await one(shims, pages)
        messages = set()
        while len(messages) < 2 * len(started):
            message = json.loads(await asyncio.to_thread(receiver.recv, 65536))
            messages.add((message["_container_id"], message["short_message"]))
        return messages

    with receiver:
        messages = bundles.play(scenario)
    assert messages == {(container, text) for container in started for text in ("first", "second")}
    assert any("start the gelf delivery" in path.read_text() for path in started.values()), "none was refused"


@pytest.mark.parametrize("kind", ["json-file", "gelf"])
def test_no_room_for_spool_and_ledger(bundles, kind):
    script = "while ! test -e /go; do usleep 20000; done; seq 1 30000; exit 5"
    spec = bundles.spec(script, driver=kind, log_options=DRIVERS[kind])
    spools = spec.ledger_path.parent
    spools.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", spools], check=True)
    try:
        fill = lambda: (spools / "ballast").write_bytes(bytes(os.statvfs(spools).f_bavail * 4096))  # noqa: E731

        async def scenario(shims):
            fill()
            with pytest.raises(StartError, match=r"open the container.s log: .*No space left on device"):
                await shims.run(spec)
            (spools / "ballast").unlink()
            handle = await shims.run(spec)
            fill()
            (bundles.directory / "rootfs" / "go").touch()
            async with asyncio.timeout(100):
                while not (await handle.counters())["write_failures"]:
                    await asyncio.sleep(0.02)
            assert handle.running
            (spools / "ballast").unlink()
            return await handle.wait()

        assert bundles.play(scenario).code == 5
        assert read_lines(spec) == [b"%d" % n for n in range(1, 30_001)]
    finally:
        bundles.clear()
        subprocess.run(["umount", "-l", spools], check=True)
