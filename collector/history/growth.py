"""How much a container's counters grew from row to row, whatever began anew in between.

The other side of ``steps.py``'s carry rows; rows of several resolutions may follow each other, since all of them
hold totals.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from collector.history.rows import BEGAN, BEGAN_AT, COUNTERS

if TYPE_CHECKING:
    from collector.history.rows import Rows

__all__ = ["Growth", "growth"]

#: A first step that was shorter counts as this long.
_LEAST_FIRST_US = 1_000_000


@dataclass(frozen=True, slots=True)
class Growth:
    """A container's rows without carry rows, and beside each how far it is from the one before."""

    values: Rows
    span_us: npt.NDArray[np.int64]  #: time the growth took; 0 where it is not known
    grown: dict[str, npt.NDArray[np.int64]]  #: by counter; 0 where it is not known


def growth(rows: Rows) -> Growth:
    """Growth from row to row of one container, in the order written.

    The first row's is not known, unless it is the container's first; nor is any across a clock set back.
    """
    is_carry = rows["flags"] != 0
    values = rows[~is_carry]
    times = values["time_us"]
    span = np.diff(times, prepend=times[:1])
    behind = np.cumsum(~is_carry)[is_carry]  # for each carry row the index of the row it stands before
    carries = rows[is_carry][behind < len(values)]
    behind = behind[behind < len(values)]
    began = carries["flags"] == BEGAN
    first = times[behind[began]] - carries[BEGAN_AT][began]
    # What it took to make a container is charged to its first moments, as several processors' work of a few
    # milliseconds where the first step ends with them. Its whole life stays as short as it was.
    lived_on = (behind[began] + 1 < len(values)) & (first > 0)
    span[behind[began]] = np.where(lived_on, np.maximum(first, _LEAST_FIRST_US), first)
    known = span > 0
    # A new run that nobody saw begin: CPU time is less than it was, all of the new totals is growth.
    anew = np.diff(values["cpu_us"], prepend=values["cpu_us"][:1]) < 0
    grown = {}
    for name in COUNTERS:
        totals = values[name]
        delta = np.maximum(np.diff(totals, prepend=totals[:1]), 0)
        delta[anew] = totals[anew]
        exact = np.diff(totals, prepend=totals[:1])
        exact[behind[began]] = totals[behind[began]]
        delta[behind] = np.maximum(exact[behind] + carries[name], 0)
        delta[~known] = 0
        grown[name] = delta
    return Growth(values, np.where(known, span, 0), grown)
