"""Samples cgroups no engine made (services, slices, pods), a part of them in each pass.

They are many, and looked at seldom: each is read every so many passes, so that a hundred of them cost what
ten containers do. ``sampler.py`` makes the passes and answers for the samples.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import replace

from collector.cgroup.layout import Layout
from collector.container import Container
from collector.history import History
from collector.roots import Roots
from collector.sample import Sample
from collector.target import Target

__all__ = ["BareTargets"]

logger = logging.getLogger(__name__)

_HISTORY_POINTS = 60


class BareTargets:
    """The bare cgroups under the sampler's eye. Safe to use from any thread."""

    def __init__(self, layout: Layout, roots: Roots, every: int = 10) -> None:
        """``every``: each is read in one pass of so many."""
        self._layout = layout
        self._roots = roots
        self._every = max(1, every)
        self._turn = 0
        self._lock = threading.Lock()
        self._targets: dict[str, Target] = {}

    def get(self, container_id: str) -> Target | None:
        """The cgroup with this path."""
        return self._targets.get(container_id)

    def change(self, event: str, container: Container) -> None:
        """Take what the registry tells of a bare cgroup."""
        with self._lock:
            target = self._targets.get(container.id)
            if event == "removed":
                if target is not None:
                    target.close()
                    del self._targets[container.id]
            elif target is not None:
                target.container = container
            else:
                self._open(container)

    def read(self, now_ns: int, host_cpu_seconds: float) -> list[tuple[str, Sample | None]]:
        """Take the samples of those whose turn it is."""
        self._turn = (self._turn + 1) % self._every
        targets = tuple(self._targets.items())[self._turn :: self._every]
        return [(path, target.read(now_ns, host_cpu_seconds)) for path, target in targets]

    def all(self) -> dict[str, Target]:
        """The cgroups as they are opened, by path."""
        with self._lock:
            return dict(self._targets)

    def close(self) -> None:
        """Give all descriptors back."""
        with self._lock:
            for target in self._targets.values():
                target.close()
            self._targets.clear()

    def _open(self, container: Container) -> None:
        # By path and not by a process: its path is the same in every hierarchy, and processes come and go.
        still = replace(container, pid=0)
        try:
            target = Target(still, self._layout, self._roots, History(_HISTORY_POINTS))
        except OSError as error:
            logger.debug("cannot sample cgroup %s: %s", container.id, error)
            return
        target.container = container
        target.read(time.time_ns(), None)
        self._targets[container.id] = target
