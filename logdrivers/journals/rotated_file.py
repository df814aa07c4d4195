"""The names of a rotated log: ``x``, ``x.1`` … ``x.N-1``, each older one perhaps ``.gz``, as Docker keeps them.

Shifting, compressing in the background and finding a file again by its inode are here; when to rotate and
what the files hold is ``logdrivers/json_file.py``.
"""

from __future__ import annotations

import logging
import os
import queue
import struct
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import orjson
from isal import isal_zlib

__all__ = ["Compressor", "RotatedNames", "compress", "gzip_extra"]

_log = logging.getLogger(__name__)
_CHUNK = 1 << 18
_GZIP_HEAD = struct.Struct("<HBBIBBH")
_GZIP_MAGIC = 0x8B1F


class RotatedNames:
    """The files of one log at ``path``; ``max_file`` counts the one being written."""

    def __init__(self, path: Path, max_file: int) -> None:
        self.path = path
        self.max_file = max_file
        #: Held while names move.
        self.lock = threading.Lock()

    def rotated(self, number: int, compressed: bool = False) -> Path:
        """The name of the file so many rotations old."""
        return self.path.with_name(f"{self.path.name}.{number}{'.gz' if compressed else ''}")

    def all(self) -> Iterator[Path]:
        """Every name a file of this log may have, newest first."""
        yield self.path
        for number in range(1, self.max_file):
            yield self.rotated(number)
            yield self._gz(number)

    def older(self) -> Iterator[tuple[int, Path]]:
        """The rotated files there are, newest first, with their numbers."""
        for number in range(1, self.max_file):
            for compressed in (False, True):
                name = self.rotated(number, compressed)
                if name.exists():
                    yield number, name

    def make_room(self) -> None:
        """Remove what the next rotation takes away, before it needs room of its own. Call locked."""
        if self.max_file < 2:
            self.path.unlink(missing_ok=True)
        else:
            free = self._free()
            self.rotated(free).unlink(missing_ok=True)
            self._gz(free).unlink(missing_ok=True)

    def shift(self) -> None:
        """Rename so that nothing is called ``path``. Call locked, after ``make_room``."""
        if self.max_file < 2:
            return
        for number in range(self._free(), 1, -1):
            for compressed in (False, True):
                _rename_if_there(self.rotated(number - 1, compressed), self.rotated(number, compressed))
        _rename_if_there(self.path, self.rotated(1))

    def _free(self) -> int:
        """The lowest number without a file (a killed rotation leaves gaps), or the highest there is."""
        for number in range(1, self.max_file):
            if not (self.rotated(number).exists() or self._gz(number).exists()):
                return number
        return self.max_file - 1

    def _gz(self, number: int) -> Path:
        return self.rotated(number, True)

    def replace_by_gzip(self, inode: int, compressed: Path) -> None:
        """Put ``compressed`` in the place of the rotated file with this inode, if it is still kept."""
        with self.lock:
            for number in range(1, self.max_file):
                name = self.rotated(number)
                if _inode(name) == inode:
                    compressed.replace(self._gz(number))
                    name.unlink()
                    return
        compressed.unlink(missing_ok=True)


def _rename_if_there(old: Path, new: Path) -> None:
    try:
        old.rename(new)
    except FileNotFoundError:
        return


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0


class Compressor:
    """Compresses rotated files one after the other in a thread of its own."""

    def __init__(self, names: RotatedNames) -> None:
        self._names = names
        self._queue: queue.SimpleQueue[tuple[int, Path, dict[str, object]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def add(self, name: Path, extra: dict[str, object]) -> None:
        """Compress the file now called ``name``, whatever it is called when its turn comes."""
        try:
            descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        self._queue.put((descriptor, name, extra))
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="log-compress", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Finish what was added."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while (job := self._queue.get()) is not None:
            descriptor, name, extra = job
            inode = os.fstat(descriptor).st_ino
            target = self._names.path.with_name(f"{self._names.path.name}.{inode}.gz.tmp")
            try:
                if os.fstat(descriptor).st_nlink:
                    compress(descriptor, target, extra)
                    self._names.replace_by_gzip(inode, target)
            except OSError as error:
                # Not a loss: the file stays as it is, uncompressed.
                _log.error("compressing rotated log %s failed: %s", name, error)
                target.unlink(missing_ok=True)
            finally:
                os.close(descriptor)


def compress(descriptor: int, target: Path, extra: dict[str, object]) -> None:
    """Write the file as gzip to ``target``, ``extra`` as JSON in the header, where Docker keeps its own."""
    field = orjson.dumps(extra)
    compressor = isal_zlib.compressobj(2, isal_zlib.DEFLATED, -15)
    checksum = size = 0
    with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640), "wb") as out:
        out.write(_GZIP_HEAD.pack(_GZIP_MAGIC, 8, 4, 0, 0, 255, len(field)) + field)
        while data := os.pread(descriptor, _CHUNK, size):
            checksum = zlib.crc32(data, checksum)
            size += len(data)
            out.write(compressor.compress(data))
        out.write(compressor.flush() + struct.pack("<II", checksum, size & 0xFFFFFFFF))


def gzip_extra(descriptor: int) -> dict[str, object]:
    """The JSON in a gzip file's header; empty if there is none."""
    head = os.pread(descriptor, _GZIP_HEAD.size, 0)
    if len(head) < _GZIP_HEAD.size:
        return {}
    magic, _, flags, _, _, _, length = _GZIP_HEAD.unpack(head)
    if magic != _GZIP_MAGIC or not flags & 4:
        return {}
    try:
        extra = orjson.loads(os.pread(descriptor, length, _GZIP_HEAD.size))
    except orjson.JSONDecodeError:
        return {}
    return extra if isinstance(extra, dict) else {}
