"""Documents the server will never take, kept on disk with the reason, to be looked at and sent again.

One JSON object a line. Two files share the size limit: when the newer is half of it full, it takes the
older's place, and what the older held is counted as dropped.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson

__all__ = ["DeadLetter", "DeadLetters"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One rejected document."""

    time_ns: int  #: when it was rejected
    index: str
    status: int
    type: str
    reason: str
    item: str  #: action line and document, as they were sent

    def dump(self) -> bytes:
        """One line."""
        return orjson.dumps(self) + b"\n"


class DeadLetters:
    """The files in one directory; one owner writes."""

    def __init__(self, directory: Path, limit_bytes: int) -> None:
        self.dropped = 0  #: letters removed to keep the limit
        self._half = max(1, limit_bytes // 2)
        self._newer = directory / "dead-letters.ndjson"
        self._older = directory / "dead-letters.1.ndjson"
        directory.mkdir(parents=True, exist_ok=True)

    def add(self, letters: list[DeadLetter]) -> None:
        """Keep these; they are on disk when it returns. Raises OSError."""
        data = b"".join(letter.dump() for letter in letters)
        size = self._newer.stat().st_size if self._newer.exists() else 0
        if size and size + len(data) > self._half:
            self._rotate()
        with self._newer.open("ab") as file:
            file.write(data)
            file.flush()
            os.fdatasync(file.fileno())

    def _rotate(self) -> None:
        if self._older.exists():
            dropped = self._older.read_bytes().count(b"\n")
            self.dropped += dropped
            log.error("dropping the %d oldest dead letters: %s is full", dropped, self._newer.parent)
        self._newer.replace(self._older)

    def read(self) -> Iterator[DeadLetter]:
        """All letters, oldest first; a torn last line is passed over."""
        for path in (self._older, self._newer):
            if path.exists():
                with path.open("rb") as file:
                    yield from _parse(file.read())

    def replace(self, letters: list[DeadLetter]) -> None:
        """Keep only these."""
        part = self._newer.with_suffix(".part")
        part.write_bytes(b"".join(letter.dump() for letter in letters))
        part.replace(self._newer)
        self._older.unlink(missing_ok=True)


def _parse(data: bytes) -> Iterator[DeadLetter]:
    for line in data.split(b"\n"):
        try:
            yield DeadLetter(**orjson.loads(line))
        except (orjson.JSONDecodeError, TypeError) as error:
            if line:
                log.error("passing over a dead letter that cannot be read: %s: %r", error, line[:100])
