"""A position in a log's file that can be found again, though the file is renamed, copied or compressed.

What is in the file before the position tells it from every other; which files there are to look in is
``log_files.py``'s business.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import orjson

from collector.inputs.log_files import Generation, PlainGeneration

__all__ = ["MARK_SIZE", "Place"]

#: Bytes before the offset that are read again with each block and must not have changed. A record ends in
#: its time, so they tell one file, and one position in it, from every other.
MARK_SIZE = 128


@dataclass(frozen=True, slots=True)
class Place:
    """A position in a file, in the form of a checkpoint's value."""

    inode: int
    offset: int
    mark_size: int
    mark_hash: str
    time_ns: int  #: of the last record stored

    @classmethod
    def of(cls, inode: int, offset: int, mark: bytes, time_ns: int) -> Place:
        """The position behind ``mark``, the last bytes before it."""
        return cls(inode, offset, len(mark), _hash(mark), time_ns)

    @classmethod
    def parse(cls, value: bytes) -> Place:
        """Raises ValueError for bytes that are no checkpoint of this tail."""
        try:
            fields = orjson.loads(value)
            return cls(
                int(fields["inode"]),
                int(fields["offset"]),
                int(fields["mark_size"]),
                str(fields["mark_hash"]),
                int(fields["time_ns"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not a json-file checkpoint: {value[:80]!r}") from error

    def dump(self) -> bytes:
        """The checkpoint's value, in JSON."""
        return b'{"inode":%d,"offset":%d,"mark_size":%d,"mark_hash":"%s","time_ns":%d}' % (
            self.inode,
            self.offset,
            self.mark_size,
            self.mark_hash.encode(),
            self.time_ns,
        )

    def mark_in(self, generation: Generation) -> bytes | None:
        """The bytes before the offset if this generation is the one meant, else None."""
        if isinstance(generation, PlainGeneration) and generation.size() < self.offset:
            return None
        mark = generation.read(self.offset - self.mark_size, self.mark_size)
        return mark if len(mark) == self.mark_size and _hash(mark) == self.mark_hash else None


def _hash(mark: bytes) -> str:
    return hashlib.blake2b(mark, digest_size=12).hexdigest()
