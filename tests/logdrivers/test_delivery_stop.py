"""A delivery whose sink hangs gives its journal up when it is told to stop, not when the sink's deadline is over."""

from __future__ import annotations

import logging
import random
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from logdrivers.block import Block, Encoding, Stream
from logdrivers.delivery import STATE_NAME, Delivery
from logdrivers.driver import Info
from logdrivers.journal import Mark
from logdrivers.registry import get


@pytest.fixture
def sockets() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(dir="/tmp"))
    yield made
    shutil.rmtree(made)


@pytest.mark.parametrize("kind", ["gelf-tcp", "syslog-tcp", "syslog-unix", "syslog-unixgram", "fluentd"])
def test_a_sink_that_hangs_lets_go_at_once(
    kind: str, tmp_path: Path, sockets: Path, caplog: pytest.LogCaptureFixture
) -> None:
    driver, options, server = _hanging(kind, sockets / "s")
    info = Info("ab" * 32, "/web", "", "image", ("sh",), 0, tmp_path, options)
    journal = get(driver).journal(info)
    noise = random.Random(1)
    for _ in range(40):
        data = b"".join(noise.randbytes(500).hex().encode() + b"\n" for _ in range(200))
        journal.append(Block(data, Encoding.LINES, Stream.STDOUT, 1, 1, 200), Mark(0, 0))
    sink, reader = get(driver).sink(info), get(driver).reader(info)
    assert sink is not None
    assert reader is not None
    delivery = Delivery(reader, sink, tmp_path / STATE_NAME, kind)
    delivery.start()
    with caplog.at_level(logging.WARNING):
        delivery.stop(1.0)
    assert "did not end" not in caplog.text
    assert "Traceback" not in caplog.text
    assert delivery.counters().held > 0
    journal.close()
    server.close()


def _hanging(kind: str, path: Path) -> tuple[str, dict[str, str], socket.socket]:
    """A server that never reads, and the driver with the options to reach it."""
    if kind == "syslog-unixgram":
        server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        server.bind(str(path))
        return "syslog", {"syslog-address": f"unixgram://{path}"}, server
    if kind == "syslog-unix":
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        server.bind(str(path))
        server.listen()
        return "syslog", {"syslog-address": f"unix://{path}"}, server
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    server.bind(("127.0.0.1", 0))
    server.listen()
    address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
    driver = kind.removesuffix("-tcp")
    return driver, {f"{driver}-address": address}, server
