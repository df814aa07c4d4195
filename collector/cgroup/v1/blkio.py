"""Block I/O from the v1 ``blkio`` controller.

The throttling layer's counters exist with every I/O scheduler; ``_recursive`` includes child cgroups.
Source of the format: the kernel's Documentation/admin-guide/cgroup-v1/blkio-controller.rst.
"""

from __future__ import annotations

from pathlib import Path

from collector.cgroup.files import open_file, read_all
from collector.sample import BlockIO

__all__ = ["BlkioReader", "parse_operations"]

_EMPTY = b"Total 0\n"


def parse_operations(data: bytes) -> dict[bytes, list[int]]:
    """``major:minor Read|Write|… number`` lines as device to ``[reads, writes]``."""
    devices: dict[bytes, list[int]] = {}
    for line in data.splitlines():
        words = line.split()
        if len(words) == 2 and words[0] == b"Total":
            continue
        if len(words) != 3:
            raise ValueError(f"{line[:60]!r}: expected a device, an operation and a number")
        device, operation, value = words
        counts = devices.setdefault(device, [0, 0])
        if operation == b"Read":
            counts[0] = int(value)
        elif operation == b"Write":
            counts[1] = int(value)
    return devices


class BlkioReader:
    """One container's block I/O."""

    def __init__(self, directory: Path | None) -> None:
        self._bytes = self._open(directory, "blkio.throttle.io_service_bytes")
        self._operations = self._open(directory, "blkio.throttle.io_serviced")
        self._read = _EMPTY, b""  # of the last reading, and what they say
        self._last: tuple[BlockIO, ...] = ()

    def read_limits(self) -> None:
        """Nothing that is read here is a limit."""

    def read(self) -> tuple[BlockIO, ...]:
        """Every device that served the container; none where it did no I/O. Raises OSError, ValueError."""
        if self._bytes < 0:
            return ()
        data = read_all(self._bytes)
        if data == _EMPTY:
            return ()
        found = data, read_all(self._operations) if self._operations >= 0 else b""
        if found != self._read:
            amounts, operations = map(parse_operations, found)
            none = [0, 0]
            self._last = tuple(
                [
                    BlockIO(device.decode(), read, written, *operations.get(device, none))
                    for device, (read, written) in amounts.items()
                ]
            )
            self._read = found
        return self._last

    def descriptors(self) -> tuple[int, ...]:
        """What is kept open."""
        return (self._bytes, self._operations)

    @staticmethod
    def _open(directory: Path | None, name: str) -> int:
        recursive = open_file(directory, name + "_recursive")
        return recursive if recursive >= 0 else open_file(directory, name)
