"""How a forked process becomes a container's shim: its session, its log, its place, its lock.

What is the same for one that starts a container, one that succeeds a shim that was killed, and one that was
parked. What a shim then does is in ``runtime/shim/process.py``, what comes before, in the template.
"""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import time
from pathlib import Path

from logdrivers.driver import OptionError
from runtime.shim.linux import set_child_subreaper, set_process_name
from runtime.shim.messages import LOG_DRIVER_FAILED, encode_line
from runtime.shim.parking import Parked
from runtime.shim.process import Shim
from runtime.shim.spec import ShimSpec

__all__ = ["LOCK_FILE", "resume_shim", "run_shim"]

log = logging.getLogger(__name__)


LOCK_FILE = "shim.lock"
_LOCK_SECONDS = 20.0


def run_shim(spec: ShimSpec, mode: str, control: socket.socket, tty: int | None, template_dir: Path) -> None:
    """Be the shim of a container until it has ended: the whole life of the forked process.

    ``mode`` is ``run`` or ``adopt``; ``control`` is the engine's end of a socket pair, ``tty`` the terminal
    that a predecessor had. Returns when there is nothing left to do.
    """
    os.setsid()
    _log_to(spec.run_dir)
    os.chdir(spec.run_dir)
    set_process_name(f"shim:{spec.container_id[:10]}")
    set_child_subreaper()
    lock = _lock()
    try:
        shim = Shim(spec, control, tty, template_dir)
    except (OptionError, OSError, ValueError) as error:
        log.exception("container %s: open its journal", spec.container_id[:12])
        if mode == "run":  # a successor is tried again, and again
            what = LOG_DRIVER_FAILED if isinstance(error, OptionError) else ""
            control.sendall(encode_line({"event": "failed", "message": what + str(error)}))
        return
    shim.lock = lock
    shim.live(mode)


def resume_shim(spec: ShimSpec, parked: Parked, template_dir: Path) -> None:
    """Be the shim from now on, in a process that was parked as one. Its lock is held, its sockets are open."""
    _log_to(spec.run_dir)
    os.chdir(spec.run_dir)
    set_child_subreaper()
    Shim(spec, None, None, template_dir, parked).live("adopt")


def _log_to(run_dir: Path) -> None:
    fd = os.open(run_dir / "shim.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.dup2(null, 0)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(fd)
    os.close(null)


def _lock() -> int:
    """Be the only shim of the container; a predecessor that is being killed gets time to go."""
    fd = os.open(LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.002)
