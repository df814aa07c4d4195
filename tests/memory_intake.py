"""An intake in memory: what tails and inputs of tests write to."""

from __future__ import annotations

import pytest

from collector.sink import Source
from logdrivers.block import Block, Encoding
from logdrivers.codecs import json_file as codec


class MemoryIntake:
    """Keeps blocks and checkpoints; ``fail`` makes the next appends raise."""

    def __init__(self) -> None:
        self.blocks: list[tuple[Source, Block]] = []
        self.checkpoints: dict[str, bytes] = {}
        self.fail = 0

    def append(self, source: Source, block: Block, checkpoint: tuple[str, bytes] | None = None) -> None:
        if self.fail:
            self.fail -= 1
            raise OSError(28, "No space left on device")
        assert block.partial is not None or block.lines == block.data.count(b"\n")
        self.blocks.append((source, block))
        if checkpoint:
            self.checkpoints[checkpoint[0]] = checkpoint[1]

    def checkpoint(self, key: str) -> bytes | None:
        return self.checkpoints.get(key)

    def stored(self) -> list[bytes]:
        """Messages and, in their places, the markers for what is missing."""
        lines: list[bytes] = []
        for _, block in self.blocks:
            if block.encoding is Encoding.JSON_FILE:
                lines += [record.log.rstrip(b"\n") for record in codec.decode(block.data)]
            else:
                lines.append(block.data.rstrip(b"\n"))
        return lines

    def messages(self, container_id: str | None = None) -> list[bytes]:
        return [
            record.log.rstrip(b"\n")
            for source, block in self.blocks
            if container_id in (None, source.container_id) and block.encoding is Encoding.JSON_FILE
            for record in codec.decode(block.data)
        ]


def sources(container_id: str, name: str, image: str, origin: str) -> Source:
    """What an input asks for a sender's source, on the host ``here``."""
    return Source(container_id, name, image, "here", origin)


@pytest.fixture
def intake() -> MemoryIntake:
    return MemoryIntake()
