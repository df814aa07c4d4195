"""How often a message is worth saying: the first of its kind at once, then one a minute with the number of the others.

Counting what happened is left to whoever says it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Seldom"]


class Seldom:
    """The turns of one kind of message. Not thread-safe: at worst one is said twice."""

    def __init__(self, seconds: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        """``seconds`` between two of them at least."""
        self._seconds = seconds
        self._clock = clock
        self._next = float("-inf")
        self._kept_back = 0

    def turn(self) -> int | None:
        """Whether to say it now: how many were kept back since the last; None to keep this one back, too."""
        now = self._clock()
        if now < self._next:
            self._kept_back += 1
            return None
        self._next = now + self._seconds
        kept_back, self._kept_back = self._kept_back, 0
        return kept_back
