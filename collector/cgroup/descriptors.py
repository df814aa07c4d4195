"""How many descriptors readers of cgroups may keep open: what a process may have less what the rest of it needs.

A container over that is still read, by opening its files each time (``reader.py``).
"""

from __future__ import annotations

import logging
import resource
import threading

__all__ = ["Descriptors"]

logger = logging.getLogger(__name__)

#: The share of the process's limit that kept counters may take; logs, connections and the store have the rest.
_SHARE = 0.8


class Descriptors:
    """A count of what is kept. Safe to use from any thread."""

    def __init__(self, share: float = _SHARE) -> None:
        self._share = share
        self._lock = threading.Lock()
        self._kept = 0
        self._told = False

    @property
    def kept(self) -> int:
        """How many are kept open."""
        return self._kept

    def room(self, count: int) -> bool:
        """Whether so many more may be kept, by the limit of open files as it is now."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft == resource.RLIM_INFINITY or self._kept + count <= soft * self._share:
            return True
        if not self._told:
            self._told = True
            logger.warning(
                "counters of cgroups keep %d files open, and may keep %d of the limit of %d (ulimit -n): those of "
                "further containers are opened for every pass, which costs more",
                self._kept,
                soft * self._share,
                soft,
            )
        return False

    def take(self, count: int) -> None:
        """So many more are kept; fewer if negative."""
        with self._lock:
            self._kept += count
