"""When to read the containers' FIFOs: one thread, at once when lines trickle, in large reads under load.

After a quiet time the first bytes are taken at once; while more keep coming a FIFO is looked at every few
milliseconds, so that a wake-up costs a block and not a line. What becomes of the bytes is the container's
business.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import threading
import time

from logdrivers.plugin.container import PluginContainer

__all__ = ["Pump"]

log = logging.getLogger(__name__)

_HOT_SECONDS = 0.005
_BUSY_BYTES = 1 << 18
_ARMED = select.EPOLLIN | select.EPOLLONESHOT


class Pump:
    """Reads every container that is added until it has ended."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._added: list[PluginContainer] = []
        self._changed = threading.Lock()
        self._armed: dict[int, PluginContainer] = {}
        self._due: dict[PluginContainer, float] = {}
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="plugin pump", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def add(self, container: PluginContainer) -> None:
        """Read this container, now and from now on."""
        with self._changed:
            self._added.append(container)
        os.eventfd_write(self._wake, 1)

    def stop(self) -> None:
        """Stop reading; what is in the FIFOs stays there."""
        self._stopping = True
        os.eventfd_write(self._wake, 1)
        if self._thread.ident is not None:
            self._thread.join()
        self._epoll.close()
        os.close(self._wake)

    # --- the thread

    def _run(self) -> None:
        while not self._stopping:
            for fd, _ in self._epoll.poll(self._wait_seconds()):
                container = self._armed.pop(fd, None)
                if container is not None:
                    self._due[container] = 0.0
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._wake)
            with self._changed:
                added, self._added = self._added, []
            self._due.update((container, 0.0) for container in added)
            now = time.monotonic()
            for container in [c for c, at in self._due.items() if at <= now]:
                self._round(container)

    def _wait_seconds(self) -> float | None:
        if not self._due:
            return None
        return max(0.0, min(self._due.values()) - time.monotonic())

    def _round(self, container: PluginContainer) -> None:
        try:
            moved = container.round()
        except Exception:  # one container's fault must not end the others' reading
            log.exception("reading the output of %s failed; trying again", container.name)
            self._due[container] = time.monotonic() + 1.0
            return
        pause = container.retry_seconds
        if not container.active:
            self._due.pop(container, None)
        elif moved >= _BUSY_BYTES:
            self._due[container] = 0.0
        elif moved or pause:
            self._due[container] = time.monotonic() + max(pause, _HOT_SECONDS)
        else:
            self._arm(container)

    def _arm(self, container: PluginContainer) -> None:
        """Wait for more. The container may have ended or got another FIFO meanwhile, in a request's thread."""
        with container.lock:
            fd = container.fd
            if fd < 0:
                self._due[container] = time.monotonic() + _HOT_SECONDS  # gone by the next round, or trying on
                return
            container.rest()
            self._due.pop(container, None)
            if (due := container.due) is not None:
                self._due[container] = due
            self._armed[fd] = container
            try:
                self._epoll.modify(fd, _ARMED)
            except FileNotFoundError:
                self._epoll.register(fd, _ARMED)
