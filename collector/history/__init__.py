"""What containers and the host used: seconds for ten minutes in memory, ten-second and minute steps on disk.

The sampler only appends to a ring (``ring.py``). Everything else is the recorder's and the questions':
import ``recorder`` and ``query`` from here where they are needed.
"""

from __future__ import annotations

from collector.history.ring import History, Point

__all__ = ["History", "Point"]
