"""One limit for all journals of a host, kept in the background: an engine's, or a plugin's.

Every few seconds the journals' sizes are added up; each is brought within its own limits (a sink may have caught
up since the last line), then all of them within the host's. Files of json-file and local have limits of their
own, the user's: they are added up too, and left alone. What goes first is decided by ``retention.py``.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from logdrivers.journals.files import journal_directory, read_limits
from logdrivers.journals.retention import Trimmed, journal_bytes, trim, trim_host

__all__ = ["DEFAULT_MAX_BYTES", "JournalBudget", "keep_budget", "other_log_bytes"]

log = logging.getLogger(__name__)

DEFAULT_MAX_BYTES = 4 << 30
_SECONDS = 5.0
#: While less than half of the budget is taken, there is no hurry.
_SECONDS_WITH_ROOM = 15.0


def keep_budget(log_directories: Iterable[Path], max_bytes: int) -> Trimmed:
    """Look once at the journals in these containers' log directories, and trim what is over a limit."""
    journals: list[Path] = []
    other = 0
    for directory in log_directories:
        journal = journal_directory(directory)
        size = journal_bytes(journal)
        if not size:
            other += other_log_bytes(directory)
            continue
        journals.append(journal)
        try:
            limits = read_limits(journal)
            if limits is not None and size > min(limits):
                trim(journal, *limits)
        except (OSError, ValueError) as error:
            log.warning("trim journal %s: %s", journal, error)
    return trim_host(journals, max_bytes, other)


def other_log_bytes(directory: Path) -> int:
    """Bytes of json-file's and local's files in a container's log directory."""
    total = 0
    for place, mark in ((directory, "-json.log"), (directory / "local-logs", "container.log")):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(place) as entries:
            for entry in entries:
                if mark in entry.name:
                    with contextlib.suppress(FileNotFoundError):
                        total += entry.stat(follow_symlinks=False).st_size
    return total


class JournalBudget:
    """Keeps a budget in a thread of its own. ``log_directories`` is called in that thread."""

    def __init__(self, log_directories: Callable[[], Iterable[Path]], max_bytes: int) -> None:
        self._log_directories, self._max_bytes = log_directories, max_bytes
        self._seconds = _SECONDS
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="journal budget", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End; what is over the limit then stays."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(10)

    def _run(self) -> None:
        seconds = 0.0
        while not self._stop.wait(seconds):
            seconds = self._seconds
            try:
                done = keep_budget(self._log_directories(), self._max_bytes)
            except OSError as error:
                log.error("add up the journals of this host: %s; trying again", error)
                continue
            if done.total - done.freed < self._max_bytes // 2:
                seconds = max(seconds, _SECONDS_WITH_ROOM)
