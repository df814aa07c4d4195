"""A raw segment: frames in the order they came, appended by one thread, read by any.

Opening one again checks every frame: damage in the middle is skipped and counted by the numbers the frames
around it carry, an incomplete frame at the end of the newest segment is cut off and counted.
"""

from __future__ import annotations

import mmap
import os
import struct
import threading
import weakref
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import zstandard

from collector.segments.frames import (
    HEADER_BYTES,
    HELD_BYTES,
    MAGIC,
    Corrupt,
    Frame,
    crc32,
    decode_payload,
    parse_headers,
    unpack_frames,
    valid_header,
)

if TYPE_CHECKING:
    from collector.segments.frames import FrameArray

__all__ = ["RawSegment", "Repair"]

_FILE_HEADER = struct.Struct("<8sQQQqI")
_FILE_MAGIC: Final = b"TAFRAW1\n"
_OFFSET = struct.Struct("<Q")
_MAGIC_BYTES = struct.pack("<I", MAGIC)


@dataclass(frozen=True, slots=True)
class Repair:
    """What opening a segment again found wrong."""

    torn_bytes: int = 0  #: cut off the end
    corrupt_bytes: int = 0  #: skipped in the middle
    corrupt_lines: int = 0  #: lines in what was skipped in the middle


class RawSegment:
    """One file of frames. ``append`` is for its owner under the store's lock; reading needs no lock."""

    sealed = False

    def __init__(
        self, path: Path, fd: int, number: int, lines_before: int, bytes_before: int, created_ns: int
    ) -> None:
        self.path = path
        self.number = number  #: rising from 1
        self.lines_before = lines_before  #: lines stored in all segments before
        self.bytes_before = bytes_before  #: bytes of blocks stored in all segments before
        self.created_ns = created_ns
        self.repair = Repair()
        self.damaged_frames = 0  #: found when they were read, after opening
        self.end = _FILE_HEADER.size  #: offset behind the last frame
        self.lines = 0  #: lines appended, damaged ones included
        self.raw_bytes = 0
        self.frames = 0  #: ordinal of the next frame
        self.first_ns: int | None = None
        self.last_ns: int | None = None
        self._fd = fd
        self._index = bytearray()
        self._lock = threading.Lock()
        self._finalizer = weakref.finalize(self, os.close, fd)
        self._local = threading.local()

    # --- making and opening ---

    @classmethod
    def create(
        cls, path: Path, number: int, lines_before: int, bytes_before: int, created_ns: int
    ) -> RawSegment:
        """Make a new, empty segment. Raises OSError with no file left behind."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
        try:
            head = _FILE_HEADER.pack(_FILE_MAGIC, number, lines_before, bytes_before, created_ns, 0)[:-4]
            _write(fd, [head, struct.pack("<I", crc32(head))], 0)
        except OSError:
            os.close(fd)
            with suppress(OSError):
                path.unlink()
            raise
        return cls(path, fd, number, lines_before, bytes_before, created_ns)

    @classmethod
    def open(cls, path: Path, newest: bool) -> RawSegment:
        """Open one that was written before; ``newest`` allows to cut off a torn tail.

        Raises Corrupt if not even the file's header can be read (a kill while it was made).
        """
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            head = os.pread(fd, _FILE_HEADER.size, 0)
            if len(head) < _FILE_HEADER.size or crc32(head[:-4]) != struct.unpack("<I", head[-4:])[0]:
                raise Corrupt(f"{path}: no segment header")
            magic, number, lines_before, bytes_before, created_ns, _ = _FILE_HEADER.unpack(head)
            if magic != _FILE_MAGIC:
                raise Corrupt(f"{path}: not a raw segment: {magic!r}")
        except BaseException:
            os.close(fd)
            raise
        segment = cls(path, fd, number, lines_before, bytes_before, created_ns)
        segment._recover(newest)
        return segment

    def _recover(self, newest: bool) -> None:
        size = os.fstat(self._fd).st_size
        corrupt_bytes = corrupt_lines = 0
        if size > self.end:
            with mmap.mmap(self._fd, size, prot=mmap.PROT_READ) as data:
                for offset, header in _scan(data, self.end):
                    row = next(unpack_frames(header + _OFFSET.pack(offset)))
                    corrupt_bytes += offset - self.end
                    corrupt_lines += row.lines_before - self.lines
                    self.lines = row.lines_before
                    self.frames = row.ordinal
                    self._note(header, row.first_ns, row.last_ns, row.lines, row.raw_bytes, offset)
                    self.end = offset + row.size
        torn = size - self.end
        if torn and newest:
            os.ftruncate(self._fd, self.end)
        self.repair = Repair(torn, corrupt_bytes, corrupt_lines)

    # --- writing ---

    def append(self, header: bytes, extra: bytes, payload: bytes, frame: tuple[int, int, int, int]) -> None:
        """Write one frame; ``frame`` is its (first_ns, last_ns, lines, raw_bytes).

        Raises OSError with nothing of the frame kept.
        """
        offset = self.end
        try:
            _write(self._fd, [header, extra, payload] if extra else [header, payload], offset)
        except OSError:
            with suppress(OSError):  # what stays behind the end is overwritten, or cut off when opened again
                os.ftruncate(self._fd, offset)
            raise
        first_ns, last_ns, lines, raw_bytes = frame
        self._note(header, first_ns, last_ns, lines, raw_bytes, offset)
        self.end = offset + len(header) + len(extra) + len(payload)

    def _note(
        self, header: bytes, first_ns: int, last_ns: int, lines: int, raw_bytes: int, offset: int
    ) -> None:
        with self._lock:
            self._index += header
            self._index += _OFFSET.pack(offset)
        self.frames += 1
        self.lines += lines
        self.raw_bytes += raw_bytes
        if lines:
            self.first_ns = first_ns if self.first_ns is None else min(self.first_ns, first_ns)
            self.last_ns = last_ns if self.last_ns is None else max(self.last_ns, last_ns)

    def sync(self) -> None:
        """Put what was appended on the disk."""
        os.fdatasync(self._fd)

    # --- reading ---

    @property
    def corrupt_lines(self) -> int:
        """Lines appended that cannot be read any more."""
        return self.repair.corrupt_lines

    @property
    def disk_bytes(self) -> int:
        """Size of the file."""
        return self.end

    def headers(self, start: int = 0) -> FrameArray:
        """The headers of all whole frames, from the ``start``-th held on (not the ordinal)."""
        with self._lock:
            held = bytes(memoryview(self._index)[start * HELD_BYTES :])
        return parse_headers(held)

    def each_frame(self) -> Iterator[Frame]:
        """All whole frames, one by one."""
        with self._lock:
            held = bytes(self._index)
        return unpack_frames(held)

    def from_ordinal(self, ordinal: int) -> FrameArray:
        """The headers of the frames with this ordinal or a later one."""
        with self._lock:
            held = len(self._index) // HELD_BYTES
        start = max(0, ordinal - (self.frames - held))  # damage only makes the index shorter
        array = self.headers(min(start, held))
        return array[array["ordinal"] >= ordinal]

    def read_many(self, wanted: list[Frame]) -> Iterator[tuple[bytes, bytes] | Corrupt]:
        """Extra part and data of frames in the order of the file; neighbours are read together.

        A damaged one gives its error instead, and is counted. Raises OSError.
        """
        decompressor = self._decompressor()
        at = 0
        while at < len(wanted):
            first, until = wanted[at], at
            end = first.offset
            while until < len(wanted) and wanted[until].offset == end and end - first.offset < 1 << 20:
                end += wanted[until].size
                until += 1
            data = os.pread(self._fd, end - first.offset, first.offset)
            for frame in wanted[at:until]:
                start = frame.offset - first.offset
                try:
                    yield decode_payload(frame, data[start + HEADER_BYTES : start + frame.size], decompressor)
                except Corrupt as error:
                    self.damaged_frames += 1
                    yield error
            at = until

    def read_extra(self, frame: Frame) -> bytes:
        """The extra part alone; its checksum was tested when the segment was opened. Raises OSError."""
        return os.pread(self._fd, frame.extra_bytes, frame.offset + HEADER_BYTES)

    def _decompressor(self) -> zstandard.ZstdDecompressor:
        made: zstandard.ZstdDecompressor | None = getattr(self._local, "decompressor", None)
        if made is None:
            made = self._local.decompressor = zstandard.ZstdDecompressor()
        return made

    def close(self) -> None:
        """Give up the file; for the owner when nobody reads any more."""
        self._finalizer()


def _write(fd: int, parts: list[bytes], offset: int) -> None:
    wanted = sum(map(len, parts))
    written = os.pwritev(fd, parts, offset)
    if written != wanted:
        rest = b"".join(parts)[written:]
        while rest:
            count = os.pwrite(fd, rest, offset + written)
            written += count
            rest = rest[count:]


def _scan(data: mmap.mmap, offset: int) -> Iterator[tuple[int, bytes]]:
    """Offset and header of every whole frame; whatever is not one is passed over."""
    size = len(data)
    while offset < size:
        header = data[offset : offset + HEADER_BYTES]
        if valid_header(header):
            row = next(unpack_frames(header + _OFFSET.pack(offset)))
            end = offset + row.size
            if end <= size and crc32(data[offset + HEADER_BYTES : end]) == row.payload_crc:
                yield offset, header
                offset = end
                continue
        offset = data.find(_MAGIC_BYTES, offset + 1)
        if offset < 0:
            return
