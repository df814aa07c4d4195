"""When a shim gives free memory back: once output has stopped, and again when the sink has taken all of it.

Python and the C library keep what a burst of output needed, which would stay with every container that ever
wrote much. How the heap is trimmed is in ``runtime/shim/linux.py``; the pages of spools are the pump's business.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

from runtime.shim.linux import trim_heap

__all__ = ["HeapTrim"]

#: So much output leaves a heap worth giving back.
_BYTES = 1 << 20
#: How long it has to have been quiet.
_QUIET_SECONDS = 1.0
#: While a sink has not taken everything it is done again, less and less often.
_LONGEST_SECONDS = 64.0


class HeapTrim:
    """One shim's heap. ``busy`` tells whether lines still wait for the sink."""

    def __init__(self, busy: Callable[[], bool], trim: Callable[[], None] = trim_heap) -> None:
        self._busy = busy
        self._trim = trim
        self._bytes = 0  # of output since the last trim
        self._look_at = 0.0
        self._pause = _QUIET_SECONDS

    def seconds(self, moved: int, wait: float | None) -> float | None:
        """How long to wait after a round that moved so many bytes and would wait so long (None: for ever)."""
        if moved:
            self._bytes += moved
            self._look_at, self._pause = 0.0, _QUIET_SECONDS
        if self._bytes < _BYTES or (wait is not None and wait < _QUIET_SECONDS):
            return wait
        now = time.monotonic()
        if not self._look_at:
            self._look_at = now + self._pause
        elif now >= self._look_at:
            gc.collect()
            self._trim()
            if not self._busy():
                self._bytes = 0
                return wait
            self._pause = min(self._pause * 2, _LONGEST_SECONDS)
            self._look_at = now + self._pause
        left = self._look_at - now
        return left if wait is None else min(left, wait)
