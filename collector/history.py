"""The last minutes of one container, a row of numbers a sample, for curves and trends.

A row is packed into one preallocated ring, so ten minutes of seconds cost 48 kB and no objects; whole
samples are not kept here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple, overload

from collector.sample import Sample

__all__ = ["History", "Point"]

_ROW = struct.Struct("=qdqqqqqqqq")


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


class History(Sequence[Point]):
    """A ring of points, oldest first when read."""

    def __init__(self, capacity: int = 600) -> None:
        self._capacity = capacity
        self._rows = bytearray()
        self._next = 0
        self._length = 0

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
        if not self._rows:
            self._rows = bytearray(_ROW.size * self._capacity)
        _ROW.pack_into(
            self._rows,
            self._next * _ROW.size,
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
        )
        self._next = (self._next + 1) % self._capacity
        self._length = min(self._length + 1, self._capacity)

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> Point: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Point]: ...

    def __getitem__(self, index: int | slice) -> Point | Sequence[Point]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._length))]
        if not -self._length <= index < self._length:
            raise IndexError(f"point {index}: expected one of {self._length}")
        first = (self._next - self._length) % self._capacity
        row = (first + index % self._length) % self._capacity
        return Point(*_ROW.unpack_from(self._rows, row * _ROW.size))

    def __iter__(self) -> Iterator[Point]:
        return (self[index] for index in range(self._length))
