"""GELF with Graylog's Go library at the other end, the one in Docker's driver: its readers and its writers."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from memory_intake import sources

from collector.inputs.gelf import GelfInput
from logdrivers.block import Block, Encoding, Stream
from logdrivers.codecs import json_file
from logdrivers.driver import Info
from logdrivers.gelf import GelfDriver

LIBRARY = Path("/usr/share/gocode/src/github.com/Graylog2/go-gelf/gelf")
SOURCES = Path(__file__).parents[1] / "fixtures" / "go-gelf"
TIME = 1_795_203_851_793_000_000


@pytest.fixture(scope="module")
def go_gelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program of tests/fixtures/go-gelf, built with Debian's library."""
    root = tmp_path_factory.mktemp("go")
    library = root / "src" / "github.com" / "Graylog2" / "go-gelf" / "gelf"
    library.mkdir(parents=True)
    for path in [*LIBRARY.glob("*.go"), SOURCES / "listen.go"]:
        shutil.copy(path, library)
    (root / "src" / "go-gelf").mkdir()
    shutil.copy(SOURCES / "main.go", root / "src" / "go-gelf")
    settings = {
        "GO111MODULE": "off",
        "GOPATH": str(root),
        "GOTOOLCHAIN": "local",
        "CGO_ENABLED": "0",
        "GOFLAGS": "",
    }
    built = subprocess.run(
        ["go", "build", "-o", root / "program", "go-gelf"],
        env=os.environ | settings,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    return root / "program"


@contextmanager
def receiving(program: Path, transport: str) -> Iterator[tuple[str, list[dict[str, Any]], threading.Thread]]:
    """Its address, and the messages once the thread has ended: at the one that says ``end``."""
    process = subprocess.Popen([program, "receive", transport], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    messages: list[dict[str, Any]] = []

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            messages.append(json.loads(line))
            if messages[-1]["short"] == "end":
                return

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield address, messages, thread
    finally:
        process.kill()
        process.wait()
        thread.join()
        process.stdout.close()


def container(address: str, **options: str) -> Info:
    chosen = {"gelf-address": address, "labels": "app", "tag": "{{.Name}}"}
    return Info(
        "0123456789abcdef" * 4, "/web", "sha256:fe", "shop/web", ("sh", "-c", "a"), 10**18, Path("/none"),
        chosen | options, labels={"app": "a<b\tc"}, hostname="host-7",
    )  # fmt: skip


def lines(*texts: bytes, stream: Stream = Stream.STDOUT) -> Block:
    data = b"".join(text + b"\n" for text in texts)
    return Block(data, Encoding.LINES, stream, TIME, TIME, len(texts))


#: Pseudo-random text, which does not compress below a datagram.
NOISE = b"".join(b"%x" % (n * 2654435761 % 2**32) for n in range(4000))
TEXTS = [b'plain <&> "q" \\ tab\t\x1b', "café \u2028 \U0001f600".encode(), b"n" * 300, NOISE[:5000], NOISE]


@pytest.mark.parametrize(
    ("transport", "compression"), [("udp", "gzip"), ("udp", "zlib"), ("udp", "none"), ("tcp", "")]
)
@pytest.mark.parametrize("level", ["1", "9"])
def test_graylogs_readers_read_what_our_driver_sends(
    go_gelf: Path, transport: str, compression: str, level: str
) -> None:
    options = {"gelf-compression-type": compression, "gelf-compression-level": level} if compression else {}
    with receiving(go_gelf, transport) as (address, messages, thread):
        driver, info = GelfDriver(), container(f"{transport}://{address}", **options)
        driver.validate(info.options)
        sink = driver.sink(info)
        assert sink is not None
        sink.send([lines(*TEXTS), lines(b"err", *(b"line %d" % n for n in range(100)), stream=Stream.STDERR)])
        sink.send([lines(b"end")])
        thread.join(150)
        sink.close()
    texts = [text.decode() for text in [*TEXTS, b"err", *(b"line %d" % n for n in range(100)), b"end"]]
    assert [message["short"] for message in messages] == texts
    assert [message["level"] for message in messages] == [6] * 5 + [3] * 101 + [6]
    assert {message["time"] for message in messages} == {TIME / 1e9}
    assert {message["host"] for message in messages} == {"host-7"}
    assert messages[0]["extra"] == {
        "_app": "a<b\tc",
        "_command": "sh -c a",
        "_container_id": "0123456789abcdef" * 4,
        "_container_name": "web",
        "_created": "2001-09-09T01:46:40Z",
        "_image_id": "sha256:fe",
        "_image_name": "shop/web",
        "_tag": "web",
    }


@pytest.mark.parametrize(
    ("transport", "compression"), [("udp", "gzip"), ("udp", "zlib"), ("udp", "none"), ("tcp", "none")]
)
def test_our_input_takes_what_graylogs_writers_send(
    go_gelf: Path, intake: Any, transport: str, compression: str
) -> None:
    sent = [
        {"host": "h", "short": "plain <&> café \u2028", "time": 1795203851.793, "level": 3,
         "extra": {"_n": 1.5, "_b": True, "_container_id": "ab" * 32, "_container_name": "web"}},
        {"host": "h", "short": "first", "full": "first\nand second", "time": 1795203852, "level": 6},
        {"host": "h", "short": NOISE.decode(), "time": 1795203852, "level": 7},
    ]  # fmt: skip

    async def receive() -> None:
        receiver = GelfInput("127.0.0.1", 0, intake, sources)
        await receiver.start()
        host, port = receiver.address
        sender = await asyncio.create_subprocess_exec(
            go_gelf, "send", transport, f"{host}:{port}", compression, stdin=asyncio.subprocess.PIPE
        )
        await sender.communicate("".join(json.dumps(message) + "\n" for message in sent).encode())
        assert sender.returncode == 0
        while receiver.counters.stored < len(sent):
            await asyncio.sleep(0.01)
        await receiver.stop()
        assert receiver.counters.dropped.total() == 0

    asyncio.run(asyncio.wait_for(receive(), 150))
    records = [record for _, block in intake.blocks for record in json_file.decode(block.data)]
    assert sorted(record.log for record in records) == sorted(
        (str(message.get("full") or message["short"]) + "\n").encode() for message in sent
    )
    (source,) = {source for source, _ in intake.blocks if source.container_id}
    assert (source.container_id, source.container_name) == ("ab" * 32, "web")
    (error,) = [record for record in records if record.stream is Stream.STDERR]
    assert error.time_ns == TIME
