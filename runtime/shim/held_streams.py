"""What the engine keeps open of a container: its outputs, and its terminal where it has one.

With them shim and template may die at once, and nothing that the container wrote is gone. The template does
the same in ``runtime/shim/template.py``; reading is the shim's alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket

from runtime.shim import streams
from runtime.shim.control_connection import ANSWER_SECONDS
from runtime.shim.messages import SHIM_SOCKET, connect, encode_line
from runtime.shim.spec import ShimSpec

__all__ = ["HeldStreams"]


class HeldStreams:
    """The streams of one container, once they are open."""

    def __init__(self, spec: ShimSpec) -> None:
        self._spec = spec
        self._fds: dict[str, int] = {}

    def open(self) -> None:
        """Open the FIFOs, if nothing is open yet."""
        if not self._fds:
            self._fds = streams.hold(self._spec)
            stdin = self._fds.pop("stdin", None)  # to hold it would keep it from ending
            if stdin is not None:
                os.close(stdin)

    @property
    def terminal(self) -> list[int]:
        """The descriptor of the terminal, to send along; empty without one."""
        return [self._fds["tty"]] if "tty" in self._fds else []

    async def take_terminal(self) -> None:
        """Have the shim send the container's terminal, if it has one; one that is held already stays."""
        if self._spec.tty and not self.terminal:
            with contextlib.suppress(OSError):
                self._fds["tty"] = await asyncio.to_thread(self._ask_terminal)

    def _ask_terminal(self) -> int:
        with connect(self._spec.run_dir, SHIM_SOCKET) as sock:
            sock.settimeout(ANSWER_SECONDS)
            sock.sendall(encode_line({"op": "tty"}))
            _data, fds, _flags, _address = socket.recv_fds(sock, 4096, 1)
        if not fds:
            raise OSError("the shim sent no terminal")
        os.set_inheritable(fds[0], False)
        return fds[0]

    def close(self) -> None:
        """Let go of all of them."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()
