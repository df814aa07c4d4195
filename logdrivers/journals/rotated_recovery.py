"""Opening a rotated log for writing: what a kill, a power cut or somebody else left is put in order.

The state file says up to where everything is known; what lies behind it is counted and a torn record cut
off, and a rotation that was interrupted is finished. Appending is ``logdrivers/journals/rotated_journal.py``.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import NamedTuple

from logdrivers.journals.generations import IndexWriter, Sample, index_path, state_path, survey
from logdrivers.journals.records import RecordFormat
from logdrivers.journals.rotated_file import RotatedNames
from logdrivers.statefile import StateFile

__all__ = ["STATE_FIELDS", "OpenLog", "State", "create_beside"]

_log = logging.getLogger(__name__)
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
_MODE = 0o640

STATE_FIELDS = "QQQQQQQQQq"


class State(NamedTuple):
    """What is certain: everything before ``base`` is in, and is covered by the marks and the records."""

    generation: int
    base: int  #: offset in the generation's file up to which this record speaks
    stdout: int
    stderr: int
    records: int  #: leading records of the block behind the mark that are in before ``base``
    source_bytes: int  #: the source bytes of these
    stream: int  #: the stream of these
    lines: int  #: lines in the journal before ``base``, since it was made
    bytes: int  #: the same in bytes, as the container wrote them
    high_ns: int  #: highest time before ``base``


class OpenLog:
    """The file being written with its state and index. ``recover`` opens all three."""

    def __init__(self, path: Path, records: RecordFormat, state_file: StateFile, index: IndexWriter) -> None:
        self.path = path
        self._records = records
        self.index = index
        self.state = State(*state_file.values) if state_file.values else State(*[0] * len(State._fields))
        self.torn_bytes = 0  #: cut off the end when the log was opened
        self.descriptor = -1
        self.inode = 0
        self._state_file = state_file

    @classmethod
    def recover(cls, names: RotatedNames, records: RecordFormat) -> OpenLog:
        """Open the log, or make it. Raises OSError, or ValueError for a state file that is none."""
        for left in names.path.parent.iterdir():  # glob would make a regular expression in every shim
            if left.name.startswith(f"{names.path.name}.") and left.name.endswith(".gz.tmp"):
                left.unlink()
        state_file = StateFile(state_path(names.path), STATE_FIELDS)
        log = cls(names.path, records, state_file, IndexWriter(index_path(names.path)))
        if state_file.values is None or not log.index.samples:
            log._adopt(names)
        elif log.index.samples[-1].generation > log.state.generation:
            log._finish_rotation(names)
        else:
            log._reopen(names)
        log.save()
        return log

    def save(self) -> None:
        """Make the state durable against a kill."""
        self._state_file.write(*self.state)

    def use(self, descriptor: int) -> None:
        """Write to this file from now on."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
        self.descriptor = descriptor
        self.inode = os.fstat(descriptor).st_ino

    def size_changed(self, size: int) -> bool:
        """Whether the file is not as long as we made it."""
        return os.fstat(self.descriptor).st_size != size

    def begin_generation_in_file(self) -> None:
        """Begin a generation where the open file ends now."""
        state = self.state
        base = os.fstat(self.descriptor).st_size
        self.index.append(Sample(state.generation + 1, self.inode, base, state.lines, state.high_ns))
        self.state = state._replace(generation=state.generation + 1, base=base)
        self.save()

    def close(self) -> None:
        """Close the three files."""
        self._state_file.close()
        self.index.close()
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    # --- the cases

    def _adopt(self, names: RotatedNames) -> None:
        """No state: a new log, or one that somebody else wrote, which is indexed and gone on with."""
        self.use(os.open(self.path, _FLAGS, _MODE))
        self._cut_torn(self._records.whole_in_file(self.descriptor))
        self.index.clear()
        files = [name for _, name in names.older()][::-1]
        samples = survey([*files, self.path], self._records, self.state.generation + 1)
        for sample in samples:
            self.index.append(sample)
        end = samples[-1]
        self.state = self.state._replace(
            generation=end.generation, base=end.offset, lines=end.line, high_ns=end.high_ns
        )

    def _finish_rotation(self, names: RotatedNames) -> None:
        """Killed while rotating, after the next generation got its index entry."""
        began = self.index.samples[-1]
        self.state = self.state._replace(generation=began.generation, base=began.offset)
        new = _beside(self.path)
        if _inode(self.path) != began.inode:
            if _inode(new) != began.inode:
                self._make_next(names)
                return
            if self.path.exists():
                names.make_room()
                names.shift()
            new.replace(self.path)
        self._reopen(names)

    def _reopen(self, names: RotatedNames) -> None:
        """The usual case: behind ``base`` there may be leading records of a block, and a torn one."""
        expected = self.index.samples[-1].inode
        _beside(self.path).unlink(missing_ok=True)
        present = self.path.exists()
        self.use(os.open(self.path, _FLAGS, _MODE))
        size = os.fstat(self.descriptor).st_size
        if size < self.state.base:
            if present:  # not an interrupted rotation, which leaves nothing there
                _log.warning(
                    "log file %s was cut to %d of %d bytes: a new generation begins",
                    self.path,
                    size,
                    self.state.base,
                )
            self._cut_torn(self._records.whole_in_file(self.descriptor))
            self.begin_generation_in_file()
            return
        tail = _read(self.descriptor, self.state.base, size)
        tail = tail[: self._records.whole(tail)]
        self._cut_torn(self.state.base + len(tail))
        try:
            self._count_leading(tail)
        except ValueError as error:  # after a power cut there may be anything
            _log.warning("log file %s: what a crash left is not records: %s", self.path, error)
            self.begin_generation_in_file()
        if self.inode != expected:
            self._index_again(names)

    def _index_again(self, names: RotatedNames) -> None:
        """The files are copies (a backup, another disk): same places and lines, other inodes."""
        older = [name for _, name in names.older()][::-1]
        samples = survey([*older, self.path], self._records, max(1, self.state.generation - len(older)))
        before = self.state.lines - samples[-1].line
        self.index.clear()
        for sample in samples:
            self.index.append(sample._replace(line=max(0, sample.line + before)))

    def _make_next(self, names: RotatedNames) -> None:
        """The file of the last generation is gone: begin another."""
        if self.path.exists():
            names.make_room()
            names.shift()
        self.use(os.open(self.path, _FLAGS, _MODE))
        self.begin_generation_in_file()

    def _cut_torn(self, whole: int) -> None:
        """Cut what lies behind ``whole``, the offset behind the last record."""
        size = os.fstat(self.descriptor).st_size
        if whole < size:
            self.torn_bytes += size - whole
            _log.warning("log file %s: cut %d bytes of a torn record off", self.path, size - whole)
            os.ftruncate(self.descriptor, whole)

    def _count_leading(self, tail: bytes) -> None:
        if not tail:
            return
        state = self.state
        count, source = self._records.count(tail), self._records.source_bytes(tail)
        self.state = state._replace(
            base=state.base + len(tail),
            records=state.records + count,
            source_bytes=state.source_bytes + source,
            stream=self._records.stream(tail),
            lines=state.lines + count,
            bytes=state.bytes + source,
            high_ns=max(state.high_ns, self._records.time_range(tail)[1]),
        )


def create_beside(path: Path) -> tuple[Path, int]:
    """Make the next file under a name nobody reads, until the index knows it."""
    new = _beside(path)
    return new, os.open(new, _FLAGS | os.O_TRUNC, _MODE)


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".new")


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0


def _read(descriptor: int, start: int, end: int) -> bytes:
    parts = []
    while start < end and (part := os.pread(descriptor, end - start, start)):
        parts.append(part)
        start += len(part)
    return b"".join(parts)
