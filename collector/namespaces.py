"""Entering network namespaces: a thread is in one, and what it opens there belongs to it.

``in_namespace`` uses a thread that ends there; a thread that goes in and comes back itself uses ``enter``
(``lanes/inside.py``). Nothing here keeps a namespace alive.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from typing import TypeVar

__all__ = ["enter", "in_namespace"]

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)

_T = TypeVar("_T")


def enter(fd: int) -> None:
    """Put the calling thread into the network namespace behind a descriptor. Raises OSError."""
    if _libc.setns(fd, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"cannot enter the network namespace (setns): {os.strerror(number)}")


def in_namespace(directory: int, read: Callable[[], _T]) -> _T:
    """Call ``read`` inside the network namespace of the process behind a descriptor of its ``/proc/PID``.

    Raises OSError when the process is gone or we may not enter, and whatever ``read`` raises.
    """
    results: list[_T] = []
    failed: list[Exception] = []

    def inside() -> None:
        try:
            fd = os.open("ns/net", os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
            try:
                enter(fd)
            finally:
                os.close(fd)
            results.append(read())
        except Exception as error:  # noqa: BLE001  # raised again below, in the thread that asked
            failed.append(error)

    thread = threading.Thread(target=inside, name="namespace")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return results[0]
