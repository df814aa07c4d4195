"""One reading of all groups of host counters that are wanted, each with how it went.

A group that fails costs the others nothing. What is read is rendered by an exporter.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from collector.host.group import Absent, Column, Files, Reader, Series
from collector.host.groups import BUILTIN
from collector.roots import Roots

__all__ = ["ALL", "Collected", "HostGroups", "choose"]

logger = logging.getLogger(__name__)

#: Stands for every group in a choice.
ALL = "all"


class Collected(NamedTuple):
    """What a group read."""

    group: str
    readings: Mapping[str, Series | Column]
    seconds: float  #: wall clock time it took
    success: bool  #: false where it failed, and where the host does not have the thing


def choose(wanted: Iterable[str]) -> tuple[str, ...]:
    """Names of groups from a configured choice: names, ``all``, and ``-name`` for all but that one.

    Raises ValueError naming a group that does not exist and the nearest that does.
    """
    chosen: dict[str, None] = {}
    for word in wanted:
        name = word.removeprefix("-")
        if name != ALL and name not in BUILTIN:
            import difflib

            near = difflib.get_close_matches(name, BUILTIN, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {ALL}, {', '.join(BUILTIN)}"
            raise ValueError(f"no group of host counters {name!r}; {hint}")
        if word == ALL:
            chosen |= dict.fromkeys(BUILTIN)
        elif word == f"-{ALL}":
            chosen = {}
        elif word.startswith("-"):
            chosen = dict.fromkeys(chosen or BUILTIN)
            chosen.pop(name, None)
        else:
            chosen[name] = None
    return tuple(name for name in BUILTIN if name in chosen)


class HostGroups:
    """The groups chosen, for one host. ``read`` may be called from any thread."""

    def __init__(self, roots: Roots | None = None, groups: Iterable[str] = (ALL,)) -> None:
        """Raises ValueError as ``choose`` does."""
        self._files = Files(roots or Roots())
        self._readers: dict[str, Reader] = {name: BUILTIN[name](self._files) for name in choose(groups)}
        self._lock = threading.Lock()
        self.failures: dict[str, int] = {}  #: readings that failed, by group

    @property
    def names(self) -> tuple[str, ...]:
        """The groups chosen, in order."""
        return tuple(self._readers)

    def read(self, only: Collection[str] = ()) -> list[Collected]:
        """Every group now, or those named only, in order of their names."""
        with self._lock:
            self._files.begin()
            return [
                self._one(name, reader) for name, reader in self._readers.items() if not only or name in only
            ]

    def _one(self, name: str, reader: Reader) -> Collected:
        started = time.perf_counter()
        readings: Mapping[str, Series | Column] = {}
        success = True
        try:
            readings = reader()
        except Absent:
            success = False
        except (OSError, ValueError, LookupError) as error:
            success = False
            seen = self.failures.get(name, 0)
            self.failures[name] = seen + 1
            level = logging.WARNING if seen == 0 else logging.DEBUG
            logger.log(level, "cannot read the host's %s: %s", name, error)
        return Collected(name, readings, time.perf_counter() - started, success)
