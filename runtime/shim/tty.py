"""A container's terminal: the console socket that runc sends the master end over, and its size."""

from __future__ import annotations

import array
import fcntl
import os
import socket
import struct
import termios
from pathlib import Path

__all__ = ["ConsoleSocket", "resize"]

_RECEIVE_SECONDS = 10.0


class ConsoleSocket:
    """A listening socket for ``--console-socket``; a context manager that removes it again."""

    def __init__(self, directory: Path, name: str = "console.sock") -> None:
        self._directory = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._name = name
        self._real = directory / name
        self._real.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(f"/proc/self/fd/{self._directory}/{name}")
        self._listener.listen(1)
        self._listener.settimeout(_RECEIVE_SECONDS)

    @property
    def path(self) -> Path:
        """What to tell runc. Short, whatever the directory, for as long as this object lives."""
        return Path(f"/proc/{os.getpid()}/fd/{self._directory}/{self._name}")

    def fileno(self) -> int:
        """The listener's descriptor, readable once runc has connected."""
        return self._listener.fileno()

    def receive(self) -> int:
        """The terminal's master end. Raises OSError (TimeoutError) if runc sends none."""
        connection, _ = self._listener.accept()
        with connection:
            connection.settimeout(_RECEIVE_SECONDS)
            _name, ancillary, _flags, _address = connection.recvmsg(4096, socket.CMSG_SPACE(4))
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                master = array.array("i", data[:4])[0]
                os.set_inheritable(master, False)
                os.set_blocking(master, False)
                return master
        raise OSError("the runtime connected to the console socket and sent no terminal")

    def close(self) -> None:
        """Stop listening and remove the socket."""
        self._listener.close()
        self._real.unlink(missing_ok=True)
        os.close(self._directory)

    def __enter__(self) -> ConsoleSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def resize(master: int, height: int, width: int) -> None:
    """Set a terminal's size in characters."""
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
