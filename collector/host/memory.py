"""The host's memory, from ``/proc/meminfo``."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["HostMemory", "parse_meminfo"]


@dataclass(frozen=True, slots=True)
class HostMemory:
    """Sizes in bytes."""

    total_bytes: int
    available_bytes: int
    swap_total_bytes: int
    swap_free_bytes: int


def parse_meminfo(data: bytes) -> HostMemory:
    """``/proc/meminfo`` (proc_meminfo(5)). Raises ValueError without MemTotal."""
    values: dict[bytes, int] = {}
    for line in data.splitlines():
        key, _, rest = line.partition(b":")
        words = rest.split()
        if words:
            values[key] = int(words[0]) * 1024
    if b"MemTotal" not in values:
        raise ValueError(f"{data[:40]!r}: expected a line MemTotal")
    return HostMemory(
        values[b"MemTotal"],
        values.get(b"MemAvailable", values.get(b"MemFree", 0)),
        values.get(b"SwapTotal", 0),
        values.get(b"SwapFree", 0),
    )
