"""Who talks to whom: containers, the host and what is outside as nodes, with an edge for each service used.

A pass looks into every network namespace, joins the two ends of each connection, undoes address
translation, and adds to edges that are remembered for an hour. When to make a pass is ``ConnectionGraph.run``'s.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from collector.container import Container
from collector.discovery.registry import Containers
from collector.processes.connections import AddressBook, host_flows
from collector.processes.conntrack import Flow, Nat
from collector.processes.files import socket_inodes
from collector.processes.members import Members, NotRunning
from collector.processes.sock_diag import LISTEN, TIME_WAIT, InetSocket, tcp_sockets
from collector.processes.spaces import HOST_NODE, Space, Spaces, is_loopback

__all__ = ["ConnectionGraph", "Edge", "Node", "Picture"]

log = logging.getLogger(__name__)

#: Every so many passes every namespace with a socket is looked into.
_THOROUGH = 4

#: An address and a port; loopback ones with their namespace before the address, for every one has them.
End = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Node:
    """Somebody who talks."""

    id: str  #: a container's id, ``/`` for the host, the address of somebody outside
    name: str
    kind: str  #: ``container``, ``host`` or ``outside``


@dataclass(slots=True)
class Edge:
    """A service that one node uses of another."""

    client: str  #: a node's id
    server: str
    protocol: str
    port: int  #: the server's own, behind any translation
    connections: int = 0  #: open at the last pass
    total: int = 0  #: connections seen since ``first_seen_ns``
    bytes_sent: int = 0  #: by the client, as far as the kernel counted and somebody looked
    bytes_received: int = 0
    first_seen_ns: int = 0
    last_seen_ns: int = 0


@dataclass(frozen=True, slots=True)
class Picture:
    """The map at the last pass."""

    nodes: list[Node]
    edges: list[Edge]
    passes: int
    pass_seconds: float  #: CPU time of all passes
    interval_seconds: float  #: until the next pass: longer where passes would cost too much
    forgotten: int  #: edges dropped before their hour for want of room
    unread_namespaces: int  #: at the last pass
    unread_conntrack_bytes: int  #: of the tracking table, at the last pass

    def node_graph(self) -> dict[str, object]:
        """The same in the shape Grafana's node graph panel takes."""
        return {
            "nodes": [{"id": n.id, "title": n.name, "subtitle": n.kind} for n in self.nodes],
            "edges": [
                {
                    "id": f"{e.client}>{e.server}:{e.port}/{e.protocol}",
                    "source": e.client,
                    "target": e.server,
                    "mainstat": f"{e.port}/{e.protocol}",
                    "secondarystat": str(e.connections),
                }
                for e in self.edges
            ],
        }


class _View(NamedTuple):
    """One connection as the socket at one of its ends shows it."""

    node: Node
    serving: bool  #: its port is one somebody listens on
    open: bool
    sent: int
    received: int


#: A connection: its protocol and ends in order.
Key = tuple[str, End, End]


class _Seen(NamedTuple):
    """One connection, both ends joined."""

    client: Node
    server: Node
    port: int
    open: bool
    sent: int  #: by the client
    received: int


@dataclass(slots=True)
class _Look:
    """What a pass gathers."""

    spaces: list[Space]
    book: AddressBook
    nat: Nat
    views: dict[Key, dict[End, _View]] = field(default_factory=dict)
    others: dict[Key, dict[End, Node]] = field(default_factory=dict)  #: who is at an end by its address
    seen: dict[Key, _Seen] = field(default_factory=dict)
    unread: int = 0
    elsewhere: float = 0.0  #: CPU seconds of the threads that entered namespaces


class ConnectionGraph:
    """The map of one host, kept for ``keep_seconds``. Safe to use from any thread."""

    def __init__(
        self,
        containers: Containers,
        members: Members,
        proc: Path,
        *,
        interval: float = 15.0,
        share: float = 0.003,
        keep_seconds: float = 3600.0,
        max_edges: int = 5000,
    ) -> None:
        """``share``: passes are made less often where they would take more than this of one CPU."""
        self._spaces = Spaces(containers, proc)
        self._members = members
        self._proc = proc
        self._interval = interval
        self._share = share
        self._keep_ns = int(keep_seconds * 1e9)
        self._max_edges = max_edges
        self._lock = threading.Lock()
        self._listening: dict[int, int] = {}  # sockets of namespaces that had listening ones only
        self._edges: dict[tuple[str, str, str, int], Edge] = {}
        self._nodes: dict[str, Node] = {}
        self._known: dict[Key, tuple[int, int]] = {}  # bytes of each connection at the last pass
        self._forgotten = self._unread = self._unread_bytes = self._passes = 0
        self._pass_seconds = 0.0
        self._wait = interval

    async def run(self) -> None:
        """Make a pass every interval, within the budget, until cancelled."""
        while True:
            try:
                spent = await asyncio.to_thread(self.look)
                self._wait = max(self._interval, spent / self._share)
            except Exception:  # a map that has a gap is no reason to end the agent
                log.exception("looking for connections failed")
            await asyncio.sleep(self._wait)

    def look(self, now_ns: int | None = None) -> float:
        """Make one pass; the answer is the CPU time it took. Raises OSError without procfs."""
        now_ns = time.time_ns() if now_ns is None else now_ns
        spent = time.thread_time()
        spaces = self._spaces.all()
        flows, unread_bytes = host_flows(self._proc)
        look = _Look(spaces, AddressBook(spaces), Nat(flows))
        for space in spaces:
            try:
                self._read(space, look)
            except (OSError, ValueError) as error:
                look.unread += 1
                log.debug("no connections of the namespace of process %d: %s", space.pid, error)
        self._listening = {s.inode: self._listening.get(s.inode, -1) for s in spaces}
        look.seen.update(_resolved(look))
        _add_udp(flows, look)
        self._take(look, now_ns)
        spent = time.thread_time() - spent + look.elsewhere
        with self._lock:
            self._passes += 1
            self._pass_seconds += spent
            self._unread, self._unread_bytes = look.unread, unread_bytes
        return spent

    @property
    def forgotten(self) -> int:
        """Edges dropped before their hour for want of room."""
        return self._forgotten

    def picture(self, since_ns: int = 0) -> Picture:
        """The edges last seen at or after ``since_ns``, and their nodes."""
        with self._lock:
            edges = [replace(edge) for edge in self._edges.values() if edge.last_seen_ns >= since_ns]
            ids = dict.fromkeys(node for edge in edges for node in (edge.client, edge.server))
            return Picture(
                [self._nodes[node] for node in ids],
                edges,
                self._passes,
                self._pass_seconds,
                self._wait,
                self._forgotten,
                self._unread,
                self._unread_bytes,
            )

    def _read(self, space: Space, look: _Look) -> None:
        """Add the TCP connections that one namespace shows.

        The list is not asked for where there is nothing but the listening sockets of last time: to go
        through the kernel's table costs half a millisecond. Every fourth pass it is, all the same.
        """
        in_use = self._spaces.tcp_in_use(space)
        if in_use == 0 or (self._passes % _THOROUGH and in_use == self._listening.get(space.inode)):
            return
        sockets, seconds = self._spaces.inside(space, lambda: (tcp_sockets(), time.thread_time()))
        if space.pid:
            look.elsewhere += seconds
        only_listening = all(opened.state == LISTEN for opened in sockets)
        self._listening[space.inode] = in_use if only_listening else -1
        listening = {opened.local_port for opened in sockets if opened.state == LISTEN}
        holders = self._holders(space)
        for opened in sockets:
            if opened.remote_port and opened.state != LISTEN:
                mine = _node(holders.get(opened.inode) if opened.inode else None, space)
                _add_view(look, space, opened, mine, opened.local_port in listening)

    def _holders(self, space: Space) -> dict[int, Container]:
        """Which container holds a socket, in a namespace that several (or one and the host) share."""
        guests = space.containers if space.pid == 0 else space.containers[1:]
        holders: dict[int, Container] = {}
        for container in guests:
            try:
                pids = self._members.pids(container)
            except NotRunning:
                continue
            inodes = socket_inodes(self._proc, pids)
            members = self._members.still(container, inodes.values())
            holders.update((inode, container) for inode, pid in inodes.items() if pid in members)
        return holders

    def _take(self, look: _Look, now_ns: int) -> None:
        """Add what a pass saw to the edges, and forget what is too old or too much."""
        with self._lock:
            for edge in self._edges.values():
                edge.connections = 0
            known: dict[Key, tuple[int, int]] = {}
            for key, seen in look.seen.items():
                name = (seen.client.id, seen.server.id, key[0], seen.port)
                edge = self._edges.setdefault(name, Edge(*name, first_seen_ns=now_ns))
                before = self._known.get(key)
                edge.total += before is None
                edge.bytes_sent += _more(seen.sent, before[0] if before else 0)
                edge.bytes_received += _more(seen.received, before[1] if before else 0)
                # A socket that closes shows no bytes any more.
                known[key] = (seen.sent or (before or (0, 0))[0], seen.received or (before or (0, 0))[1])
                edge.connections += seen.open
                edge.last_seen_ns = now_ns
                self._nodes[seen.client.id], self._nodes[seen.server.id] = seen.client, seen.server
            self._known = known
            self._forget(now_ns)

    def _forget(self, now_ns: int) -> None:
        oldest = now_ns - self._keep_ns
        kept = {name: edge for name, edge in self._edges.items() if edge.last_seen_ns >= oldest}
        if len(kept) > self._max_edges:
            newest = sorted(kept, key=lambda name: kept[name].last_seen_ns, reverse=True)
            self._forgotten += len(kept) - self._max_edges
            kept = {name: kept[name] for name in newest[: self._max_edges]}
        if len(kept) != len(self._edges):
            ids = {node for name in kept for node in name[:2]}
            self._nodes = {node: known for node, known in self._nodes.items() if node in ids}
        self._edges = kept


def _node(container: Container | None, space: Space) -> Node:
    if container is None:
        if space.pid == 0:
            return Node(HOST_NODE, "host", "host")
        container = space.containers[0]
    return Node(container.id, container.name, "container")


def _add_view(look: _Look, space: Space, opened: InetSocket, mine: Node, serving: bool) -> None:
    """Add what one socket shows of its connection, and whose the address at its other end is."""
    here = opened.local, opened.local_port
    shown = opened.remote, opened.remote_port
    there = look.nat.remote(opened.protocol, *here, *shown)
    # Addresses are translated on the host: a loopback address behind a translation is the host's.
    space_there = look.book.find(there[0], space if there == shown else look.spaces[0])
    if is_loopback(here[0]) and is_loopback(there[0]):
        here, there = (f"{space.inode}%{here[0]}", here[1]), (f"{space.inode}%{there[0]}", there[1])
    key = (opened.protocol, min(here, there), max(here, there))
    look.views.setdefault(key, {})[here] = _View(
        mine, serving, opened.state != TIME_WAIT, opened.bytes_sent or 0, opened.bytes_received or 0
    )
    look.others.setdefault(key, {})[there] = _node_at(there[0], space_there)


def _node_at(address: str, space: Space | None) -> Node:
    return Node(address, address, "outside") if space is None else _node(None, space)


def _resolved(look: _Look) -> Iterator[tuple[Key, _Seen]]:
    """Every connection with its client and server, from what its ends show."""
    uses = Counter(end for key in look.views for end in key[1:])
    for key, views in look.views.items():
        server = _server_end(key, views, uses)
        client = key[2] if server == key[1] else key[1]
        theirs, ours = views.get(server), views.get(client)
        others = look.others[key]
        yield (
            key,
            _Seen(
                ours.node if ours else others[client],
                theirs.node if theirs else others[server],
                server[1],
                any(view.open for view in views.values()),
                (ours.sent if ours else 0) or (theirs.received if theirs else 0),
                (theirs.sent if theirs else 0)
                or (ours.received if ours else 0),  # a FIN counts as one received
            ),
        )


def _server_end(key: Key, views: Mapping[End, _View], uses: Mapping[End, int]) -> End:
    """The end that listens; else the one an open socket is at the other end of; else the one with more connections.

    What is left when a service has ended is in TIME_WAIT at either end: its own end is the same in all
    of them, its clients' ends differ. Of a single one the lower port is taken.
    """
    first, second = key[1:]
    for one, other in ((first, second), (second, first)):
        if one in views and views[one].serving and not (other in views and views[other].serving):
            return one
    if len(views) == 1 and next(iter(views.values())).open:
        return second if first in views else first
    return min((first, second), key=lambda end: (-uses[end], end[1]))


def _add_udp(flows: Sequence[Flow], look: _Look) -> None:
    """Add UDP flows of which a node of this host is a part; the tracking knows who began."""
    host = look.spaces[0]
    for flow in flows:
        if flow.protocol != "udp":
            continue
        client = look.book.find(flow.source, host)
        server = look.book.find(flow.reply_source, host)
        if client is None and server is None:
            continue
        ends = (flow.source, flow.source_port), (flow.reply_source, flow.reply_source_port)
        look.seen["udp", *ends] = _Seen(
            _node_at(flow.source, client),
            _node_at(flow.reply_source, server),
            flow.reply_source_port,
            True,
            flow.bytes_sent or 0,
            flow.bytes_received or 0,
        )


def _more(now: int, before: int) -> int:
    """What a counter grew by; all of it where it is another connection's with the same ends."""
    return now - before if now >= before else now
