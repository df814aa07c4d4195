"""Tells followers of containers' logs that something may have been written, without asking the disk.

One inotify watch for all followers, open while there are any. Where the host allows no watch a follower asks
again and again instead; what is new is its reader's to find in either case.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from logdrivers.inotify import LOG_CHANGES, OVERFLOW, Watch

__all__ = ["Following", "LogChanges"]

log = logging.getLogger(__name__)

#: How often a follower looks that is not told of changes.
POLL_SECONDS = 0.05
#: How often one looks that is told: for a directory that was made in the moment before it was watched.
_RECHECK_SECONDS = 10.0


class LogChanges:
    """The watch that all followers of one event loop share."""

    def __init__(self) -> None:
        self._watch: Watch | None = None
        self._followings: dict[int, set[Following]] = {}  # by watch number

    def follow(self, directories: Sequence[Path]) -> Following:
        """Be told of changes in these directories, of which some may not be there yet, until it is closed."""
        return Following(self, directories)

    def add(self, directory: Path, following: Following) -> int | None:
        """Watch a directory for a follower: the watch's number, None if there is no such directory.

        Raises OSError if the host allows no more watches.
        """
        if self._watch is None:
            self._watch = Watch()
            asyncio.get_running_loop().add_reader(self._watch.fileno(), self._read)
        try:
            number = self._watch.add(directory, LOG_CHANGES)
        except OSError as error:
            if not self._followings:
                self._close()
            if isinstance(error, FileNotFoundError | NotADirectoryError):
                return None
            raise
        self._followings.setdefault(number, set()).add(following)
        return number

    def discard(self, number: int, following: Following) -> None:
        """A follower does not need a watch any more."""
        followings = self._followings.get(number)
        if followings is None:
            return
        followings.discard(following)
        if not followings:
            del self._followings[number]
            if self._watch is not None:
                self._watch.remove(number)
        if not self._followings:
            self._close()

    def _read(self) -> None:
        if self._watch is None:
            return
        for event in self._watch.read():
            if event.mask & OVERFLOW:
                for followings in self._followings.values():
                    for following in followings:
                        following.changed()
            for following in self._followings.get(event.watch, ()):
                following.changed()

    def _close(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            asyncio.get_running_loop().remove_reader(watch.fileno())
            watch.close()


class Following:
    """One follower's part of the watch. A context manager."""

    def __init__(self, changes: LogChanges, directories: Sequence[Path]) -> None:
        self._changes = changes
        self._missing = list(directories)
        self._numbers: list[int] = []
        self._pending = True  # something may have been written before the watch
        self._waiting: asyncio.Future[int] | None = None
        self._told = True
        self._look_for_missing()

    def changed(self) -> None:
        """Something was written."""
        self._pending = True
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(0)

    async def wait(self, ended: asyncio.Future[int], timeout_s: float = _RECHECK_SECONDS) -> None:
        """Return when something may have been written since the last time, when ``ended`` is, or after a time."""
        if self._missing:
            self._look_for_missing()
        if not self._pending:
            self._waiting = asyncio.get_running_loop().create_future()
            timeout_s = min(timeout_s, _RECHECK_SECONDS if self._told else POLL_SECONDS)
            await asyncio.wait([self._waiting, ended], timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            self._waiting = None
        self._pending = False

    def close(self) -> None:
        """No longer follow."""
        for number in self._numbers:
            self._changes.discard(number, self)
        self._numbers = []

    def __enter__(self) -> Following:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _look_for_missing(self) -> None:
        if not self._told:
            return
        for directory in tuple(self._missing):
            try:
                number = self._changes.add(directory, self)
            except OSError as error:
                log.warning("following logs by looking every %g s: %s", POLL_SECONDS, error)
                self._told = False
                return
            if number is not None:
                self._missing.remove(directory)
                self._numbers.append(number)
                self._pending = True
