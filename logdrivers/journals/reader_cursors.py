"""How far each reader of a segment journal has got: what all of them have read is only kept for ``docker logs``.

A reader that must not miss lines (the driver's delivery, the collector's tail) registers a cursor beside the
segments, ``journal/readers/NAME.cursor``, and moves it when lines are safe elsewhere. ``docker logs`` does not
register. What retention makes of the cursors is ``logdrivers/journals/retention.py``.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from pathlib import Path
from typing import NamedTuple

from logdrivers.journal import Position
from logdrivers.statefile import StateFile, read_state

__all__ = [
    "COLLECTOR",
    "DELIVERY",
    "EXPIRY_NS",
    "CursorAt",
    "ReaderCursor",
    "cursors",
    "register_reader",
    "remove_cursor",
]

log = logging.getLogger(__name__)

#: Names of our readers. The delivery's cursor never expires: only the size of its journal bounds its wait.
DELIVERY, COLLECTOR = "delivery", "collector"
#: A reader that had so long to read lines and has not moved is taken for gone, until it moves again.
EXPIRY_NS = 72 * 3600 * 10**9
_SUFFIX = ".cursor"
#: segment, offset, line, when it was moved (ns since the epoch)
_FIELDS = "QQQq"


class CursorAt(NamedTuple):
    """Where a registered reader is."""

    name: str
    position: Position  #: (0, 0) before its first move
    line: int  #: it has read the lines before this one
    moved_ns: int


class ReaderCursor:
    """One reader's cursor. Moving it costs about a microsecond and survives kill -9."""

    def __init__(self, journal: Path, name: str) -> None:
        """Register in ``journal`` (a directory), or take the cursor over; a damaged one begins anew.

        Raises OSError.
        """
        directory = journal / "readers"
        directory.mkdir(mode=0o710, exist_ok=True)
        self._path = directory / f"{name}{_SUFFIX}"
        try:
            self._file = StateFile(self._path, _FIELDS)
        except ValueError as error:
            log.error("the reader %s of %s begins a new cursor: %s", name, journal, error)
            self._path.unlink()
            self._file = StateFile(self._path, _FIELDS)
        if self._file.values is None:
            self.move(Position(0, 0), 0)

    @property
    def position(self) -> Position:
        """Where it is; (0, 0) before its first move."""
        segment, offset, _, _ = self._file.values or (0, 0, 0, 0)
        return Position(segment, offset)

    @property
    def line(self) -> int:
        """The line of that position: those before it have been read."""
        return int(self._file.values[2]) if self._file.values else 0

    def move(self, position: Position, line: int) -> None:
        """Nothing before ``position``, whose line is ``line``, is needed any more."""
        self._file.write(*position, line, time.time_ns())

    def close(self) -> None:
        """Stop for now: the cursor goes on holding what is behind it."""
        self._file.close()

    def remove(self) -> None:
        """Stop for good."""
        self.close()
        self._path.unlink(missing_ok=True)


def register_reader(journal: Path, name: str) -> None:
    """Have lines held for a reader that will begin later. Raises OSError."""
    if not (journal / "readers" / f"{name}{_SUFFIX}").exists():
        ReaderCursor(journal, name).close()


def remove_cursor(journal: Path, name: str) -> None:
    """Hold nothing for a reader any more, whoever it was."""
    (journal / "readers" / f"{name}{_SUFFIX}").unlink(missing_ok=True)


def cursors(journal: Path) -> list[CursorAt]:
    """The registered readers. One whose cursor cannot be read counts as not having read anything."""
    found: list[CursorAt] = []
    directory = journal / "readers"
    names: list[str] = []
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        names = os.listdir(directory)  # noqa: PTH208 no Path for each name
    for name in names:
        if not name.endswith(_SUFFIX):
            continue
        values = None
        try:
            values = read_state(directory / name, _FIELDS)
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            log.warning("cannot read how far a reader of %s is, holding all for it: %s", journal, error)
        segment, offset, line, moved_ns = values or (0, 0, 0, time.time_ns())
        found.append(CursorAt(name.removesuffix(_SUFFIX), Position(segment, offset), line, moved_ns))
    return found
