"""Pressure stall totals (PSI) of a cgroup on the v2 tree, which hybrid hosts have as well.

Source of the format: the kernel's Documentation/accounting/psi.rst; totals are microseconds.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from collector.cgroup.files import open_file
from collector.sample import Pressure

__all__ = ["RESOURCES", "PressureReader", "parse_pressure"]

RESOURCES = ("cpu", "memory", "io", "irq")


def parse_pressure(data: bytes) -> Pressure:
    """A ``*.pressure`` file: the ``some`` line, and ``full`` where the kernel has it; ``irq`` has ``full`` alone."""
    parts = data.split(b"total=", 2)
    if len(parts) == 2 and parts[0].startswith(b"full avg10="):
        return Pressure(None, int(parts[1]) / 1e6, None, float(parts[0][11 : parts[0].index(b" ", 11)]))
    if len(parts) < 2 or not parts[0].startswith(b"some "):
        raise ValueError(f"{data[:60]!r}: expected a line 'some avg10=… total=…'")
    # "some avg10=0.00 avg60=…": the number begins behind eleven characters
    some = float(parts[0][11 : parts[0].index(b" ", 11)])
    if len(parts) == 2:
        return Pressure(int(parts[1]) / 1e6, None, some)
    total, _, full = parts[1].partition(b"\nfull avg10=")
    return Pressure(int(total) / 1e6, int(parts[2]) / 1e6, some, float(full[: full.index(b" ")]))


class PressureReader:
    """One container's pressure on CPU, memory and I/O, and by interrupts where the kernel counts those."""

    def __init__(self, directory: Path | None) -> None:
        opened = ((name, open_file(directory, f"{name}.pressure")) for name in RESOURCES)
        self._files = tuple((name, fd) for name, fd in opened if fd >= 0)
        self._bytes: list[bytes] = []  # of the last reading, and what they say
        self._last: dict[str, Pressure] = {}

    def read_limits(self) -> None:
        """Nothing that is read here is a limit."""

    def read(self) -> dict[str, Pressure]:
        """The resources whose pressure the kernel counts; none where it was started without.

        The same object as last time where all is the same. Raises OSError, ValueError.
        """
        try:
            found = [os.pread(fd, 512, 0) for _, fd in self._files]
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:  # CONFIG_PSI_DEFAULT_DISABLED, or cgroup.pressure is 0
                return {}
            raise
        if found != self._bytes:
            self._last = {
                name: parse_pressure(data) for (name, _), data in zip(self._files, found, strict=True)
            }
            self._bytes = found
        return self._last

    def descriptors(self) -> tuple[int, ...]:
        """What is kept open."""
        return tuple(fd for _, fd in self._files)
