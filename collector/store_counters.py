"""What the store counts; ``/metrics`` shows it. Always: written = held + removed + corrupt lines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["CursorCounters", "StoreCounters"]


@dataclass(frozen=True, slots=True)
class CursorCounters:
    """Where a cursor is."""

    lag_lines: int
    lag_bytes: int
    lost_lines: int  #: lines retention removed before the cursor had them, ever


@dataclass(frozen=True, slots=True)
class StoreCounters:
    """Totals since the store was made. Bytes are those of blocks before compression, but for ``disk``."""

    written_lines: int
    written_bytes: int
    held_lines: int
    held_bytes: int
    removed_lines: Mapping[str, int]  #: by cause: ``size``, ``age``
    removed_bytes: Mapping[str, int]
    corrupt_lines: int  #: lines whose bytes on the disk were damaged
    torn_bytes: int  #: bytes of incomplete appends cut off when the store was opened, this time
    damaged_frames: int  #: frames and chunks found damaged when read, this time
    disk_bytes: int
    raw_segments: int
    sealed_segments: int
    sealing_cpu_seconds: float  #: this time
    cursors: Mapping[str, CursorCounters]
