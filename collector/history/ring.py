"""The last minutes of one container, a row of numbers a sample, for curves and trends.

A row is packed into one ring that grows with its use, so ten minutes of seconds cost 48 kB and no objects,
and a container that lived for seconds one or two; whole samples are not kept here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple, overload

from collector.sample import Sample

__all__ = ["History", "Point"]

_ROW = struct.Struct("=qdqqqqqqIqI")
_SMALLEST = 16  #: rows a ring begins with


class Point(NamedTuple):
    """One sample's main numbers; totals since the container's start but for memory and pids."""

    time_ns: int
    cpu_seconds: float
    memory_bytes: int  #: usage
    working_set_bytes: int
    rx_bytes: int
    tx_bytes: int
    read_bytes: int
    write_bytes: int
    pids: int
    throttled_ns: int
    starts: int = 0  #: grows when the container is started anew: all totals begin at 0 then


class History(Sequence[Point]):
    """A ring of points, oldest first when read. One thread appends, any may read."""

    def __init__(self, capacity: int = 600) -> None:
        self._capacity = capacity
        self._rows = bytearray()
        self._allocated = 0
        self._starts = 0
        self.appended = 0  #: points ever appended

    def started_anew(self) -> None:
        """From the next point on all totals are those of a new run of the container."""
        self._starts += 1

    def append(self, sample: Sample) -> None:
        """Add a sample's row, over the oldest one when the ring is full."""
        cpu, memory = sample.cpu, sample.memory
        rx = tx = read = written = 0
        for interface in sample.interfaces:
            rx += interface.rx_bytes
            tx += interface.tx_bytes
        for device in sample.block_io:
            read += device.read_bytes
            written += device.write_bytes
        if self.appended == self._allocated < self._capacity:
            self._grow()
        _ROW.pack_into(
            self._rows,
            self.appended % self._allocated * _ROW.size,
            sample.time_ns,
            cpu.usage_seconds if cpu else 0.0,
            memory.usage_bytes if memory else 0,
            memory.working_set_bytes if memory else 0,
            rx,
            tx,
            read,
            written,
            sample.pids or 0,
            int((cpu.throttled_seconds or 0) * 1e9) if cpu else 0,
            self._starts,
        )
        self.appended += 1

    def _grow(self) -> None:
        """Room for more, in a new array: whoever reads the old one goes on undisturbed."""
        self._allocated = min(max(self._allocated * 4, _SMALLEST), self._capacity)
        rows = bytearray(self._allocated * _ROW.size)
        rows[: len(self._rows)] = self._rows
        self._rows = rows

    def after(self, position: int) -> list[Point]:
        """The points appended since ``appended`` was ``position``, as far as they are still here."""
        return self.numbered_after(position)[1]

    def numbered_after(self, position: int) -> tuple[int, list[Point]]:
        """The same, and how many points were ever appended before the first of them."""
        newest = self.appended
        first = max(position, newest - self._capacity)
        return first, [self._at(number) for number in range(first, newest)]

    def _at(self, number: int) -> Point:
        rows = self._rows
        return Point._make(_ROW.unpack_from(rows, number * _ROW.size % len(rows)))

    def __len__(self) -> int:
        return min(self.appended, self._capacity)

    @overload
    def __getitem__(self, index: int) -> Point: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Point]: ...

    def __getitem__(self, index: int | slice) -> Point | Sequence[Point]:
        length = len(self)
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(length))]
        if not -length <= index < length:
            raise IndexError(f"point {index}: expected one of {length}")
        return self._at(self.appended - length + index % length)

    def __iter__(self) -> Iterator[Point]:
        return iter(self.after(0))
