"""Block I/O from the v2 ``io`` controller.

Source of the format: the kernel's Documentation/admin-guide/cgroup-v2.rst, "IO".
"""

from __future__ import annotations

from pathlib import Path

from collector.cgroup.files import open_file, read_all
from collector.sample import BlockIO

__all__ = ["IoReader", "parse_stat"]


_COST = ("cost.usage", "cost.wait", "cost.indebt", "cost.indelay")


def _seconds(microseconds: str | None) -> float | None:
    return None if microseconds is None else int(microseconds) / 1e6


def parse_stat(data: bytes) -> tuple[BlockIO, ...]:
    """``io.stat``: ``major:minor rbytes=… wbytes=… rios=… wios=… …`` a line; unknown keys are passed over.

    io.cost adds ``cost.usage=…`` and its like, in microseconds.
    """
    devices = []
    for line in data.decode().splitlines():
        words = line.split()
        # Devices without I/O have no keys, and some kernels print no line end behind them either.
        numbers = [word for word in words if ":" in word and "=" not in word]
        if not numbers:
            raise ValueError(f"{line[:60]!r}: expected a device number and keys")
        device = numbers[-1]
        values = dict(word.split("=", 1) for word in words if "=" in word)
        if "rbytes" in values:
            devices.append(
                BlockIO(
                    device,
                    int(values["rbytes"]),
                    int(values["wbytes"]),
                    int(values["rios"]),
                    int(values["wios"]),
                    *(_seconds(values.get(key)) for key in _COST),
                )
            )
    return tuple(devices)


class IoReader:
    """One container's block I/O."""

    def __init__(self, directory: Path | None) -> None:
        self._stat = open_file(directory, "io.stat")
        self._bytes = b""  # of the last reading, and what they say
        self._last: tuple[BlockIO, ...] = ()

    def read_limits(self) -> None:
        """Nothing that is read here is a limit."""

    def read(self) -> tuple[BlockIO, ...]:
        """Every device that served the container. Raises OSError, ValueError."""
        if self._stat < 0:
            return ()
        data = read_all(self._stat)
        if data != self._bytes:
            self._last = parse_stat(data)
            self._bytes = data
        return self._last

    def descriptors(self) -> tuple[int, ...]:
        """What is kept open."""
        return (self._stat,)
