"""What a delivery remembers beside its journal: where its sink is, what it counted, what it has yet to tell.

One record in a state file, rewritten for every batch; any process may read the counts. What moves them is
``logdrivers/delivery.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from logdrivers.journal import Position
from logdrivers.statefile import read_state

__all__ = ["OLDER_FIELDS", "STATE_FIELDS", "STATE_NAME", "Counters", "DeliveryState", "read_counters"]

#: Name of the state file in the container's log directory.
STATE_NAME = "delivery.state"

#: segment, offset, line of the cursor; written, delivered; sink up; last error; causes with their counts; causes
#: with how many of their lines no marker has told of.
_CAUSES, _UNMARKED = 12, 3
STATE_FIELDS = "5QB119s" + "24sQ" * (_CAUSES + _UNMARKED)
#: What versions before wrote: eight causes, and nothing to be told.
OLDER_FIELDS = ("5QB119s" + "24sQ" * 8,)
_OTHER = "other"


@dataclass(frozen=True, slots=True)
class Counters:
    """Lines since the container was made, and how the sink is."""

    written: int = 0
    delivered: int = 0
    dropped: dict[str, int] = field(default_factory=dict)  #: by cause
    sink_up: bool = True  #: false from a failed send until the next that succeeds
    last_error: str = ""

    @property
    def held(self) -> int:
        """Lines in the journal that the sink has not taken."""
        return self.written - self.delivered - sum(self.dropped.values())


@dataclass(slots=True)
class DeliveryState:
    """The durable record."""

    position: Position | None = None  #: None: nothing consumed yet, from the journal's first entry on
    line: int = 0
    written: int = 0
    delivered: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    up: bool = True
    error: str = ""
    unmarked: dict[str, int] = field(default_factory=dict)  #: of the dropped: what the sink is to be told
    _causes: list[object] = field(default_factory=list)  # both as the record has them; empty: to be made

    @classmethod
    def parse(cls, values: Sequence[object]) -> DeliveryState:
        """The state in a record."""
        segment, offset, line, written, delivered, up, error, *causes = values
        assert isinstance(segment, int) and isinstance(offset, int) and isinstance(error, bytes)  # noqa: PT018
        assert isinstance(line, int) and isinstance(written, int) and isinstance(delivered, int)  # noqa: PT018
        pairs = list(zip(causes[::2], causes[1::2], strict=True))
        dropped, unmarked = _counts(pairs[:_CAUSES]), _counts(pairs[_CAUSES:])
        position = Position(segment, offset) if segment else None
        text = error.rstrip(b"\0").decode("utf-8", "ignore")
        return cls(position, line, written, delivered, dropped, bool(up), text, unmarked)

    def values(self) -> tuple[object, ...]:
        """The record, in the order of ``STATE_FIELDS``."""
        causes = self._causes
        if not causes:  # they rarely change, and this is asked for at every line
            for counts, room in ((self.dropped, _CAUSES), (self.unmarked, _UNMARKED)):
                for name, count in counts.items():
                    causes += [name.encode()[:24], count]
                causes += [b"", 0] * (room - len(counts))
        segment, offset = self.position or (0, 0)
        error = self.error.encode()[:119]
        return (segment, offset, self.line, self.written, self.delivered, self.up, error, *causes)

    def drop(self, cause: str, lines: int) -> None:
        """Count a loss; causes beyond the record's room go together under ``other``."""
        if cause not in self.dropped and len(self.dropped) >= _CAUSES - 1:
            cause = _OTHER
        self.dropped[cause] = self.dropped.get(cause, 0) + lines
        self._causes.clear()

    def lose(self, cause: str, lines: int) -> None:
        """Count lines behind the cursor that are gone, and remember to tell the sink."""
        self.drop(cause, lines)
        if cause not in self.unmarked and len(self.unmarked) >= _UNMARKED:
            cause = next(iter(self.unmarked))
        self.unmarked[cause] = self.unmarked.get(cause, 0) + lines
        self.line += lines
        self.written = max(self.written, self.line)
        self._causes.clear()

    def told(self, cause: str) -> None:
        """The sink knows of what was lost for this cause."""
        del self.unmarked[cause]
        self._causes.clear()

    def counters(self) -> Counters:
        """What it counts, as it stands now."""
        return Counters(self.written, self.delivered, dict(self.dropped), self.up, self.error)


def _counts(pairs: Sequence[tuple[object, object]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for name, count in pairs:
        assert isinstance(name, bytes) and isinstance(count, int)  # noqa: PT018
        if count:
            found[name.rstrip(b"\0").decode()] = count
    return found


def read_counters(path: Path) -> Counters | None:
    """What a delivery in any process, running or not, last wrote to its state file; None if it never did.

    Raises OSError, ValueError for a file of another shape.
    """
    values = read_state(path, STATE_FIELDS, OLDER_FIELDS)
    return None if values is None else DeliveryState.parse(values).counters()
