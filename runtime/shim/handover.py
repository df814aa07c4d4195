"""What one template keeps for containers, taken over by the engine while another takes its place.

Descriptors are duplicated out of the living template, whatever its build: streams by where its links lead,
terminals by the containers' own ends of them. How a template is replaced is ``template_client``'s business.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import logging
import os
import select
import signal
import struct
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from runtime.shim.exit_status import Init
from runtime.shim.linux import process_start

__all__ = ["INIT", "Kept", "end", "take"]

log = logging.getLogger(__name__)

#: The name among what is kept of the pidfd of the container's first process.
INIT = "init"
_STREAMS = ("stdin", "stdout", "stderr")
_PTMX = os.makedev(5, 2)  # Documentation/admin-guide/devices.txt
_TIOCGPTN = 0x80045430  # asm-generic/ioctls.h
_PIDFD_GETFD = 438  # the same number on every architecture
_END_SECONDS = 10.0

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Kept:
    """Our descriptors of what is kept for one container, by name: streams, ``tty``, ``init``."""

    container_id: str
    run_dir: Path
    fds: dict[str, int]

    def close(self) -> None:
        """Let go of it."""
        for fd in self.fds.values():
            os.close(fd)


def take(pid: int, pidfd: int, containers: Collection[str]) -> list[Kept]:
    """What the template with this pid keeps for these containers. What cannot be taken is logged."""
    found: dict[str, Kept] = {}
    terminals = []
    try:
        entries = list(Path(f"/proc/{pid}/fd").iterdir())
    except OSError as error:
        log.warning("take over what template %d keeps: %s", pid, error)
        return []
    for entry in entries:
        try:
            path = entry.readlink()
            run_dir = path.parents[1] if len(path.parts) > 2 else path
            if path.name in _STREAMS and run_dir.name in containers:
                one = found.setdefault(run_dir.name, Kept(run_dir.name, run_dir, {}))
                if path.name not in one.fds:
                    one.fds[path.name] = _duplicate(pidfd, int(entry.name))
            elif entry.stat().st_rdev == _PTMX:
                terminals.append(_duplicate(pidfd, int(entry.name)))
        except OSError as error:
            log.warning("take over descriptor %s of template %d: %s", entry.name, pid, error)
    for one in found.values():
        _take_process(one, terminals)
    for fd in terminals:
        os.close(fd)
    return list(found.values())


def end(pidfd: int) -> None:
    """Wait until a process that was asked to end has; after ten seconds it is killed."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    if not poll.poll(_END_SECONDS * 1000):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        poll.poll(_END_SECONDS * 1000)


def _take_process(kept: Kept, terminals: list[int]) -> None:
    """The container's first process and its terminal, if it has one of these."""
    try:
        init = Init.read(kept.run_dir)
        if init is None:
            return
        pidfd = os.pidfd_open(init.pid)
        if process_start(init.pid) != init.start_ticks:  # another process has its number by now
            os.close(pidfd)
            return
        kept.fds[INIT] = pidfd
        for number in range(3):
            theirs = Path(f"/proc/{init.pid}/fd/{number}").stat()
            for fd in terminals:
                same = os.fstat(fd).st_dev == theirs.st_dev and _index(fd) == os.minor(theirs.st_rdev)
                if same and "tty" not in kept.fds:
                    kept.fds["tty"] = os.dup(fd)
    except (FileNotFoundError, ProcessLookupError):
        return
    except (OSError, ValueError, KeyError) as error:
        log.warning("container %s: take over its process and terminal: %s", kept.container_id[:12], error)


def _index(master: int) -> int:
    """The number of the terminal of a master."""
    return int(struct.unpack("I", fcntl.ioctl(master, _TIOCGPTN, b"\0\0\0\0"))[0])


def _duplicate(pidfd: int, fd: int) -> int:
    """A descriptor of another process (pidfd_getfd(2), Linux 5.6 and later)."""
    made = int(_libc.syscall(_PIDFD_GETFD, pidfd, fd, 0))
    if made < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"pidfd_getfd: {os.strerror(number or errno.EIO)}")
    return made
