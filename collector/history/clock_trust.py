"""Whether the wall clock may be believed when something is to be removed for its age.

A clock that leapt a week ahead must not take a week of history with it; what leapt is given an hour to be set right.
"""

from __future__ import annotations

import logging
import time

__all__ = ["ClockTrust"]

log = logging.getLogger(__name__)

#: After a step of the clock nothing is removed for its age for this long; seconds.
DISTRUST = 3600.0


class ClockTrust:
    """Compares the wall clock with the time since boot, which nobody sets."""

    def __init__(self, tolerance: float) -> None:
        """``tolerance``: seconds that the two may drift apart between two questions."""
        self._tolerance = tolerance
        self._offset = 0.0
        self._distrusted_until = 0.0

    def trusts(self, now_ns: int) -> bool:
        """Whether the clock has not been stepped lately. ``now_ns`` is what it says now."""
        since_boot = time.clock_gettime(time.CLOCK_BOOTTIME)
        offset = now_ns / 1e9 - since_boot
        if self._offset and abs(offset - self._offset) > self._tolerance:
            self._distrusted_until = since_boot + DISTRUST
            log.warning(
                "the clock was stepped by %.0f s, no history is removed for its age for %.0f s",
                offset - self._offset,
                DISTRUST,
            )
        self._offset = offset
        return since_boot >= self._distrusted_until
