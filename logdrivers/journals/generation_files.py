"""From the number of a generation to its open file, while the writer renames, compresses and removes files.

A file is known by its inode, or by the number in its gzip header; an inode that came back into use belongs to
its latest generation. What is in the files is ``logdrivers/journals/rotated_reader.py``.
"""

from __future__ import annotations

import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from isal import igzip

from logdrivers.journals.generations import GenerationIndex, Sample, index_path, survey
from logdrivers.journals.records import RecordFormat
from logdrivers.journals.rotated_file import RotatedNames, gzip_extra

__all__ = ["GenerationFiles", "Source", "chunks", "whole_records"]

_CHUNK = 1 << 18
_OPEN_FILES = 3
_LOOKS = 2


class Source(Protocol):
    """A generation's bytes, as they were before compression."""

    def read(self, offset: int, size: int) -> bytes:
        """Up to ``size`` bytes from ``offset`` on; fewer only at the end."""

    def close(self) -> None:
        """Close the file."""


class _PlainFile:
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self._descriptor, size, offset)

    def close(self) -> None:
        os.close(self._descriptor)


class _GzipFile:
    def __init__(self, descriptor: int) -> None:
        self._raw = os.fdopen(descriptor, "rb")
        self._file = igzip.IGzipFile(fileobj=self._raw)  # type: ignore[no-untyped-call]

    def read(self, offset: int, size: int) -> bytes:
        if self._file.tell() != offset:
            self._file.seek(offset)  # type: ignore[no-untyped-call]
        parts: list[bytes] = []
        while size > 0 and (part := self._file.read(size)):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def close(self) -> None:
        self._file.close()
        self._raw.close()


class GenerationFiles:
    """The generations of the log at ``path``, of which there are up to ``max_file`` files."""

    def __init__(self, path: Path, max_file: int, records: RecordFormat) -> None:
        self._records = records
        self._names = RotatedNames(path, max_file)
        self._index = GenerationIndex(index_path(path))
        self._starts: dict[int, Sample] = {}
        self._owners: dict[int, tuple[int, int]] = {}  # inode: the generations it belongs to now
        self._open: dict[int, Source] = {}

    @property
    def samples(self) -> list[Sample]:
        """All samples, in order of place, line and highest time."""
        return self._index.samples

    def stamp(self) -> tuple[int, int, int] | None:
        """What tells whether anything was written since: inode, size and time of the newest file, if there is one."""
        try:
            found = self._names.path.stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns

    def refresh(self) -> list[Sample]:
        """Take in what the writer did. Returns the first sample of each generation, oldest first."""
        changed = self._index.refresh()
        if not self._index.samples and self._names.path.exists():
            # Somebody else's log: as it lies now.
            older = [name for _, name in self._names.older()][::-1]
            self._index.use(survey([*older, self._names.path], self._records))
            changed = True
        if changed:
            self._take_in()
        return list(self._starts.values())

    def _take_in(self) -> None:
        self._starts = {}
        for sample in self._index.samples:
            known = self._starts.get(sample.generation)
            if known is None or known.inode != sample.inode:
                self._starts[sample.generation] = sample
        self._owners = {}
        inode = 0
        for sample in self._starts.values():
            first = self._owners[inode][0] if sample.inode == inode else sample.generation
            inode = sample.inode
            self._owners[inode] = first, sample.generation

    def held(self) -> set[int]:
        """The generations that can be read."""
        found = set(self._open)
        for name in self._names.all():
            try:
                descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            first, last = self._identify(descriptor, name)
            found.update(range(first, last + 1))
            os.close(descriptor)
        return found

    def limit(self, generation: int) -> int | None:
        """Where a generation ends in its file, if the next one is in the same file."""
        this, following = self._starts.get(generation), self._starts.get(generation + 1)
        if this is not None and following is not None and this.inode == following.inode:
            return following.offset
        return None

    def last_sample(self, generation: int) -> Sample:
        """The sample of a generation that is farthest into it."""
        start = self._starts[generation]
        at = bisect_right(self.samples, generation, key=lambda sample: sample.generation)
        first = bisect_left(self.samples, generation, key=lambda sample: sample.generation)
        return max((s for s in self.samples[first:at] if s.inode == start.inode), key=lambda s: s.offset)

    def open(self, generation: int) -> Source | None:
        """The file of a generation, kept open until ``close_before``; None if it is gone."""
        source = self._open.get(generation)
        if source is None and (source := self._find(generation)) is not None:
            if len(self._open) >= _OPEN_FILES:
                self._open.pop(min(self._open)).close()
            self._open[generation] = source
        return source

    def _find(self, generation: int) -> Source | None:
        for _ in range(_LOOKS):  # a file may get its next name between two names of one look
            for name in self._names.all():
                try:
                    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
                except FileNotFoundError:
                    continue
                # Open, so the inode stays its own; and the index has it before it has this name.
                self.refresh()
                first, last = self._identify(descriptor, name)
                if first <= generation <= last:
                    return _GzipFile(descriptor) if name.suffix == ".gz" else _PlainFile(descriptor)
                os.close(descriptor)
        return None

    def _identify(self, descriptor: int, name: Path) -> tuple[int, int]:
        """The first and last generation in a file; (0, -1) if it is unknown."""
        if name.suffix == ".gz":
            generation = gzip_extra(descriptor).get("generation")
            if isinstance(generation, int):
                start = self._starts.get(generation)
                # One file may hold several: those that began in it before.
                first = generation
                while start is not None and (s := self._starts.get(first - 1)) and s.inode == start.inode:
                    first -= 1
                return first, generation
        return self._owners.get(os.fstat(descriptor).st_ino, (0, -1))

    def close_before(self, generation: int) -> None:
        """Close the files of older generations."""
        for old in [number for number in self._open if number < generation]:
            self._open.pop(old).close()

    def close(self) -> None:
        """Close all files."""
        for source in self._open.values():
            source.close()
        self._open.clear()


def whole_records(
    records: RecordFormat, source: Source, offset: int, limit: int | None, max_bytes: int
) -> bytes:
    """Whole records from ``offset`` on, about ``max_bytes`` of them, at least one if there is one."""
    size = max(max_bytes, 4096)
    while True:
        wanted = size if limit is None else min(size, limit - offset)
        if wanted <= 0:
            return b""
        data = source.read(offset, wanted)
        whole = records.whole(data)
        if whole or len(data) < wanted or wanted < size:
            return data[:whole]
        size *= 4


def chunks(records: RecordFormat, source: Source, offset: int, limit: int | None = None) -> Iterator[bytes]:
    """Whole records from ``offset`` to the end, in pieces."""
    while data := whole_records(records, source, offset, limit, _CHUNK):
        yield data
        offset += len(data)
