"""Asks file systems for their size without waiting for one that hangs.

``statvfs`` on a mount whose server or disk is gone does not return. It is called in a thread of its own;
a mount that has not answered in time is left to that thread, is reported as hanging, and is not asked
again before the kernel has answered.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence

__all__ = ["Answer", "Probe"]

logger = logging.getLogger(__name__)

#: What a file system said: its numbers, an error, or nothing, None.
Answer = os.statvfs_result | OSError | None


class Probe:
    """One per process is enough; ``ask`` may be called from any thread."""

    def __init__(
        self,
        statvfs: Callable[[str], os.statvfs_result] = os.statvfs,
        seconds: float = 0.2,
        total_seconds: float = 1.0,
        max_hanging: int = 64,
    ) -> None:
        """``seconds`` is what one mount may take before it counts as hanging, ``total_seconds`` all of a call."""
        self._statvfs = statvfs
        self._seconds = seconds
        self._total_seconds = total_seconds
        self._max_hanging = max_hanging
        self._lock = threading.Lock()
        self._hanging: set[str] = set()

    @property
    def hanging(self) -> frozenset[str]:
        """Paths whose file systems do not answer; a thread waits for each."""
        with self._lock:
            return frozenset(self._hanging)

    def ask(self, paths: Sequence[str]) -> dict[str, Answer]:
        """Every path with its answer, within a second or so whatever the mounts do."""
        answers: dict[str, Answer] = dict.fromkeys(paths)
        hanging = self.hanging
        left = [path for path in answers if path not in hanging]
        deadline = time.monotonic() + self._total_seconds
        while left and time.monotonic() < deadline and len(self.hanging) < self._max_hanging:
            round_ = _Round(left, self._statvfs, self._finished)
            round_.start()
            stuck = self._wait(round_)
            answers |= round_.answers
            if stuck is None:
                break
            left = left[left.index(stuck) + 1 :]
        return answers

    def _wait(self, round_: _Round) -> str | None:
        """Wait for a round as long as it goes on; the path at which it hangs, if it does."""
        seen = -1
        while not round_.done.wait(self._seconds):
            with self._lock:
                at = len(round_.answers)
                if at == seen and at < len(round_.paths):
                    round_.abandoned = True
                    path = round_.paths[at]
                    self._hanging.add(path)
                    logger.warning("file system at %s has not answered for %.1f s", path, self._seconds)
                    return path
                seen = at
        return None

    def _finished(self, round_: _Round, path: str, answer: Answer) -> bool:
        """A path was answered: whether the round is to go on."""
        with self._lock:  # the answer with the question who gave up: one that is in was not late
            if round_.abandoned:
                self._hanging.discard(path)
                logger.info("file system at %s answers again", path)
            else:
                round_.answers[path] = answer
            return not round_.abandoned


class _Round(threading.Thread):
    """Asks one path after the other until one hangs."""

    def __init__(
        self,
        paths: Sequence[str],
        statvfs: Callable[[str], os.statvfs_result],
        finished: Callable[[_Round, str, Answer], bool],
    ) -> None:
        super().__init__(name="statvfs", daemon=True)
        self.paths = paths
        self.answers: dict[str, Answer] = {}
        self.done = threading.Event()
        self.abandoned = False
        self._statvfs = statvfs
        self._finished = finished

    def run(self) -> None:
        for path in self.paths:
            answer: Answer
            try:
                answer = self._statvfs(path)
            except OSError as error:
                answer = error
            if not self._finished(self, path, answer):
                return
        self.done.set()
