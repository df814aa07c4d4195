"""Whole block devices, from ``/proc/diskstats``: their counters, and names for ``major:minor``.

Source of the format: the kernel's Documentation/admin-guide/iostats.rst.
"""

from __future__ import annotations

from collector.sample import BlockIO, DiskStats

__all__ = ["block_io", "names", "parse_diskstats"]


def parse_diskstats(data: bytes) -> tuple[DiskStats, ...]:
    """Every device that has done I/O. Raises ValueError on a line with fewer than 14 fields."""
    disks = []
    for line in data.decode().splitlines():
        words = line.split()
        if len(words) < 14:
            raise ValueError(f"diskstats line {line[:60]!r}: expected 14 fields or more")
        numbers = list(map(int, words[3:14]))
        if any(numbers):
            disks.append(
                DiskStats(
                    f"/dev/{words[2]}",
                    f"{words[0]}:{words[1]}",
                    numbers[0],
                    numbers[1],
                    numbers[2],
                    numbers[3] / 1000,
                    numbers[4],
                    numbers[5],
                    numbers[6],
                    numbers[7] / 1000,
                    numbers[8],
                    numbers[9] / 1000,
                    numbers[10] / 1000,
                )
            )
    return tuple(disks)


def block_io(disk: DiskStats) -> BlockIO:
    """A whole device in the form of a container's block I/O; a sector is 512 bytes whatever the device."""
    return BlockIO(disk.number, disk.sectors_read * 512, disk.sectors_written * 512, disk.reads, disk.writes)


def names(data: bytes) -> dict[str, str]:
    """``major:minor`` to ``/dev/name`` for every device in ``/proc/diskstats``."""
    rows = (line.split()[:3] for line in data.decode().splitlines())
    return {f"{row[0]}:{row[1]}": f"/dev/{row[2]}" for row in rows if len(row) == 3}
