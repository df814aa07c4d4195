"""A container's stdin, stdout and stderr as named FIFOs in its run directory.

The container's own descriptors for stdout and stderr are opened for reading and writing, so that it holds a
reader itself: no death of ours ends the stream or gives it SIGPIPE, and a new shim opens them again by path.
Who reads and writes them is the business of the shim.
"""

from __future__ import annotations

import errno
import os

from logdrivers.source.spool import set_pipe_size
from runtime.shim.spec import ShimSpec

__all__ = [
    "OUTPUTS",
    "hold",
    "make",
    "mark_stdin_closed",
    "open_child_end",
    "open_shim_end",
    "stdin_closed",
    "unheld",
]

OUTPUTS = ("stdout", "stderr")

_STDIN_CLOSED = "stdin.closed"


def names(spec: ShimSpec) -> tuple[str, ...]:
    """The FIFOs the container has. A terminal's output goes through the stdout FIFO."""
    if spec.tty:
        return ("stdout",)
    return (*OUTPUTS, "stdin") if spec.open_stdin else OUTPUTS


def make(spec: ShimSpec) -> None:
    """Make the FIFOs afresh, owned by the container's user so that it can open /dev/stdout again."""
    directory = spec.run_dir / "io"
    directory.mkdir(mode=0o711, parents=True, exist_ok=True)
    for name in (*OUTPUTS, "stdin", _STDIN_CLOSED):
        spec.stream_path(name).unlink(missing_ok=True)
    for name in names(spec):
        path = spec.stream_path(name)
        os.mkfifo(path, 0o600)
        os.chown(path, spec.uid, spec.gid)


def hold(spec: ShimSpec) -> dict[str, int]:
    """Descriptors that keep what is in the FIFOs while nobody else has them open.

    For output a reading end, which does not hide the end of the stream from a reader; for stdin both.
    """
    held = {}
    for name in names(spec):
        if name == "stdin" and stdin_closed(spec):
            continue
        flags = os.O_RDWR if name == "stdin" else os.O_RDONLY
        try:
            held[name] = os.open(spec.stream_path(name), flags | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
    return held


def unheld(spec: ShimSpec) -> list[str]:
    """The outputs that nobody has open to read: what was in them went with the last who had."""
    found = []
    for name in names(spec):
        if name == "stdin":
            continue
        try:
            os.close(os.open(spec.stream_path(name), os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno != errno.ENXIO:  # what opening a FIFO without a reader says
                raise
            found.append(name)
    return found


def stdin_closed(spec: ShimSpec) -> bool:
    """Whether the container's stdin was ended on purpose: then nobody opens it again."""
    return spec.stream_path(_STDIN_CLOSED).exists()


def mark_stdin_closed(spec: ShimSpec) -> None:
    """Record that."""
    spec.stream_path(_STDIN_CLOSED).touch()


def open_shim_end(spec: ShimSpec, name: str, *, running: bool = True) -> int:
    """The shim's end. While the container is ``running`` it is a writer too, so end of file cannot show."""
    flags = os.O_RDWR if running else os.O_RDONLY
    fd = os.open(spec.stream_path(name), flags | os.O_NONBLOCK | os.O_CLOEXEC)
    if running and name != "stdin":
        set_pipe_size(fd, spec.pipe_bytes)
    return fd


def open_child_end(spec: ShimSpec, name: str) -> int:
    """The container's end, blocking: stdin to read only, so that it ends when the writers leave."""
    flags = os.O_RDONLY if name == "stdin" else os.O_RDWR
    return os.open(spec.stream_path(name), flags | os.O_CLOEXEC)
