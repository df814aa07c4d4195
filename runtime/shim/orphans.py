"""Processes that fall to the engine: shims whose template was killed, containers whose shim was killed too.

The engine is a child subreaper, so the kernel makes it their parent; nobody else can reap them or learn how
they ended. What their end means is the caller's business.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path

from runtime.shim.exit_status import wait_status

__all__ = ["Orphans", "parent_of"]

log = logging.getLogger(__name__)


def parent_of(pid: int, proc: Path = Path("/proc")) -> int:
    """The parent's pid, 0 if there is no such process (field 4 of ``/proc/PID/stat``)."""
    try:
        text = (proc / str(pid) / "stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(text[text.rindex(b")") + 2 :].split()[1])


class Orphans:
    """Waits in the event loop for the ends of processes that became ours."""

    def __init__(self) -> None:
        self._pidfds: dict[int, int] = {}

    def mind(self, pid: int, ended: Callable[[int], None] | None = None) -> None:
        """Reap the process when it ends, after telling ``ended`` its wait status; nothing if it is not ours."""
        if not pid or pid in self._pidfds or parent_of(pid) != os.getpid():
            return
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        self._pidfds[pid] = pidfd
        asyncio.get_running_loop().add_reader(pidfd, self._ended, pid, pidfd, ended)

    def close(self) -> None:
        """Stop waiting."""
        for pid in list(self._pidfds):
            self._forget(pid)

    def _ended(self, pid: int, pidfd: int, ended: Callable[[int], None] | None) -> None:
        try:
            result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if result is None:
                return
            if ended is not None:
                ended(wait_status(result))
            os.waitpid(pid, 0)
        except (OSError, ValueError) as error:
            log.error("reap process %d: %s", pid, error)
        self._forget(pid)

    def _forget(self, pid: int) -> None:
        pidfd = self._pidfds.pop(pid)
        asyncio.get_running_loop().remove_reader(pidfd)
        os.close(pidfd)
