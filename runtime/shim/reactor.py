"""A small epoll loop for a shim: descriptors with callbacks, and nothing else.

asyncio would cost each shim memory and each wake-up time; a shim has a handful of descriptors.
"""

from __future__ import annotations

import select
from collections.abc import Callable

__all__ = ["READ", "WRITE", "Reactor"]

READ = select.EPOLLIN
WRITE = select.EPOLLOUT

Callback = Callable[[int], None]


class Reactor:
    """Calls ``callback(events)`` for each ready descriptor. One thread."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callback] = {}

    def watch(self, fd: int, events: int, callback: Callback) -> None:
        """Start watching a descriptor; with ``events`` 0 only for hang-ups and errors."""
        self._callbacks[fd] = callback
        self._epoll.register(fd, events)

    def change(self, fd: int, events: int) -> None:
        """Watch for other events."""
        self._epoll.modify(fd, events)

    def forget(self, fd: int) -> None:
        """Stop watching; call before the descriptor is closed."""
        if self._callbacks.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def close(self) -> None:
        """Watch nothing any more; the descriptors stay open."""
        self._callbacks.clear()
        self._epoll.close()

    def poll(self, seconds: float | None) -> bool:
        """Wait at most so long (None: for ever) and call what is ready; whether anything was."""
        ready = self._epoll.poll(seconds)
        for fd, events in ready:
            callback = self._callbacks.get(fd)
            if callback is not None:
                callback(events)
        return bool(ready)
