"""A parked shim: what stands for the shim of a quiet container, and has written to almost none of its memory.

A shim that has had nothing to do for a while hands its descriptors to the template, which forks a process that
only waits on them, and leaves. With the first byte, request or exit that process is the shim: it takes over as
the successor of a killed shim does, from what the run directory and the journal hold. Nothing is read before.
"""

from __future__ import annotations

import ctypes
import logging
import os
import select
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.shim.control import ControlServer
from runtime.shim.messages import TEMPLATE_SOCKET, connect, receive, send
from runtime.shim.spec import ShimSpec

__all__ = [
    "MOST_CONNECTIONS",
    "Parked",
    "after_fork",
    "close_all_but",
    "fork",
    "leave",
    "let_go",
    "longer",
    "look_like_a_shim",
]

log = logging.getLogger(__name__)

#: More than the engine's own connection, and one that is just being made, are a reason to stay.
MOST_CONNECTIONS = 2
#: A shim that was woken soon is not parked again so soon.
_SOON_SECONDS = 60.0
_LONGEST_SECONDS = 600.0
_ANSWER_SECONDS = 2.0
_GO = b"g"
_SIGTERM = 15

_python = ctypes.PyDLL(None)


@dataclass(slots=True)
class Parked:
    """What a shim leaves to the process that is parked in its place. The order of ``fds`` is that of the fields."""

    go: int  #: a pipe: one byte once the shim is as good as gone; its end without one calls all off
    lock: int
    listener: int
    pidfd: int  #: the container's first process
    outputs: tuple[int, ...]  #: our ends of its pipes, which keep an end of file from showing
    connections: tuple[int, ...]
    watching: tuple[bool, ...]  #: which of the connections get events
    seconds: float  #: how quiet it has to be before it is parked again
    since: float = 0.0

    @classmethod
    def of(cls, fds: Sequence[int], outputs: int, watching: Sequence[bool], seconds: float) -> Parked:
        """From descriptors as they came. Raises ValueError if their number does not fit."""
        if len(fds) != 4 + outputs + len(watching):
            raise ValueError(f"{len(fds)} descriptors, expected {4 + outputs + len(watching)}")
        go, lock, listener, pidfd, *rest = fds
        ours, theirs = tuple(rest[:outputs]), tuple(rest[outputs:])
        return cls(go, lock, listener, pidfd, ours, theirs, tuple(watching), seconds)

    @property
    def fds(self) -> tuple[int, ...]:
        """All descriptors."""
        return (self.go, self.lock, self.listener, self.pidfd, *self.outputs, *self.connections)

    def wait(self) -> bool:
        """Until something is there to do; False if the shim stays, or was killed before it had handed over."""
        if os.read(self.go, 1) != _GO:
            return False
        self.since = time.monotonic()
        poll = select.poll()
        for fd in (self.listener, self.pidfd, *self.outputs, *self.connections):
            poll.register(fd, select.POLLIN)
        poll.poll()
        return True

    def wake(self) -> float:
        """Returns how quiet the shim is to be before it is parked again."""
        os.close(self.go)
        if time.monotonic() - self.since < _SOON_SECONDS:
            return longer(self.seconds)
        return self.seconds


def let_go(outputs: Sequence[int]) -> None:
    """Close our ends of the pipes; not before others are open: nobody else need have them, and what is in them."""
    for fd in outputs:
        os.close(fd)


def longer(seconds: float) -> float:
    """The next quiet time after one that was not worth it."""
    return min(2 * seconds, _LONGEST_SECONDS)


def leave(
    spec: ShimSpec, template_dir: Path, server: ControlServer, parked: Parked, started: dict[str, Any]
) -> None:
    """Have a process parked in our place and end; if that fails it is logged, and nothing has happened.

    ``started`` is the event that tells who watches of the process that is there for the container now.
    """
    try:
        pid, go = _park(spec, template_dir, parked)
    except (OSError, ValueError) as error:
        log.warning("container %s: park its shim: %s", spec.container_id[:12], error)
        return
    server.tell({**started, "shim_pid": pid})
    if any(connection.queued for connection in server.connections):
        os.close(go)  # which has the process leave
        return
    os.write(go, _GO)
    os._exit(0)


def _park(spec: ShimSpec, template_dir: Path, parked: Parked) -> tuple[int, int]:
    """Have the template fork the process that waits: its pid, and the descriptor to write ``go`` to.

    Raises OSError, and ValueError if the template refuses. A process that was forked nevertheless leaves.
    """
    message = {
        "op": "park",
        "spec": spec.to_json(),
        "outputs": len(parked.outputs),
        "watching": list(parked.watching),
        "seconds": parked.seconds,
    }
    read, write = os.pipe2(os.O_CLOEXEC)
    parked.go = read
    try:
        with connect(template_dir, TEMPLATE_SOCKET) as sock:
            sock.settimeout(_ANSWER_SECONDS)
            send(sock, message, parked.fds)
            answer, _ = receive(sock)
        if "error" in answer:
            raise ValueError(answer["error"])
        return int(answer["pid"]), write
    except BaseException:
        os.close(write)
        raise
    finally:
        os.close(read)


def fork() -> int:
    """``fork`` without Python's own work after it, which writes to many pages; ``after_fork`` makes up for it.

    For a process without threads, whose child first of all waits.
    """
    pid = int(_python.fork())
    if pid < 0:
        raise OSError("fork failed")
    return pid


def after_fork() -> None:
    """What Python does in a forked child: locks, random numbers, hooks. Signals wake up nobody any more."""
    signal.set_wakeup_fd(-1)
    _python.PyOS_AfterFork_Child()


def close_all_but(keep: Sequence[int], limit: int) -> None:
    """Close every descriptor from 3 up to ``limit`` that is not in ``keep``."""
    first = 3
    for fd in sorted(keep):
        os.closerange(first, fd)
        first = fd + 1
    os.closerange(first, limit)


def look_like_a_shim(name: str) -> None:
    """Have this name for ``ps``, and die of SIGTERM. Python is not told of the latter, which costs a dozen pages."""
    fd = os.open("/proc/self/comm", os.O_WRONLY)
    os.write(fd, name.encode())
    os.close(fd)
    _python.signal(_SIGTERM, None)
