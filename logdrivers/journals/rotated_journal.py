"""An exactly-once journal in files that are rotated as Docker rotates them: json-file's and local's.

The files are byte for byte what Docker Engine leaves, so whoever reads those reads ours. Beside them lie a
state file (what is in, for resuming after a kill) and an index (which file is which generation). Reading is
``logdrivers/journals/rotated_reader.py``; what a record is, the drivers say.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import NamedTuple

from logdrivers.block import Block, Encoding, Stream
from logdrivers.codecs import json_file as codec
from logdrivers.journal import Mark, Position, Resume
from logdrivers.journals.generations import SAMPLE_BYTES, Sample
from logdrivers.journals.records import BlockEncoder, RecordFormat
from logdrivers.journals.rotated_file import Compressor, RotatedNames
from logdrivers.journals.rotated_recovery import OpenLog, State, create_beside

__all__ = ["RotatedJournal", "Rotation"]

_log = logging.getLogger(__name__)


class Rotation(NamedTuple):
    """When a file ends and how many are kept (Docker's ``max-size``, ``max-file``, ``compress``)."""

    max_size: int = -1  #: bytes; -1 is without limit
    max_file: int = 1
    compress: bool = False

    @property
    def files(self) -> int:
        """Files there may be. Docker Engine 20.10 keeps a rotated one beside the current for ``max-file=1`` too."""
        return max(2, self.max_file)


class RotatedJournal:
    """Appends blocks to the log file at ``path``. One owner, not thread-safe."""

    def __init__(self, path: Path, encoder: BlockEncoder, records: RecordFormat, rotation: Rotation) -> None:
        self._records = records
        self._encoder = encoder
        self._rotation = rotation
        self._names = RotatedNames(path, rotation.files)
        self._compressor = Compressor(self._names)
        self._log = OpenLog.recover(self._names, records)
        self._size = self._log.state.base  # of the file; ahead of the state while a block goes in
        self._failed: Mark | None = None  # the mark of a block of which only leading records are in
        if rotation.compress:
            self._compress_left_over()

    # --- Journal

    def resume(self) -> Resume:
        """Where the writer before got to, and how much of the block behind it is in already."""
        state = self._log.state
        return Resume(
            Mark(state.stdout, state.stderr),
            state.records,
            self._log.torn_bytes,
            Stream(state.stream),
            state.source_bytes,
        )

    def append(self, block: Block, mark: Mark) -> Position:
        """Encode and write one block, rotating where Docker would.

        Raises OSError with whole records of the block kept: ``resume`` counts them, and appending the same
        block with the same mark again goes on behind them. Raises ValueError for a malformed block.
        """
        data = self._encoder.encode(block)
        if self._log.size_changed(self._size):
            self._take_over()
        state = self._log.state
        lines, size = state.lines, state.bytes
        if state.records and self._failed == mark:
            data = data[self._records.behind(data, state.records) :]
            lines, size = lines - state.records, size - state.source_bytes
        self._failed = mark
        self._write_rotating(data, block)
        self._failed = None
        self._log.state = state = State(
            self._log.state.generation,
            self._size,
            mark.stdout,
            mark.stderr,
            0,
            0,
            block.stream,
            lines + (1 if block.partial else block.lines),
            size + _source_bytes(block),
            max(state.high_ns, block.last_ns),
        )
        self._log.save()
        if self._size - self._log.index.samples[-1].offset >= SAMPLE_BYTES:
            self._add_sample()
        return Position(state.generation, self._size)

    def give_up(self, mark: Mark) -> None:
        """The source up to ``mark`` will not be appended (the caller counts what that loses)."""
        self._failed = None
        self._log.state = self._log.state._replace(
            stdout=mark.stdout, stderr=mark.stderr, records=0, source_bytes=0
        )
        self._log.save()

    def written(self) -> tuple[int, int]:
        """Lines (records) and bytes, as the container wrote them, since the journal was made."""
        return self._log.state.lines, self._log.state.bytes

    def end(self) -> Position:
        """The position behind the last record."""
        return Position(self._log.state.generation, self._log.state.base)

    def close(self) -> None:
        """Close the files, after finishing what is being compressed."""
        self._compressor.close()
        self._log.close()

    # --- writing

    def _write_rotating(self, data: bytes, block: Block) -> None:
        limit = self._rotation.max_size
        if limit < 0 or self._size + len(data) <= limit:
            self._write(data, block)
            return
        begin = 0
        while begin < len(data):
            if self._size >= limit:
                self._rotate()
            # Docker looks before each record, so the record that crosses the limit is still in this file.
            end = self._records.through(data, begin, limit - self._size)
            self._write(data[begin:end], block)
            if end < len(data):
                self._count_leading(data[begin:end], block)
            begin = end

    def _write(self, data: bytes, block: Block) -> None:
        """Write whole records; if the disk refuses, keep those that got in, and no torn one."""
        written = 0
        try:
            while written < len(data):
                written += os.write(self._log.descriptor, memoryview(data)[written:] if written else data)
        except OSError:
            kept = data[: self._records.whole(data[:written])]
            os.ftruncate(self._log.descriptor, self._size + len(kept))
            self._size += len(kept)
            self._count_leading(kept, block)
            self._log.save()
            raise
        self._size += written

    def _count_leading(self, data: bytes, block: Block) -> None:
        """Count ``data``, now in, as leading records of ``block``, of which more is to come."""
        state = self._log.state
        count, source = self._records.count(data), self._records.source_bytes(data)
        self._log.state = state._replace(
            base=self._size,
            records=state.records + count,
            source_bytes=state.source_bytes + source,
            stream=block.stream,
            lines=state.lines + count,
            bytes=state.bytes + source,
            high_ns=max(state.high_ns, block.last_ns) if data else state.high_ns,
        )

    def _add_sample(self) -> None:
        state = self._log.state
        sample = Sample(state.generation, self._log.inode, state.base, state.lines, state.high_ns)
        try:
            self._log.index.append(sample)
        except OSError as error:
            # Not a loss: the block is in, and a search reads farther until a later block succeeds in this.
            _log.warning("adding to the index of log file %s failed: %s", self._names.path, error)

    def _rotate(self) -> None:
        """Begin the next generation. After a kill in between, recovery finishes or repeats it."""
        log, state = self._log, self._log.state
        log.save()
        with self._names.lock:
            self._names.make_room()
            new, descriptor = create_beside(self._names.path)
            inode = os.fstat(descriptor).st_ino
            try:
                log.index.append(Sample(state.generation + 1, inode, 0, state.lines, state.high_ns))
            except OSError:
                os.close(descriptor)
                raise
            self._names.shift()
            new.replace(self._names.path)
        log.use(descriptor)
        log.state = state._replace(generation=state.generation + 1, base=0)
        self._size = 0
        log.save()
        log.index.drop_before(state.generation + 1 - self._rotation.files)
        if self._rotation.compress:
            self._compressor.add(self._names.rotated(1), _gzip_extra(state.generation, state.high_ns))

    def _compress_left_over(self) -> None:
        """Queue the rotated files that a writer before did not get to."""
        samples = self._log.index.samples
        generations = {sample.inode: sample.generation for sample in samples}
        high = {sample.generation: sample.high_ns for sample in samples}
        for _, name in self._names.older():
            generation = generations.get(name.stat().st_ino) if name.suffix != ".gz" else None
            if generation is not None:
                # The first sample behind it knows its highest time.
                after = high.get(generation + 1, self._log.state.high_ns)
                self._compressor.add(name, _gzip_extra(generation, after))

    def _take_over(self) -> None:
        """Somebody truncated the file or wrote to it: what follows is a new generation in the same file."""
        _log.warning("log file %s was changed by somebody else: a new generation begins", self._names.path)
        self._log.begin_generation_in_file()
        self._size = self._log.state.base


def _gzip_extra(generation: int, high_ns: int) -> dict[str, object]:
    """What a compressed generation's header says: Docker's ``lastTime``, and which one it is."""
    return {"lastTime": codec.format_time(high_ns).decode(), "generation": generation}


def _source_bytes(block: Block) -> int:
    """How many bytes of the source a block covers."""
    if block.encoding is Encoding.JSON_FILE:
        return block.source_bytes if block.source_bytes >= 0 else codec.source_bytes(block.data)
    return len(block.data) + (block.partial is not None and block.partial.last)
