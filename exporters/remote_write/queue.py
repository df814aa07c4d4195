"""Requests that wait for the receiver: a file each, oldest first, within a budget of bytes.

Survives the agent (a file is complete or absent; what the kernel had not written when the power went may be
lost or damaged, the receiver refuses the latter). Sending is ``exporter.py``'s.
"""

from __future__ import annotations

import logging
import re
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from exporters.remote_write.batches import Batch

__all__ = ["Queue", "Waiting"]

logger = logging.getLogger(__name__)

_FILE = re.compile(r"(\d{12})-(\d+)-(\d+)\.snappy")


@dataclass(frozen=True, slots=True)
class Waiting:
    """One request on disk."""

    number: int
    samples: int
    time_ms: int
    size: int

    @property
    def name(self) -> str:
        """Its file's name."""
        return f"{self.number:012d}-{self.samples}-{self.time_ms}.snappy"


class Queue:
    """In samples: ``taken`` = delivered (``done``) + ``held`` + the sum of ``dropped``, at any time."""

    def __init__(self, directory: Path, max_bytes: int) -> None:
        """Open the directory, with what an earlier run left in it. Raises OSError."""
        self.taken = 0
        self.delivered = 0
        self.held = 0
        self.bytes = 0
        self.dropped: dict[str, int] = {}
        self._directory = directory
        self._max_bytes = max_bytes
        self._waiting: deque[Waiting] = deque()
        self._sending: Waiting | None = None
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in sorted(directory.iterdir()):
            match = _FILE.fullmatch(path.name)
            if match is None:
                path.unlink()  # half written
                continue
            self._add(Waiting(int(match[1]), int(match[2]), int(match[3]), path.stat().st_size))
        self._next = self._waiting[-1].number + 1 if self._waiting else 0
        self._keep_within_budget()

    def __len__(self) -> int:
        return len(self._waiting)

    def append(self, batch: Batch) -> None:
        """Write a request down; the oldest ones go where there is no room. A failure to write is a counted drop."""
        entry = Waiting(self._next, batch.samples, batch.time_ms, len(batch.body))
        self._next += 1
        fresh = self._directory / "fresh"
        try:
            fresh.write_bytes(batch.body)
            fresh.rename(self._directory / entry.name)
        except OSError as error:
            self.taken += batch.samples
            self._count("disk", batch.samples)
            logger.warning(
                "cannot keep a request of %d samples in %s: %s", batch.samples, self._directory, error
            )
            return
        self._add(entry)
        self._keep_within_budget()

    def first(self) -> tuple[Waiting, bytes] | None:
        """The oldest request, not to be dropped for room until ``done`` or ``drop`` is told; None if there is none."""
        while self._waiting:
            entry = self._waiting[0]
            try:
                body = (self._directory / entry.name).read_bytes()
            except OSError as error:
                logger.warning("cannot read %s in %s: %s", entry.name, self._directory, error)
                self.drop(entry, "damaged")
                continue
            if not body:
                logger.warning("%s in %s is empty", entry.name, self._directory)
                self.drop(entry, "damaged")
                continue
            self._sending = entry
            return entry, body
        return None

    def done(self, entry: Waiting) -> None:
        """The receiver has it."""
        self._remove(entry)
        self.delivered += entry.samples

    def drop(self, entry: Waiting, cause: str) -> None:
        """It is given up."""
        self._remove(entry)
        self._count(cause, entry.samples)

    @property
    def oldest_ms(self) -> int | None:
        """The time of the oldest request that waits."""
        return self._waiting[0].time_ms if self._waiting else None

    def _add(self, entry: Waiting) -> None:
        self._waiting.append(entry)
        self.taken += entry.samples
        self.held += entry.samples
        self.bytes += entry.size

    def _remove(self, entry: Waiting) -> None:
        self._waiting.remove(entry)
        self.held -= entry.samples
        self.bytes -= entry.size
        if self._sending == entry:
            self._sending = None
        try:
            (self._directory / entry.name).unlink(missing_ok=True)
        except OSError as error:  # a disk that became read-only: the next start will find it again
            logger.warning("cannot remove %s from %s: %s", entry.name, self._directory, error)

    def _keep_within_budget(self) -> None:
        while self.bytes > self._max_bytes:
            oldest = next((entry for entry in self._waiting if entry != self._sending), None)
            if oldest is None:
                return
            if "queue_full" not in self.dropped:
                logger.warning(
                    "the queue in %s is over %d bytes: dropping its oldest", self._directory, self._max_bytes
                )
            self.drop(oldest, "queue_full")

    def _count(self, cause: str, samples: int) -> None:
        self.dropped[cause] = self.dropped.get(cause, 0) + samples
