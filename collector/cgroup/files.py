"""Cgroup files at the price of one system call: kept descriptors, ``pread``, remembered positions.

A descriptor kept on a cgroup file does not hinder ``rmdir``; once the cgroup is gone every read answers
ENODEV, which is how a sampler learns of the death. Meaning is left to the controllers in ``v1/``, ``v2/``.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Any

__all__ = [
    "FlatKeys",
    "Plan",
    "all_or_none",
    "number",
    "number_or_max",
    "open_file",
    "read_all",
    "read_once",
    "read_whole",
]

#: One read takes at most this much; every file but a long device list fits.
CHUNK = 8192


class _Opened(threading.local):
    """Files opened under ``all_or_none``; None elsewhere."""

    files: list[int] | None = None


_opened = _Opened()

#: How to find the keys, what they must be, how to find the values, and which wanted keys are absent.
Plan = tuple["itemgetter[Any]", tuple[bytes, ...], "itemgetter[Any]", tuple[int, ...]]


@contextmanager
def all_or_none() -> Iterator[None]:
    """What ``open_file`` opens inside, in this thread, is closed again if opening fails."""
    opened = _opened.files = []
    try:
        yield
    except OSError:
        for fd in opened:
            os.close(fd)
        raise
    finally:
        _opened.files = None


def open_file(directory: Path | None, name: str) -> int:
    """Open a counter for reading, or return -1 where this kernel or hierarchy does not have it.

    Other failures (EMFILE, EACCES) raise OSError: absent and failed are two results.
    """
    fd = _open(directory, name)
    if fd >= 0 and _opened.files is not None:
        _opened.files.append(fd)
    return fd


def _open(directory: Path | None, name: str) -> int:
    if directory is None:
        return -1
    try:
        return os.open(f"{directory}/{name}", os.O_RDONLY | os.O_CLOEXEC)  # joining paths costs as much again
    except (FileNotFoundError, NotADirectoryError):
        return -1


def read_all(fd: int) -> bytes:
    """The whole file behind a kept descriptor."""
    data = os.pread(fd, CHUNK, 0)
    if len(data) < CHUNK // 2:  # a seq_file hands out at most a page a call
        return data
    while chunk := os.pread(fd, CHUNK, len(data)):
        data += chunk
    return data


def read_once(directory: Path | None, name: str) -> bytes | None:
    """Open, read and close: for limits, which change seldom. None where the file does not exist."""
    fd = _open(directory, name)
    if fd < 0:
        return None
    try:
        return os.pread(fd, CHUNK, 0)
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return None
        raise
    finally:
        os.close(fd)


def read_whole(directory: Path | str, name: str) -> bytes:
    """Open, read to the end and close. Raises OSError."""
    fd = os.open(f"{directory}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return read_all(fd)
    finally:
        os.close(fd)


#: A file that exists and cannot be read here (a controller without its accounting): absent, not failed.
_UNSUPPORTED = frozenset({95, 61})  # EOPNOTSUPP, ENODATA


def number(data: bytes) -> int:
    """A file that holds one decimal number."""
    try:
        return int(data)
    except ValueError:
        raise ValueError(f"{data[:40]!r}: expected one decimal number") from None


def number_or_max(data: bytes) -> int | None:
    """A v2 limit: a number, or ``max``, which is None."""
    return None if data.strip() == b"max" else number(data)


class FlatKeys:
    """Picks wanted keys out of "flat keyed" files (``key value`` a line) without making a dictionary.

    The order of keys is the same in every file of a kind on one kernel, so the positions are learnt
    once per number of words and checked on each use. A key that is not there yields None.
    """

    def __init__(self, *keys: bytes) -> None:
        self._keys = keys
        self._plans: dict[int, Plan] = {}

    def values(self, data: bytes) -> list[int | None]:
        """The values of the wanted keys, in the order they were named. Raises ValueError on a non-number."""
        words = data.split()
        plan = self._plans.get(len(words))
        if plan is None or plan[0](words) != plan[1]:
            plan = self._learn(words)
        result: list[int | None] = list(map(int, plan[2](words)[1:]))
        for absent in plan[3]:
            result.insert(absent, None)
        return result

    def _learn(self, words: Sequence[bytes]) -> Plan:
        """Positions in ``words``; the getters name the first word twice so that they yield tuples."""
        if len(words) < 2 or len(words) % 2:
            raise ValueError(f"{b' '.join(words)[:60]!r}: expected lines of a key and a number")
        where = {word: index for index, word in enumerate(words) if index % 2 == 0}
        present = [key for key in self._keys if key in where]
        absent = tuple(index for index, key in enumerate(self._keys) if key not in where)
        keys: itemgetter[Any] = itemgetter(0, *(where[key] for key in present), -2)
        values: itemgetter[Any] = itemgetter(0, *(where[key] + 1 for key in present))
        if not present:
            values = itemgetter(slice(0, 1))  # one word to drop, as a list
        plan: Plan = (keys, (words[0], *present, words[-2]), values, absent)
        self._plans[len(words)] = plan
        return plan
