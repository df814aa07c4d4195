"""Waits for an engine's socket to be made, by the kernel's events on the directories above it.

An engine that is not there costs nothing until it is started. Connecting is ``engine_api.py``'s.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from logdrivers.inotify import CREATE, ENDED, MOVED_TO, OVERFLOW, Watch

__all__ = ["Identity", "identity", "socket_changed"]

#: Which file is at a path; None for none.
Identity = tuple[int, int, int] | None


def identity(path: Path) -> Identity:
    """Device, inode and time of change of what is at a path: another one after an engine was restarted."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_ctime_ns


async def socket_changed(path: Path, before: Identity, seconds: float) -> bool:
    """Wait until another file than ``before`` is at the path, at most so long; whether one is.

    Raises OSError when the directories above it cannot be watched.
    """
    try:
        async with asyncio.timeout(seconds):
            while identity(path) in (before, None):
                if not await _step(path, before):
                    break
    except TimeoutError:
        pass
    return identity(path) not in (before, None)


async def _step(path: Path, before: Identity) -> bool:
    """Wait for something to be made in the nearest directory above the path that exists."""
    directory = path.parent
    wanted = path.name
    while not directory.is_dir() and directory != directory.parent:
        directory, wanted = directory.parent, directory.name
    notify = Watch(ends=True)
    loop = asyncio.get_running_loop()
    woken = asyncio.Event()
    try:
        notify.add(directory, CREATE | MOVED_TO, directory=True)
        # What was made before the watch was there is seen now, the rest is told.
        if identity(path) not in (before, None) or (wanted != path.name and (directory / wanted).exists()):
            return True
        loop.add_reader(notify.fileno(), woken.set)
        while True:
            await woken.wait()
            woken.clear()
            if any(name == wanted or mask & (OVERFLOW | ENDED) for _, mask, name in notify.read()):
                return True  # or it may have been among what was not told: look again
    finally:
        loop.remove_reader(notify.fileno())
        notify.close()
