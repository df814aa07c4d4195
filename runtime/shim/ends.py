"""How containers end that a template took over from one that was killed: it is not their parent, nor is their shim.

When such a container's shim is killed too, somebody else reaps it: how it ended is to be seen until then, and on
Linux 6.15 and later by who holds a pidfd. On older ones a quick parent may be quicker than this.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import time
from pathlib import Path

from runtime.shim.exit_status import Init, Waited
from runtime.shim.linux import exit_status_of, process_start, zombie_status

__all__ = ["Ends"]

log = logging.getLogger(__name__)

#: How long a parent may take to reap a process that has ended, which is when its status can be asked for.
_REAP_SECONDS = 5.0
_LOOK_MILLISECONDS = 20


class Ends:
    """Watches processes by pidfd and records in their run directories how they ended. One thread."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watched: dict[str, tuple[int, Init, Path]] = {}  # of a container: pidfd, process, run directory
        self._ended: dict[str, float] = {}  # containers whose end is not told yet, and until when to ask

    def fileno(self) -> int:
        """Readable when a watched process has ended: then call ``record``."""
        return self._epoll.fileno()

    def wait_milliseconds(self) -> int | None:
        """How long at most until the next ``record``; None for as long as nothing ends."""
        return _LOOK_MILLISECONDS if self._ended else None

    def watch(self, container_id: str, run_dir: Path, pidfd: int = -1) -> None:
        """Watch the container's first process, if it runs and is not watched yet.

        A ``pidfd`` that is known to be its own, and stays the caller's, shows an end that is past, too.
        """
        if container_id in self._watched:
            return
        try:
            init = Init.read(run_dir)
            if init is None:
                return
            known = pidfd >= 0
            pidfd = os.dup(pidfd) if known else os.pidfd_open(init.pid)
        except ProcessLookupError:
            return
        except (OSError, ValueError, KeyError) as error:
            log.error("container %s: watch its process: %s", container_id[:12], error)
            return
        if not known and process_start(init.pid) != init.start_ticks:  # another process has its number by now
            os.close(pidfd)
            return
        self._watched[container_id] = pidfd, init, run_dir
        self._epoll.register(pidfd, select.EPOLLIN | select.EPOLLONESHOT)

    def forget(self, container_id: str) -> None:
        """Watch it no more."""
        self._ended.pop(container_id, None)
        if container_id in self._watched:
            pidfd, _, _ = self._watched.pop(container_id)
            self._epoll.unregister(pidfd)  # others may have it open, and would keep it registered
            os.close(pidfd)

    def record(self) -> None:
        """Record the ends that can be told by now; never waits."""
        fresh = {fd for fd, _ in self._epoll.poll(0)}
        now = time.monotonic()
        for container_id, (pidfd, init, run_dir) in list(self._watched.items()):
            if pidfd in fresh:
                self._ended[container_id] = now + _REAP_SECONDS
            if container_id not in self._ended:
                continue
            status = exit_status_of(pidfd)
            if status is None:
                status = zombie_status(init.pid, init.start_ticks)
            if status is not None:
                with contextlib.suppress(
                    FileNotFoundError
                ):  # its run directory is gone, and so is the interest
                    Waited(init.pid, status, time.time_ns()).write(run_dir)
            if status is not None or now > self._ended[container_id]:
                self.forget(container_id)
