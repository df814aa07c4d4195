"""The host's trees as the collector reads them, so that tests and agents in a container can move them.

Everything below ``collector/`` gets its roots from here; nothing else spells ``/proc`` or ``/sys``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Roots"]


@dataclass(frozen=True, slots=True)
class Roots:
    """Where procfs, sysfs and the host's root file system are mounted."""

    proc: Path = Path("/proc")
    sys: Path = Path("/sys")
    root: Path = Path("/")
