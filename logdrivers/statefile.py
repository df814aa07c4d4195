"""A small durable record that is rewritten all the time: mapped memory, two slots, the newest valid one holds.

Writing costs about a microsecond and no system call; a kill at any instruction leaves the record before or
the one being written, never a mixture. What the fields mean is the caller's business. One process writes;
any may read, without a lock.
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["StateFile", "read_state"]

_MAGIC = b"TFSTATE1"
_HEAD = struct.Struct("<8sI")  # magic, size of the fields: a file of another shape is refused
_SLOTS_AT = 64
_READ_ATTEMPTS = 100


class StateFile:
    """The record of ``fields`` (a ``struct`` format) kept at ``path``, which is made if missing.

    ``values`` is None until the first ``write`` of all time. ``older`` are formats that earlier versions wrote:
    ``fields`` without the last ones, which are then zero. A file of such a format is replaced by one of
    ``fields`` at once. Raises OSError if the file cannot be made, ValueError if it holds records of another size.
    """

    def __init__(self, path: Path, fields: str, older: Sequence[str] = ()) -> None:
        self._layout = _Layout(fields)
        if older:
            _upgrade(path, self._layout, older)
        self._map = _map_for_writing(path, self._layout)
        held = self._layout.newest(self._map)
        self._sequence = held[0] if held else 0
        #: The record as it was last written, by this process or one before it.
        self.values: tuple[Any, ...] | None = held[1] if held else None

    def write(self, *values: Any) -> None:
        """Make ``values`` the record. Raises ``struct.error`` if they do not fit the format."""
        sequence = self._sequence + 1
        packed = self._layout.record.pack(sequence, *values)
        at = self._layout.slot(sequence)
        self._map[at : at + self._layout.size] = packed + zlib.crc32(packed).to_bytes(4, "little")
        self._sequence = sequence
        self.values = values

    def flush(self) -> None:
        """Have the record on the medium when this returns: for a power cut, a kill does not need it."""
        self._map.flush()

    def close(self) -> None:
        """Unmap the file. What was written stays."""
        self._map.close()


def read_state(path: Path, fields: str, older: Sequence[str] = ()) -> tuple[Any, ...] | None:
    """The record that holds now, while another process may be writing; None before the first.

    ``older`` is as for ``StateFile``; here the file stays as it is, for it may be in use by an earlier version.
    Raises OSError (FileNotFoundError if there is no file), ValueError for a file of another shape.
    """
    layout = _Layout(fields)
    for _ in range(_READ_ATTEMPTS):
        data = path.read_bytes()
        if not data.strip(b"\0"):
            return None  # made, not yet begun
        written = _layout_of(data, layout, older)
        written.check(path, data, grown=written is not layout)
        held = written.newest(data)
        if held is not None:
            return layout.complete(written, held[1])
        if not any(data[_SLOTS_AT:]):
            return None
    raise ValueError(f"{path}: neither record has a valid checksum")


class _Layout:
    def __init__(self, fields: str) -> None:
        self.record = struct.Struct("<Q" + fields.lstrip("<"))
        self.size = self.record.size + 4
        self.stride = -(-self.size // 64) * 64
        self.file_size = _SLOTS_AT + 2 * self.stride

    def slot(self, sequence: int) -> int:
        return _SLOTS_AT + (sequence & 1) * self.stride

    def newest(self, data: bytes | mmap.mmap) -> tuple[int, tuple[Any, ...]] | None:
        best: tuple[int, tuple[Any, ...]] | None = None
        for number in (0, 1):
            at = self.slot(number)
            packed = data[at : at + self.record.size]
            checksum = int.from_bytes(data[at + self.record.size : at + self.size], "little")
            sequence, *values = self.record.unpack(packed)
            if sequence and zlib.crc32(packed) == checksum and (best is None or sequence > best[0]):
                best = sequence, tuple(values)
        return best

    def complete(self, older: _Layout, values: tuple[Any, ...]) -> tuple[Any, ...]:
        """``values`` of an older layout, the fields it does not have being zero."""
        if older is self:
            return values
        packed = older.record.pack(0, *values)
        return self.record.unpack(packed.ljust(self.record.size, b"\0"))[1:]

    def check(self, path: Path, data: bytes | mmap.mmap, *, grown: bool = False) -> None:
        """``grown`` allows for room behind the records. Raises ValueError."""
        magic, size = _HEAD.unpack(bytes(data[: _HEAD.size]).ljust(_HEAD.size, b"\0"))
        sized = len(data) >= self.file_size if grown else len(data) == self.file_size
        if magic != _MAGIC or size != self.record.size or not sized:
            raise ValueError(
                f"{path}: not a state file of {self.record.size}-byte records"
                f" (begins {magic!r}, record size {size}, {len(data)} bytes)"
            )


def _layout_of(data: bytes, layout: _Layout, older: Sequence[str]) -> _Layout:
    """The older layout that ``data`` says it has, or ``layout``."""
    if len(data) >= _HEAD.size:
        magic, size = _HEAD.unpack(data[: _HEAD.size])
        for one in map(_Layout, older):
            if magic == _MAGIC and size == one.record.size:
                return one
    return layout


def _upgrade(path: Path, layout: _Layout, older: Sequence[str]) -> None:
    """Replace a file of an older layout by one that says the same; any other is left alone."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return
    written = _layout_of(data, layout, older)
    if written is layout or len(data) < written.file_size:
        return
    held = written.newest(data)
    if held is None and any(data[_SLOTS_AT:]):
        return  # damaged: an error for the caller
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    mapped = _map_for_writing(new, layout)
    if held is not None:
        packed = layout.record.pack(held[0], *layout.complete(written, held[1]))
        at = layout.slot(held[0])
        mapped[at : at + layout.size] = packed + zlib.crc32(packed).to_bytes(4, "little")
    mapped.close()
    new.replace(path)


def _map_for_writing(path: Path, layout: _Layout) -> mmap.mmap:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        if os.fstat(descriptor).st_size < layout.file_size:
            # Reserved now: a store to a hole of a full disk would be a SIGBUS, not an error.
            os.posix_fallocate(descriptor, 0, layout.file_size)
        mapped = mmap.mmap(descriptor, 0)
    finally:
        os.close(descriptor)
    try:
        if not any(mapped[: _HEAD.size]):
            mapped[: _HEAD.size] = _HEAD.pack(_MAGIC, layout.record.size)
        layout.check(path, mapped)
    except ValueError:
        mapped.close()
        raise
    return mapped
