"""What a row of the table of series is: a name, a type, a help, where the value comes from, a unit."""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["Family", "Kind"]


class Kind(enum.StrEnum):
    """The types of text format 0.0.4 that are used here."""

    COUNTER = "counter"
    GAUGE = "gauge"


@dataclass(frozen=True, slots=True)
class Family:
    """One series a container (or interface, device, disk, the machine) has. Rows of one name are adjacent.

    ``source`` is a group and a field: ``cpu``, ``memory``, ``stat``, ``pressure``, ``stall``, ``tasks``,
    ``interface``, ``device`` name the parts of ``collector/sample.py``, ``limit`` is computed from them;
    ``disk`` and ``filesystem`` exist for the host alone; ``container`` comes from discovery; ``machine``,
    ``hardware`` and ``scrape`` have no container's labels; ``lane.GROUP`` is read by a group of ``collector/lanes/``
    under the family's name.
    """

    name: str
    kind: Kind
    help: str
    source: str
    unit: str = ""
    labels: str = ""  #: rendered labels besides the container's own
    default: int | None = None  #: the value where the kernel has none; None leaves the series out
    varies: tuple[str, ...] = ()  #: names of labels whose values are known only when they are read

    @property
    def group(self) -> str:
        """The first part of ``source``."""
        return self.source.partition(".")[0]

    @property
    def field(self) -> str:
        """The rest of ``source``."""
        return self.source.partition(".")[2]
