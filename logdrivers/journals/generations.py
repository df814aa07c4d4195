"""The index beside a rotated log: which file is which generation, and a sample of lines and times in it.

Docker's files are told apart by name only, and names move at every rotation. An entry gives a generation its
inode; further entries, about one per MiB, say how many lines and what highest time lie before an offset, so
that a line number or a time is found by bisection and one short read. The journal writes it, readers in any
process follow it.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from isal import igzip

from logdrivers.journals.records import RecordFormat

__all__ = ["SAMPLE_BYTES", "GenerationIndex", "IndexWriter", "Sample", "index_path", "state_path", "survey"]

_ENTRY = struct.Struct("<QQQQqI")  # the fields of Sample, crc32


class Sample(NamedTuple):
    """What lies before one offset. The first sample of a generation is where it starts."""

    generation: int
    inode: int
    offset: int
    line: int  #: lines in the journal before this place, since it was made
    high_ns: int  #: highest time of a record before this place, since it was made


def index_path(log: Path) -> Path:
    """The index of the log file ``log``."""
    return log.with_name(log.name.removesuffix(".log") + ".index")


def state_path(log: Path) -> Path:
    """The state file of the log file ``log``."""
    return log.with_name(log.name.removesuffix(".log") + ".state")


def _pack(sample: Sample) -> bytes:
    packed = _ENTRY.pack(*sample, 0)[:-4]
    return packed + zlib.crc32(packed).to_bytes(4, "little")


def _unpack(data: bytes) -> list[Sample]:
    """The samples in ``data``, up to the first that is torn."""
    samples: list[Sample] = []
    for at in range(0, len(data) - _ENTRY.size + 1, _ENTRY.size):
        *fields, checksum = _ENTRY.unpack_from(data, at)
        if zlib.crc32(data[at : at + _ENTRY.size - 4]) != checksum:
            break
        samples.append(Sample(*fields))
    return samples


class IndexWriter:
    """Writes the index at ``path``. A torn last entry is cut off when it is opened."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.samples: list[Sample] = []
        self._descriptor = self._open(path, 0)
        with path.open("rb") as file:
            self.samples = _unpack(file.read())
        os.ftruncate(self._descriptor, len(self.samples) * _ENTRY.size)

    @staticmethod
    def _open(path: Path, flags: int) -> int:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | flags, 0o640)

    def append(self, sample: Sample) -> None:
        """Add one sample. Raises OSError with nothing of it kept."""
        packed = _pack(sample)
        if (written := os.write(self._descriptor, packed)) != len(packed):
            os.ftruncate(self._descriptor, len(self.samples) * _ENTRY.size)
            raise OSError(28, f"only {written} of {len(packed)} bytes were taken", str(self._path))
        self.samples.append(sample)

    def clear(self) -> None:
        """Forget everything."""
        os.ftruncate(self._descriptor, 0)
        self.samples = []

    def drop_before(self, generation: int) -> None:
        """Forget the generations before this one, once they are the greater part of a long index."""
        kept = [sample for sample in self.samples if sample.generation >= generation]
        if len(self.samples) < 64 or 2 * len(kept) > len(self.samples):
            return
        beside = self._path.with_name(self._path.name + ".new")
        descriptor = self._open(beside, os.O_TRUNC)
        try:
            data = b"".join(map(_pack, kept))
            if os.write(descriptor, data) != len(data):
                raise OSError(28, "could not write the whole index", str(beside))
            beside.replace(self._path)
        except OSError:
            os.close(descriptor)
            raise
        os.close(self._descriptor)
        self._descriptor = descriptor
        self.samples = kept

    def close(self) -> None:
        """Close the file; closing again does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class GenerationIndex:
    """The samples as a reader sees them; ``refresh`` brings in what the writer added meanwhile."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._identity = (0, 0)
        self.samples: list[Sample] = []

    def refresh(self) -> bool:
        """Read again if the file has changed. True if it had."""
        try:
            with self._path.open("rb") as file:
                status = os.fstat(file.fileno())
                identity = status.st_ino, status.st_size
                if identity == self._identity:
                    return False
                if identity[0] == self._identity[0] and identity[1] > self._identity[1]:
                    file.seek(len(self.samples) * _ENTRY.size)
                    self.samples += _unpack(file.read())
                else:
                    self.samples = _unpack(file.read())
        except FileNotFoundError:
            return False
        self._identity = identity[0], len(self.samples) * _ENTRY.size
        return True

    def use(self, samples: Iterable[Sample]) -> None:
        """Take these samples instead of a file's: for a log nobody has indexed."""
        self.samples = list(samples)


#: Bytes between samples: what a search by line or time reads at most.
SAMPLE_BYTES = 1 << 20


def survey(files: Sequence[Path], records: RecordFormat, first_generation: int = 1) -> list[Sample]:
    """Index log files nobody has indexed, oldest first; one more sample is the end of the last.

    Reads all of them: for logs that somebody else wrote.
    """
    samples: list[Sample] = []
    line, high_ns = 0, 0
    for generation, path in enumerate(files, first_generation):
        with path.open("rb") as raw:
            inode = os.fstat(raw.fileno()).st_ino
            source: BinaryIO = igzip.open(raw) if path.suffix == ".gz" else raw  # type: ignore[no-untyped-call]
            offset = 0
            rest = b""
            while data := source.read(SAMPLE_BYTES):
                samples.append(Sample(generation, inode, offset, line, high_ns))
                data = rest + data
                whole = data[: records.whole(data)]
                rest = data[len(whole) :]
                if whole:
                    high_ns = max(high_ns, records.time_range(whole)[1])
                line += records.count(whole)
                offset += len(whole)
            samples.append(Sample(generation, inode, offset, line, high_ns))
    return samples
