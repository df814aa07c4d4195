"""What a tail could not store: counted by cause, and marked in the log at the place where it is missing.

How a loss is noticed is left to the tails; how many lines it was is often known to nobody any more.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from logdrivers.block import Block, Encoding, Stream

__all__ = ["Loss", "TailCounters"]

_REASONS = {
    "damaged": "a compressed file of the log is damaged",
    "invalid": "bytes that are no record of the log's format",
    "oversized": "a record longer than any log driver writes",
    "removed": "the log was removed before it was read",
    "rotated": "the log was rotated past the file read last",
    "torn": "the last record of a rotated file is incomplete",
    "truncated": "the log was truncated",
}


@dataclass(frozen=True, slots=True)
class Loss:
    """Something missing at one place."""

    cause: str
    lines: int = 0  #: 0 where the number is not known
    size: int = 0  #: bytes, at least; 0 where not known

    def marker(self, time_ns: int) -> Block:
        """The message for the place. It is ours: not among the lines and bytes read."""
        if self.lines:
            what = f"{self.lines} line{'s' if self.lines > 1 else ''} dropped here"
        elif self.size:
            what = f"{self.size} bytes or more dropped here"
        else:
            what = "output may be missing here"
        text = f"taffrail: {what}: {_REASONS.get(self.cause, self.cause)}\n"
        return Block(text.encode(), Encoding.LINES, Stream.STDERR, time_ns, time_ns, 1)


@dataclass(slots=True)
class TailCounters:
    """What one tail has seen since it was made."""

    lines: int = 0
    bytes: int = 0
    rotations: int = 0
    truncations: int = 0
    #: Rotations after which the file read before was gone: what was between is not known to have been read.
    unverified_rotations: int = 0
    losses: dict[str, int] = field(default_factory=dict)  #: places where something is missing, by cause
    lost_lines: dict[str, int] = field(default_factory=dict)  #: by cause, where the number is known
    lost_bytes: dict[str, int] = field(default_factory=dict)  #: by cause, where the number is known

    def lose(self, cause: str, lines: int, size: int) -> None:
        """Count what cannot be stored; 0 is a number that is not known."""
        for counts, count in ((self.losses, 1), (self.lost_lines, lines), (self.lost_bytes, size)):
            if count:
                counts[cause] = counts.get(cause, 0) + count

    def add(self, other: TailCounters) -> None:
        """Add another tail's counts."""
        self.lines += other.lines
        self.bytes += other.bytes
        self.rotations += other.rotations
        self.truncations += other.truncations
        self.unverified_rotations += other.unverified_rotations
        for mine, theirs in (
            (self.losses, other.losses),
            (self.lost_lines, other.lost_lines),
            (self.lost_bytes, other.lost_bytes),
        ):
            for cause, count in theirs.copy().items():
                mine[cause] = mine.get(cause, 0) + count
