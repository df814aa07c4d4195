"""The network namespaces of a host: whose they are, their sockets, and whose an address is.

One reading enters every namespace once. Which sockets make which connections is left to
``connections.py`` (for people who ask) and ``graph.py`` (for the map).
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from collector.cgroup.files import read_whole
from collector.container import Container
from collector.discovery.registry import RUNNING, Containers
from collector.namespaces import in_namespace
from collector.processes.sock_diag import InetSocket, addresses, inet_sockets
from collector.sockstat import parse_sockstat, tcp_in_use
from collector.target import is_members

__all__ = ["HOST_NODE", "Space", "Spaces", "is_loopback"]

log = logging.getLogger(__name__)

#: The host's own node, and its id among containers' ids.
HOST_NODE = "/"

_T = TypeVar("_T")

#: Addresses of a namespace are read again after so many seconds.
_ADDRESSES_SECONDS = 60.0


@dataclass(slots=True)
class Space:
    """One network namespace."""

    inode: int
    pid: int  #: a process in it; 0 for the host's, which is ours
    containers: list[Container] = field(default_factory=list)  #: the one it was made for first
    addresses: tuple[str, ...] = ()

    @property
    def owner(self) -> str:
        """Id of the container it was made for, ``HOST_NODE`` for the host."""
        return HOST_NODE if self.pid == 0 else self.containers[0].id


class Spaces:
    """Finds the namespaces of the running containers and of the host. Safe to use from any thread."""

    def __init__(self, containers: Containers, proc: Path) -> None:
        self._containers = containers
        self._proc = proc
        self._lock = threading.Lock()  # several people may ask at once
        self._known: dict[int, tuple[float, tuple[str, ...]]] = {}  # addresses by inode, with their time

    def all(self) -> list[Space]:
        """Every namespace, the host's first, with its addresses."""
        host = Space((self._proc / "self/ns/net").stat().st_ino, 0)
        spaces = {host.inode: host}
        for container in self._containers.all():
            if container.state not in RUNNING or container.pid <= 0:
                continue
            try:
                process = f"{self._proc}/{container.pid}"  # joining paths costs as much as reading
                inode = os.stat(f"{process}/ns/net").st_ino  # noqa: PTH116
                if not is_members(read_whole(process, "cgroup"), container):
                    raise ProcessLookupError(f"process {container.pid} is another one by now")
            except (OSError, ValueError) as error:
                log.debug("no network namespace of container %s: %s", container.name, error)
                continue
            space = spaces.setdefault(inode, Space(inode, container.pid))
            if container.network_mode.startswith("container:"):
                space.containers.append(container)
            else:
                space.containers.insert(0, container)
        with self._lock:
            for space in spaces.values():
                space.addresses = self._addresses(space)
            self._known = {inode: known for inode, known in self._known.items() if inode in spaces}
        return list(spaces.values())

    def inside(self, space: Space, read: Callable[[], _T]) -> _T:
        """Call ``read`` inside the namespace. Raises OSError when it is gone."""
        if space.pid == 0:
            return read()
        directory = os.open(self._proc / str(space.pid), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if os.stat("ns/net", dir_fd=directory).st_ino != space.inode:
                raise ProcessLookupError(f"process {space.pid} is another one by now")
            return in_namespace(directory, read)
        finally:
            os.close(directory)

    def tcp_in_use(self, space: Space) -> int:
        """How many TCP sockets the namespace has, those in TIME_WAIT included, at a tenth of their list's price.

        Raises OSError when it is gone, ValueError on what no kernel writes.
        """
        base = f"{self._proc}/{space.pid or 'self'}/net"
        data = b""
        for name in ("sockstat", "sockstat6"):
            with suppress(FileNotFoundError):  # no IPv6 here
                data += read_whole(base, name)
        return _tcp_in_use(data)

    def sockets(self, space: Space) -> list[InetSocket]:
        """The namespace's TCP and UDP sockets. Raises OSError when it is gone."""
        return self.inside(space, inet_sockets)

    def _addresses(self, space: Space) -> tuple[str, ...]:
        known = self._known.get(space.inode)
        if known is None or time.monotonic() - known[0] > _ADDRESSES_SECONDS or not known[1]:
            try:
                known = time.monotonic(), tuple(self.inside(space, addresses))
            except OSError as error:
                log.debug("no addresses of the namespace of process %d: %s", space.pid, error)
                return ()
            self._known[space.inode] = known
        return known[1]


@lru_cache(maxsize=64)  # namespaces that rest have the same lines
def _tcp_in_use(sockstat: bytes) -> int:
    found = parse_sockstat(sockstat)
    if "TCP" not in found:
        raise ValueError(f"sockstat {sockstat[:40]!r}: expected a line 'TCP:'")
    return tcp_in_use(found)


def is_loopback(address: str) -> bool:
    """Whether an address is its own namespace's alone."""
    return address.startswith("127.") or address == "::1"
