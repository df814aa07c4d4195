"""Tells which of many directories had a file written, made, renamed or removed.

One descriptor to poll for all of them; what changed in a directory is left to whoever asks. When the kernel
drops events, every directory counts as changed; where it allows no watches, ``add`` says so each time.
"""

from __future__ import annotations

from pathlib import Path

from logdrivers.inotify import CREATE, DELETE, ENDED, MODIFY, MOVED_FROM, MOVED_TO, OVERFLOW, Watch

__all__ = ["DirectoryWatch"]

_MASK = MODIFY | MOVED_FROM | MOVED_TO | CREATE | DELETE


class DirectoryWatch:
    """A set of watched directories. Not thread-safe."""

    def __init__(self) -> None:
        self._watch: Watch | None = None  # made when it is needed: the host may have none left
        self._directories: dict[int, dict[Path, None]] = {}  # two paths can lead to one directory
        self._users: dict[Path, int] = {}
        self._numbers: dict[Path, int] = {}

    def fileno(self) -> int:
        """Readable when ``changed`` has something to say; -1 while nothing is watched."""
        return -1 if self._watch is None else self._watch.fileno()

    def add(self, directory: Path) -> None:
        """Watch; each ``add`` needs its ``remove``. Raises OSError naming the directory (missing, no watches left)."""
        if directory not in self._users:
            self._watch = self._watch or Watch(ends=True)
            number = self._watch.add(directory, _MASK, directory=True)
            self._directories.setdefault(number, {})[directory] = None
            self._numbers[directory] = number
        self._users[directory] = self._users.get(directory, 0) + 1

    def remove(self, directory: Path) -> None:
        """Watch no longer (the directory may be gone already)."""
        users = self._users.get(directory, 0)
        if users > 1:
            self._users[directory] = users - 1
            return
        if users:
            del self._users[directory]
        number = self._numbers.pop(directory, None)
        if number is not None and self._watch is not None:
            same = self._directories.get(number, {})
            same.pop(directory, None)
            if not same:
                self._directories.pop(number, None)
                self._watch.remove(number)

    def changed(self) -> set[Path]:
        """Directories with changes since the last call. Does not wait."""
        found: set[Path] = set()
        while self._watch is not None and (events := self._watch.read()):
            for number, mask, _ in events:
                if mask & OVERFLOW:
                    found.update(self._users)
                elif (directories := self._directories.get(number)) is not None:
                    found.update(directories)
                    if mask & ENDED:
                        self._forget(number)
        return found

    def _forget(self, number: int) -> None:
        """The kernel ended the watch: the directory is gone."""
        for directory in self._directories.pop(number):
            if self._numbers.get(directory) == number:
                del self._numbers[directory]

    def watched(self, directory: Path) -> bool:
        """Whether changes of this directory are being told."""
        return directory in self._numbers

    def close(self) -> None:
        """End all watches."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None
