"""What a group of host counters is: a callable that answers with series under Node Exporter's names.

A group reads the files of one subsystem and parses them; ``groups/`` has one for each of Node Exporter's
collectors of the same name. Names, types and help of the families are the exporter's (``exporters/``).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar, cast

from collector.roots import Roots

__all__ = ["Absent", "Column", "Factory", "Files", "Labels", "Reader", "Readings", "Series", "one", "plain"]

#: Values of a family's labels, in the order of the table of families.
Labels = tuple[str, ...]
#: Series of one family.
Series = list[tuple[Labels, float]]
#: Family to its series; a family stands in the readings of one group only.
Readings = dict[str, Series]

_CHUNK = 1 << 16
#: Of every architecture at least.
_PAGE = 4096

_T = TypeVar("_T")


class Column:
    """Series of one family, labels and values apart: for a family of as many series as there are devices.

    ``labels`` is the same object from scrape to scrape while it is the same set of series, so that whoever
    renders labels can tell by identity that there is nothing to render.
    """

    __slots__ = ("labels", "values")

    def __init__(self, labels: Sequence[Labels], values: Sequence[float]) -> None:
        self.labels = labels
        self.values = values

    def __iter__(self) -> Iterator[tuple[Labels, float]]:
        return zip(self.labels, self.values, strict=True)

    def __len__(self) -> int:
        return len(self.values)


#: Takes a group's readings now. Raises Absent where the host does not have the thing, OSError or ValueError.
Reader = Callable[[], Mapping[str, Series | Column]]


class Absent(Exception):
    """The host does not have what the group is about."""


class Files:
    """Files below the host's roots, read whole; within one scrape a file is read once."""

    def __init__(self, roots: Roots) -> None:
        self.proc = str(roots.proc)
        self.sys = str(roots.sys)
        self.root = str(roots.root).rstrip("/")
        init = f"{self.proc}/1/net"
        #: The host's network namespace, also where the agent has one of its own.
        self.net = init if os.access(f"{init}/dev", os.R_OK) else f"{self.proc}/net"
        self.scrapes = 0  #: how many have begun
        self._read: dict[str, bytes] = {}
        self._shared: dict[Callable[[Files], object], object] = {}

    def begin(self) -> None:
        """A scrape begins: what was read for the last one is forgotten."""
        self._read.clear()
        self.scrapes += 1

    def shared(self, make: Callable[[Files], _T]) -> _T:
        """What groups have in common from scrape to scrape, made by the first that asks."""
        if make not in self._shared:
            self._shared[make] = make(self)
        return cast(_T, self._shared[make])

    def read(self, path: str, longest_line: int = _PAGE) -> bytes:
        """The file's bytes. Raises OSError.

        ``longest_line`` is for a file whose end is dear to ask for, as the kernel goes through a table once more.
        """
        data = self._read.get(path)
        if data is None:
            data = self._read[path] = self.read_now(path, longest_line)
        return data

    @staticmethod
    def read_now(path: str, longest_line: int = _PAGE) -> bytes:
        """The file's bytes, not kept for the scrape. Raises OSError."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.read(fd, _CHUNK)
            if 0 < len(data) <= _PAGE - longest_line:
                return data  # another line would have been in the page
            while more := os.read(fd, _CHUNK):  # procfs answers a page at a time
                data += more
            return data
        finally:
            os.close(fd)

    def required(self, path: str) -> bytes:
        """As ``read``. Raises Absent where there is no such file."""
        try:
            return self.read(path)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise Absent(path) from error

    def text(self, path: str) -> str | None:
        """The file's text without white space around it; None where it is not there or has no answer."""
        try:
            return self.read_now(path).decode(errors="replace").strip()
        except OSError:  # sysfs answers EINVAL, ENODEV, EIO, … for what a device does not tell
            return None

    def number(self, path: str) -> int | None:
        """The file's integer, hexadecimal with 0x; None as in ``text`` and where it is none."""
        try:
            return int(self.read_now(path), 0)
        except (OSError, ValueError):
            return None

    @staticmethod
    def attributes(directory: str, names: Iterable[str]) -> list[bytes | None]:
        """Short files of one directory of sysfs, None for one that is not there or has no answer.

        None of them, an empty list, where the directory itself is not there.
        """
        try:
            at = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return []
        values: list[bytes | None] = []
        try:
            for name in names:
                try:
                    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=at)
                except OSError:
                    values.append(None)
                    continue
                try:
                    values.append(os.read(fd, 4096))  # an attribute is a page at most, and read at once
                except OSError:
                    values.append(None)
                finally:
                    os.close(fd)
        finally:
            os.close(at)
        return values

    @staticmethod
    def names(directory: str, pattern: str = ".*") -> list[str]:
        """Names in a directory that match the regular expression whole, in natural order.

        Raises Absent where there is no such directory.
        """
        try:
            with os.scandir(directory) as entries:
                found = [entry.name for entry in entries if re.fullmatch(pattern, entry.name)]
        except (FileNotFoundError, NotADirectoryError) as error:
            raise Absent(directory) from error
        return sorted(found, key=lambda name: (len(name), name))

    def some_names(self, directory: str, pattern: str = ".*") -> list[str]:
        """As ``names``; none where there is no such directory."""
        try:
            return self.names(directory, pattern)
        except Absent:
            return []


#: Makes a group's reader for a host; a reader may keep what it needs from scrape to scrape.
Factory = Callable[[Files], Reader]


def plain(read: Callable[[Files], Readings]) -> Factory:
    """The factory of a group that keeps nothing."""

    def factory(files: Files) -> Reader:
        return lambda: read(files)

    return factory


def one(value: float) -> Series:
    """The only series of a family without labels."""
    return [((), value)]
