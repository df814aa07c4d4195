"""Tasks that go on behind a request: kept until they are done, their failures logged, cancelled together.

asyncio itself holds a task weakly and tells of a failure only when the task is collected.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable

__all__ = ["BackgroundTasks"]

log = logging.getLogger(__name__)


class BackgroundTasks:
    """The tasks of one owner, whom the log calls by ``name``."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Awaitable[None]) -> asyncio.Task[None]:
        """Have it done; the task, for those who want to cancel it."""
        task = asyncio.ensure_future(_task_of(work))
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    async def cancel(self) -> None:
        """Cancel what is not done, and wait until it has ended."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("background work for %s failed", self._name, exc_info=error)


async def _task_of(work: Awaitable[None]) -> None:
    await work
