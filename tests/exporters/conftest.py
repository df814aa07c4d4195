"""A store in memory for the exporters' tests."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import pytest

from collector.sink import Source, StoredBatch, StoredBlock
from logdrivers.block import Block, Encoding, Stream
from logdrivers.codecs import json_file as codec

T0 = 1_795_203_812_123_456_789


class MemoryCursor:
    """A cursor over blocks in memory; ``position`` outlives the exporters that use it."""

    def __init__(self) -> None:
        self.stored: list[StoredBlock] = []
        self.position = 0
        self.commits = 0
        self.fail_commits = 0
        self._lines: dict[int, int] = {}
        self._lock = threading.Lock()

    def add(self, block: Block, source: Source, number: int = 1) -> None:
        with self._lock:
            first = self._lines.get(number, 0)
            self._lines[number] = first + block.lines
            self.stored.append(StoredBlock(block, source, number, first))

    def next(self, max_bytes: int = 1 << 20) -> StoredBatch:
        with self._lock:
            blocks: list[StoredBlock] = []
            size = 0
            for stored in self.stored[self.position :]:
                if blocks and size >= max_bytes:
                    break
                blocks.append(stored)
                size += len(stored.block.data)
            return StoredBatch(blocks, self.position + len(blocks), 0)

    def commit(self, token: object) -> None:
        if self.fail_commits:
            self.fail_commits -= 1
            raise OSError(5, "Input/output error")
        assert isinstance(token, int)
        self.position = token
        self.commits += 1

    def lag(self) -> tuple[int, int]:
        rest = self.stored[self.position :]
        return sum(s.block.lines for s in rest), sum(len(s.block.data) for s in rest)


def source(name: str = "web", **fields: object) -> Source:
    defaults: dict[str, object] = {
        "container_id": (name.encode().hex() + "0" * 64)[:64],
        "container_name": name,
        "image": "registry:5000/team/app:1.2",
        "host": "host1",
        "input": "json-file",
        "engine": "docker",
        "labels": {"com.docker.compose.service": name, "com.docker.compose.project": "shop"},
    }
    return Source(**{**defaults, **fields})  # type: ignore[arg-type]


def json_block(
    messages: Sequence[bytes], stream: str = "stdout", attrs: bytes = b"", start: int = 0
) -> Block:
    data = b"".join(
        b'{"log":"%b","stream":"%b",%b"time":"%b"}\n'
        % (codec.escape(text), stream.encode(), attrs, codec.format_time(T0 + (start + i) * 1_000_000))
        for i, text in enumerate(messages)
    )
    last = T0 + (start + len(messages) - 1) * 1_000_000
    return Block(data, Encoding.JSON_FILE, Stream.MIXED, T0 + start * 1_000_000, last, len(messages))


@pytest.fixture
def cursor() -> MemoryCursor:
    return MemoryCursor()


@pytest.fixture(name="source", scope="session")
def _source() -> Callable[..., Source]:
    return source


@pytest.fixture(name="json_block", scope="session")
def _json_block() -> Callable[..., Block]:
    return json_block


def eventually(condition: Callable[[], object], what: str, seconds: float = 250.0) -> None:
    """Wait until the condition holds; fail saying what did not come."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"did not come: {what}"
        time.sleep(0.02)


@pytest.fixture(name="eventually", scope="session")
def _eventually() -> Callable[..., None]:
    return eventually
