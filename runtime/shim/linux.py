"""The few Linux calls that Python's ``os`` lacks: prctl, bytes in a pipe, exit status by pidfd.

Each is one thin function over libc or one ioctl; every error is an OSError with the kernel's number.
What they are used for is the business of the shim and the template.
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import os
import struct
from collections.abc import Iterator
from pathlib import Path

__all__ = [
    "dead_children",
    "die_with_parent",
    "exit_status_of",
    "one_heap",
    "pipe_pending",
    "process_start",
    "set_child_subreaper",
    "set_process_name",
    "tells_exits",
    "trim_heap",
    "zombie_status",
]

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_FIONREAD = 0x541B
_M_ARENA_MAX = -8  # malloc.h
_SIGKILL = 9
#: ``_IOWR(0xFF, 11, struct pidfd_info)`` with the 64-byte first version of the structure (linux/pidfd.h).
_PIDFD_GET_INFO = 0xC040FF0B
_PIDFD_INFO_EXIT = 1 << 3
_PIDFD_INFO_EXIT_CODE_OFFSET = 60

_libc = ctypes.CDLL(None, use_errno=True)
_libc.prctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong]


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")


def set_child_subreaper() -> None:
    """Become the parent of every orphan among this process's descendants."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent() -> None:
    """Have the kernel SIGKILL this process when the thread that forked it ends."""
    _prctl(_PR_SET_PDEATHSIG, _SIGKILL)


def set_process_name(name: str) -> None:
    """Set what ``ps -o comm`` shows (15 bytes at most; the rest is cut)."""
    text = ctypes.create_string_buffer(name.encode()[:15])
    _prctl(_PR_SET_NAME, ctypes.addressof(text))


def one_heap() -> None:
    """Have all threads allocate from one heap, so that what one frees the others use (glibc only).

    Call it before there are threads; what is forked keeps to it.
    """
    option = getattr(_libc, "mallopt", None)
    if option is not None:
        option(_M_ARENA_MAX, 1)


def trim_heap() -> None:
    """Give free heap pages back to the kernel (glibc; elsewhere nothing happens)."""
    trim = getattr(_libc, "malloc_trim", None)
    if trim is not None:
        trim(0)


def pipe_pending(fd: int) -> int:
    """Bytes that wait in the pipe."""
    return int(struct.unpack("i", fcntl.ioctl(fd, _FIONREAD, b"\0\0\0\0"))[0])


def dead_children() -> Iterator[os.waitid_result]:
    """Children that have ended, one after the other until there is no more; the caller reaps each (``waitpid``)."""
    while True:
        try:
            child = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if child is None:
            return
        yield child


def process_start(pid: int, proc: Path = Path("/proc")) -> int | None:
    """Start time of a process in clock ticks since boot, which with the pid names it for good.

    Field 22 of ``/proc/PID/stat``; None if there is no such process.
    """
    try:
        text = (proc / str(pid) / "stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(text[text.rindex(b")") + 2 :].split()[19])


def exit_status_of(pidfd: int) -> int | None:
    """Wait status of a process that has been reaped, by whomever; None if the kernel cannot say.

    Linux 6.15 and later keep it for those who hold a pidfd (``PIDFD_GET_INFO``).
    """
    request = struct.pack("Q", _PIDFD_INFO_EXIT).ljust(64, b"\0")
    try:
        answer = fcntl.ioctl(pidfd, _PIDFD_GET_INFO, request)
    except OSError:
        return None
    (mask,) = struct.unpack_from("Q", answer)
    if not mask & _PIDFD_INFO_EXIT:
        return None
    return int(struct.unpack_from("i", answer, _PIDFD_INFO_EXIT_CODE_OFFSET)[0])


@functools.cache
def tells_exits() -> bool:
    """Whether the kernel tells by pidfd how a process ended that has been reaped: tried once, with a real one.

    What is forked afterwards knows it from the first. For a process without threads; it waits for its child.
    """
    code = 7
    pid = os.fork()
    if pid == 0:
        os._exit(code)
    try:
        pidfd = os.pidfd_open(pid)
    finally:
        os.waitpid(pid, 0)
    try:
        return exit_status_of(pidfd) == code << 8
    finally:
        os.close(pidfd)


def zombie_status(pid: int, start_ticks: int, proc: Path = Path("/proc")) -> int | None:
    """Wait status of a process that has ended and has not been reaped; None if it runs or is gone.

    Field 52 of ``/proc/PID/stat``, which the kernel shows to who may trace the process.
    """
    try:
        text = (proc / str(pid) / "stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text[text.rindex(b")") + 2 :].split()
    return int(fields[49]) if fields[0] == b"Z" and int(fields[19]) == start_ticks else None
