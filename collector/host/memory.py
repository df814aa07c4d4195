"""The host's memory, from ``/proc/meminfo``: its sizes, and what the root cgroup does not count."""

from __future__ import annotations

from dataclasses import dataclass

from collector.sample import Memory

__all__ = ["HostMemory", "memory_in_use", "parse_meminfo"]


@dataclass(frozen=True, slots=True)
class HostMemory:
    """Sizes in bytes."""

    total_bytes: int
    available_bytes: int
    swap_total_bytes: int
    swap_free_bytes: int


def parse_meminfo(data: bytes) -> HostMemory:
    """``/proc/meminfo`` (proc_meminfo(5)). Raises ValueError without MemTotal."""
    values = _values(data)
    return HostMemory(
        values[b"MemTotal"],
        values.get(b"MemAvailable", values.get(b"MemFree", 0)),
        values.get(b"SwapTotal", 0),
        values.get(b"SwapFree", 0),
    )


def memory_in_use(data: bytes) -> Memory:
    """What of ``/proc/meminfo`` a root cgroup would count. Raises ValueError without MemTotal."""
    values = _values(data)
    anonymous = values.get(b"AnonPages", 0)
    files = values.get(b"Cached", 0) + values.get(b"Buffers", 0)
    inactive = values.get(b"Inactive(file)", 0)
    return Memory(
        anonymous + files,
        anonymous + files - inactive,
        anonymous,
        files,
        values.get(b"Mapped"),
        values.get(b"SwapTotal", 0) - values.get(b"SwapFree", 0),
        active_file_bytes=values.get(b"Active(file)"),
        inactive_file_bytes=values.get(b"Inactive(file)"),
    )


def _values(data: bytes) -> dict[bytes, int]:
    values: dict[bytes, int] = {}
    for line in data.splitlines():
        key, _, rest = line.partition(b":")
        words = rest.split()
        if words:
            values[key] = int(words[0]) * 1024
    if b"MemTotal" not in values:
        raise ValueError(f"{data[:40]!r}: expected a line MemTotal")
    return values
