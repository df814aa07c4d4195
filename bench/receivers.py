"""Sinks that read and forget, in a process of their own: UDP, TCP and what stands at journald's socket.

journald's socket has a fixed path, so a measurement that wants one runs in a mount namespace of its own
(``in_own_mounts``), in which the host's journald, if there is one, is not to be seen.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Receivers", "in_own_mounts", "own_root", "receivers"]

_JOURNALD = Path("/run/systemd/journal")
_MARK = "BENCH_OWN_MOUNTS"


def in_own_mounts(module: str, arguments: Sequence[str]) -> None:
    """Go on in a mount namespace of our own with an empty directory for journald's socket."""
    if _MARK in os.environ:
        _JOURNALD.parent.mkdir(exist_ok=True)
        place = _JOURNALD if _JOURNALD.is_dir() else _JOURNALD.parent
        subprocess.run(["mount", "-t", "tmpfs", "bench", place], check=True)
        _JOURNALD.mkdir(exist_ok=True)
        return
    os.environ[_MARK] = "1"
    os.execvp("unshare", ["unshare", "-m", sys.executable, "-m", module, *arguments])


@contextlib.contextmanager
def own_root() -> Iterator[Path]:
    """A directory for ``engines``, with a tmpfs for what belongs in /run. Only ``in_own_mounts``."""
    root = Path(tempfile.mkdtemp(prefix="tb", dir="/tmp"))
    (root / "run").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "bench", root / "run"], check=True)
    try:
        yield root
    finally:
        subprocess.run(["umount", "-l", root / "run"], check=False)
        shutil.rmtree(root, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Receivers:
    """Where they listen."""

    udp: str  #: ``udp://HOST:PORT``
    tcp: str  #: ``HOST:PORT``
    _taken: ctypes.Array[ctypes.c_longlong]

    def taken(self) -> tuple[int, int]:
        """Datagrams (UDP and journald) and bytes over TCP that arrived so far."""
        datagrams, size = self._taken
        return datagrams, size


@contextlib.contextmanager
def receivers() -> Iterator[Receivers]:
    """The process, and journald's socket if there is a directory for it."""
    with contextlib.ExitStack() as stack:
        udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        udp.bind(("127.0.0.1", 0))
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=1024))
        datagrams = [udp]
        if _MARK in os.environ:
            journald = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            journald.bind(str(_JOURNALD / "socket"))
            datagrams.append(journald)
        context = multiprocessing.get_context("fork")
        taken = context.RawArray(ctypes.c_longlong, 2)
        child = context.Process(target=_serve, args=(datagrams, tcp, taken), daemon=True)
        child.start()
        try:
            yield Receivers(
                f"udp://127.0.0.1:{udp.getsockname()[1]}", f"127.0.0.1:{tcp.getsockname()[1]}", taken
            )
        finally:
            child.terminate()
            child.join()


def _serve(
    datagrams: Sequence[socket.socket], tcp: socket.socket, taken: ctypes.Array[ctypes.c_longlong]
) -> None:
    for sock in datagrams:
        threading.Thread(target=_drain, args=(sock, taken), daemon=True).start()
    while True:
        connection, _ = tcp.accept()
        threading.Thread(target=_drain_connection, args=(connection, taken), daemon=True).start()


def _drain(sock: socket.socket, taken: ctypes.Array[ctypes.c_longlong]) -> None:
    buffer = bytearray(1 << 16)
    while sock.recv_into(buffer) >= 0:
        taken[0] += 1


def _drain_connection(connection: socket.socket, taken: ctypes.Array[ctypes.c_longlong]) -> None:
    buffer = bytearray(1 << 20)
    with connection, contextlib.suppress(OSError):
        while size := connection.recv_into(buffer):
            taken[1] += size
