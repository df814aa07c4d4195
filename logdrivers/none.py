"""The driver that keeps nothing: what the container writes is counted and forgotten, and cannot be read.

Marks are kept, so a shim that is started again does not take old output for new.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from logdrivers.block import Block
from logdrivers.driver import Info
from logdrivers.journal import Mark, Position, Resume
from logdrivers.statefile import StateFile

__all__ = ["NoneDriver", "NoneJournal"]


class NoneDriver:
    """Docker's ``none``."""

    name = "none"

    def validate(self, options: Mapping[str, str]) -> None:
        """Docker accepts any option with this driver."""

    def journal(self, info: Info) -> NoneJournal:
        """Something that counts."""
        info.directory.mkdir(mode=0o710, parents=True, exist_ok=True)
        return NoneJournal(info.directory / "none.state")

    def reader(self, info: Info) -> None:
        """There is nothing to read."""
        return

    def sink(self, info: Info) -> None:
        """Nor to send."""
        return


class NoneJournal:
    """Takes blocks and keeps their number; ``path`` is its state file."""

    def __init__(self, path: Path) -> None:
        self._state = StateFile(path, "QQQQ")
        self._mark, self._lines, self._bytes = Mark(0, 0), 0, 0
        if self._state.values is not None:
            stdout, stderr, self._lines, self._bytes = self._state.values
            self._mark = Mark(stdout, stderr)

    def resume(self) -> Resume:
        """The mark of the last block."""
        return Resume(self._mark)

    def append(self, block: Block, mark: Mark) -> Position:
        """Count one block."""
        self._mark = mark
        self._lines += 1 if block.partial else block.lines
        self._bytes += len(block.data) + (block.partial is not None and block.partial.last)
        self._state.write(*mark, self._lines, self._bytes)
        return self.end()

    def give_up(self, mark: Mark) -> None:
        """Count on from ``mark``."""
        self._mark = mark
        self._state.write(*mark, self._lines, self._bytes)

    def written(self) -> tuple[int, int]:
        """Lines and bytes the container wrote."""
        return self._lines, self._bytes

    def end(self) -> Position:
        """The only position there is."""
        return Position(1, 0)

    def close(self) -> None:
        """Close the state file."""
        self._state.close()
