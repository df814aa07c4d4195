"""The sockets of one container or of the host, with the process that holds each and who is at the other end.

Answers one question at a time, for ``taffrail top`` and the API; the map of all is ``graph.py``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from collector.container import Container
from collector.discovery.registry import Containers
from collector.processes.conntrack import Flow, Nat, read_flows
from collector.processes.files import socket_inodes
from collector.processes.members import Members, NotRunning
from collector.processes.sock_diag import InetSocket
from collector.processes.spaces import Space, Spaces, is_loopback

__all__ = ["AddressBook", "Connection", "Connections", "host_flows"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Connection:
    """One TCP or UDP socket."""

    protocol: str
    state: str
    local: str
    local_port: int
    remote: str  #: as the socket shows it; ``0.0.0.0`` or ``::`` for LISTEN
    remote_port: int
    remote_name: str  #: the container or ``host`` there, "" outside or unknown
    remote_id: str  #: id of that container, ``/`` for the host
    translated: str  #: the true remote ``address:port`` where NAT hides it, else ""
    receive_queue: int
    send_queue: int
    bytes_sent: int | None
    bytes_received: int | None
    inode: int
    pid: int  #: 0 where no process holds it (TIME_WAIT) or it could not be found
    process: str


class AddressBook:
    """Whose an address is, seen from a namespace."""

    def __init__(self, spaces: Sequence[Space]) -> None:
        self._owners: dict[str, Space] = {}
        for space in reversed(spaces):  # the host, first of them, keeps what several claim
            self._owners.update(dict.fromkeys(space.addresses, space))

    def find(self, address: str, seen_from: Space) -> Space | None:
        """The namespace with that address, None for one outside this host."""
        return seen_from if is_loopback(address) else self._owners.get(address)


def host_flows(proc: Path) -> tuple[list[Flow], int]:
    """``read_flows``; nothing, said in the log, where the kernel does not track or we may not read."""
    try:
        return read_flows(proc)
    except OSError as error:
        log.debug("no connection tracking, translated addresses stay as they are: %s", error)
        return [], 0


class Connections:
    """Reads on demand. Safe to use from any thread; callers keep it off the event loop."""

    def __init__(self, containers: Containers, members: Members, proc: Path) -> None:
        self.spaces = Spaces(containers, proc)
        self._members = members
        self._proc = proc

    def of_container(self, container: Container) -> list[Connection]:
        """The sockets of a container: its namespace's, or those its processes hold in a shared one.

        Raises NotRunning for a container without processes, OSError where its namespace cannot be entered.
        """
        pids = self._members.pids(container)
        spaces = self.spaces.all()
        for space in spaces:
            if any(member.id == container.id for member in space.containers):
                break
        else:
            raise NotRunning(f"container {container.name} has no process whose network could be read")
        owners = socket_inodes(self._proc, pids)
        members = self._members.still(container, owners.values())
        owners = {inode: pid for inode, pid in owners.items() if pid in members}
        shared = space.pid == 0 or len(space.containers) > 1
        sockets = self.spaces.sockets(space)
        if shared:
            sockets = [opened for opened in sockets if opened.inode in owners]
        return self._rows(space, sockets, owners, spaces)

    def of_host(self) -> list[Connection]:
        """The sockets of the host's own namespace, those of containers on its network included."""
        spaces = self.spaces.all()
        owners = socket_inodes(self._proc, self._members.host_pids())
        return self._rows(spaces[0], self.spaces.sockets(spaces[0]), owners, spaces)

    def _rows(
        self, space: Space, sockets: Sequence[InetSocket], owners: Mapping[int, int], spaces: Sequence[Space]
    ) -> list[Connection]:
        book = AddressBook(spaces)
        nat = Nat(host_flows(self._proc)[0])
        names: dict[int, str] = {}
        rows = []
        for opened in sockets:
            pid = owners.get(opened.inode, 0) if opened.inode else 0
            if pid and pid not in names:
                names[pid] = self._name(pid)
            ends = opened.local, opened.local_port, opened.remote, opened.remote_port
            address, port = nat.remote(opened.protocol, *ends)
            # Addresses are translated on the host: a loopback one behind a translation is the host's.
            seen_from = space if (address, port) == ends[2:] else spaces[0]
            there = book.find(address, seen_from) if opened.remote_port else None
            rows.append(
                Connection(
                    opened.protocol,
                    opened.state,
                    *ends,
                    _node_name(there),
                    there.owner if there else "",
                    f"{address}:{port}" if (address, port) != ends[2:] else "",
                    opened.receive_queue,
                    opened.send_queue,
                    opened.bytes_sent,
                    opened.bytes_received,
                    opened.inode,
                    pid,
                    names.get(pid, ""),
                )
            )
        return rows

    def _name(self, pid: int) -> str:
        try:
            return (self._proc / str(pid) / "comm").read_text(errors="replace").rstrip("\n")
        except OSError:  # it has ended meanwhile
            return ""


def _node_name(space: Space | None) -> str:
    if space is None:
        return ""
    return "host" if space.pid == 0 else space.containers[0].name
