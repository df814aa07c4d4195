"""A real Docker Engine's gelf and fluentd drivers into our inputs, beside our own drivers' sinks."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from collector.inputs.forward import ForwardInput
from collector.inputs.gelf import GelfInput
from collector.sink import Source
from logdrivers.block import Block, Encoding, Partial, Stream
from logdrivers.codecs import json_file
from logdrivers.driver import Driver, Info
from logdrivers.fluentd import FluentdDriver
from logdrivers.gelf import GelfDriver
from taffrail.demo import busybox_rootfs

LINES = 3000
SCRIPT = rf"""
printf 'plain <&> "q" tab\tend\n\n\r\nback\\slash \\u0009 \\n \033[1m\007\177\n'
printf 'caf\303\251 \377\376 \342\202 \342\200\250\n'
i=0; while [ $i -lt {LINES} ]; do echo "line $i of a container"; i=$((i+1)); done
head -c 40000 /dev/zero | tr '\0' x; echo
printf 'no newline'
"""


class Docker:
    """A private dockerd, without bridge or packet filter."""

    def __init__(self, root: Path) -> None:
        self.host = f"unix://{root}/s"
        self._log = (root / "log").open("wb")
        self._process = subprocess.Popen(
            ["dockerd", "--data-root", root / "data", "--exec-root", root / "exec", "-p", root / "pid",
             "-H", self.host, "--iptables=false", "--bridge=none"],
            stdout=self._log, stderr=self._log,
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while self.run("version", check=False).returncode:
            assert self._process.poll() is None, (root / "log").read_text()[-3000:]
            assert time.monotonic() < deadline, "dockerd did not start"
            time.sleep(0.1)
        self.run("import", "-", "test/busybox", input=busybox_rootfs())

    def run(self, *words: str, check: bool = True, **more: Any) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(["docker", "-H", self.host, *words], capture_output=True, check=check, **more)

    def container(self, driver: str, options: dict[str, str]) -> Info:
        """Run the script to its end under the driver; the container as a driver knows it."""
        words = [part for key, value in options.items() for part in ("--log-opt", f"{key}={value}")]
        made = self.run(
            "run", "-d", "--network", "none", "--log-driver", driver, *words,
            "--label", "app=a<b\tc", "-e", "TEAM=blue", "test/busybox", "sh", "-c", SCRIPT,
        )  # fmt: skip
        container_id = made.stdout.decode().strip()
        self.run("wait", container_id)
        facts = json.loads(self.run("inspect", container_id).stdout)[0]
        self.run("rm", container_id)
        return Info(
            container_id,
            facts["Name"],
            facts["Image"],
            facts["Config"]["Image"],
            [facts["Path"], *facts["Args"]],
            json_file.parse_time(facts["Created"].encode()),
            Path("/nonexistent"),
            options,
            facts["Config"]["Labels"],
            dict(entry.split("=", 1) for entry in facts["Config"]["Env"]),
            hostname=Path("/proc/sys/kernel/hostname").read_text().strip(),
        )

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(60)
        self._log.close()


@pytest.fixture(scope="module")
def docker() -> Iterator[Docker]:
    root = Path(tempfile.mkdtemp(dir="/tmp"))
    engine = Docker(root)
    yield engine
    engine.close()
    for mount in ("exec/netns/default", "exec/netns", "data"):
        subprocess.run(["umount", "-q", "-l", root / mount], check=False, capture_output=True)
    shutil.rmtree(root, ignore_errors=True)


def sources(container_id: str, name: str, image: str, origin: str) -> Source:
    return Source(container_id, name, image, "here", origin)


def written() -> list[Block]:
    """What the script writes, as the shim would put it into the journal."""
    time_ns = 1_795_203_851_793_123_456

    def block(data: bytes, partial: Partial | None = None) -> Block:
        lines = data.count(b"\n") if partial is None else 1
        return Block(data, Encoding.LINES, Stream.STDOUT, time_ns, time_ns, lines, partial)

    return [
        block(
            b'plain <&> "q" tab\tend\n\n\r\nback\\slash \\u0009 \\n \x1b[1m\x07\x7f\n'
            b"caf\xc3\xa9 \xff\xfe \xe2\x82 \xe2\x80\xa8\n"
        ),
        block(b"".join(b"line %d of a container\n" % i for i in range(LINES))),
        block(b"x" * 16384, Partial("a" * 64, 1, False)),
        block(b"x" * 16384, Partial("a" * 64, 2, False)),
        block(b"x" * (40000 - 32768), Partial("a" * 64, 3, True)),
        block(b"no newline", Partial("b" * 64, 1, False)),
    ]


@pytest.mark.parametrize(
    ("driver", "scheme", "more"),
    [
        (GelfDriver(), "udp", {}),
        (GelfDriver(), "udp", {"gelf-compression-type": "zlib"}),
        (GelfDriver(), "tcp", {}),
        (FluentdDriver(), "tcp", {"fluentd-sub-second-precision": "true"}),
        (FluentdDriver(), "tcp", {"fluentd-request-ack": "true"}),
    ],
)
def test_dockers_driver_and_ours_leave_the_same_records(
    docker: Docker, intake: Any, driver: Driver, scheme: str, more: dict[str, str]
) -> None:
    async def run() -> tuple[Info, int]:
        kind: type[GelfInput | ForwardInput] = GelfInput if driver.name == "gelf" else ForwardInput
        receiver = kind("127.0.0.1", 0, intake, sources)
        await receiver.start()
        try:
            host, port = receiver.address
            options = {
                f"{driver.name}-address": f"{scheme}://{host}:{port}",
                "tag": "{{.Name}}/{{.ID}}/{{.ImageID}}",
                "labels": "app",
                "env": "TEAM",
                **more,
            }
            driver.validate(options)
            counters = receiver.counters
            info = await asyncio.to_thread(docker.container, driver.name, options)
            await quiet(lambda: counters.received)
            theirs = counters.stored
            sink = driver.sink(info)
            assert sink is not None
            await asyncio.to_thread(sink.send, written())
            await quiet(lambda: counters.received)
            sink.close()
        finally:
            await receiver.stop()
        assert +counters.dropped == {}
        assert counters.received == counters.stored == 2 * theirs
        return info, theirs

    info, theirs = asyncio.run(run())
    assert {source.container_id for source, _ in intake.blocks} == {info.container_id}
    assert {source.container_name for source, _ in intake.blocks} == {info.container_name.removeprefix("/")}
    records = [record for _, block in intake.blocks for record in json_file.decode(block.data)]
    first, second = records[:theirs], records[theirs:]
    assert theirs == LINES + (9 if driver.name == "fluentd" else 8)  # GELF has no empty lines
    assert [plain(record) for record in first] == [plain(record) for record in second]
    assert first[0].attrs["app"] == "a<b\tc"
    assert first[0].attrs["TEAM"] == "blue"


async def quiet(count: Callable[[], int]) -> None:
    """Wait until something has come and nothing more does."""
    async with asyncio.timeout(60):
        before = -1
        while (now := count()) == 0 or now != before:
            before = now
            await asyncio.sleep(0.3)


def plain(record: json_file.Record) -> tuple[object, ...]:
    """Everything that does not differ from run to run."""
    attrs = {key: value for key, value in record.attrs.items() if key != "partial_id"}
    return record.log, record.stream, attrs
