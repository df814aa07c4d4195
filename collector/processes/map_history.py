"""The map of connections as it was: a step a minute for seven days, on disk, of the edges seen in it.

``graph.py`` keeps the map of the last hour; here is what each edge grew by since the step before.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import orjson

from collector.clock_trust import ClockTrust
from collector.history.step_log import StepLog
from collector.processes.graph import ConnectionGraph, Edge, Node, Picture

__all__ = ["MapHistory", "MapRecorder", "PastMap", "decode_map", "encode_map"]

log = logging.getLogger(__name__)

_VERSION = 1
_STEP = 60.0
#: A map stands for a moment at most this long after it; the passes may be far apart where they are costly.
_REACH_US = 180_000_000
#: Edges of an answer at most; those seen last are kept, the rest is counted.
_MOST_EDGES = 20_000
#: Nodes in memory while an answer is made, of edges that were let go of, too.
_MOST_NODES = 4 * _MOST_EDGES

Name = tuple[str, str, str, int]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class PastMap:
    """What was seen within a range of time; of edges the growth within it."""

    nodes: list[Node]
    edges: list[Edge]  #: ``connections`` is how many were open in the last step the edge is in
    from_us: int  #: of the first step in the range, 0 without any
    to_us: int
    steps: int
    left_out: int  #: edges that there was no room for in the answer


class MapHistory:
    """The steps on disk, and the answers made of them. Safe to use from any thread."""

    def __init__(self, directory: Path, max_bytes: int, clock: ClockTrust | None = None) -> None:
        """``clock`` says whether age may take any step. Raises OSError."""
        self.steps = StepLog(
            directory, "minutes", keep=7 * 86400, window=4 * 3600, max_bytes=max_bytes, clock=clock
        )

    def between(self, since_us: int, until_us: int) -> PastMap:
        """All that was seen in a range."""
        return _together(_decoded(self.steps.between(since_us, until_us)))

    def at(self, time_us: int) -> PastMap:
        """The step that covers a moment, or the one before where it is not over yet; empty where nobody looked."""
        found = list(self.steps.between(time_us, time_us + _REACH_US))[:1]
        return _together(_decoded(found or list(self.steps.between(time_us - _REACH_US, time_us))[-1:]))

    def close(self) -> None:
        """Give the descriptor back."""
        self.steps.close()


class MapRecorder:
    """Writes what the map grew by, once a minute."""

    def __init__(self, graph: ConnectionGraph, history: MapHistory) -> None:
        self.cpu_seconds = 0.0
        self.failures = 0
        self.graph = graph
        self._history = history
        self._before: dict[Name, Edge] = {}
        self._passes = 0
        self._recording = threading.Lock()

    async def run(self) -> None:
        """Record every minute until cancelled."""
        while True:
            await asyncio.sleep(_STEP - time.time() % _STEP)
            try:
                await asyncio.to_thread(self.record)
            except Exception:  # history that has a gap is no reason to end the agent
                self.failures += 1
                log.exception("cannot record the map of connections")

    def record(self, now_ns: int | None = None) -> None:
        """Write a step, if there was a pass since the last one."""
        with self._recording:
            started = time.thread_time()
            now_ns = time.time_ns() if now_ns is None else now_ns
            picture = self.graph.picture()
            if picture.passes != self._passes:
                self._passes = picture.passes
                nodes, edges = self._grown(picture)
                self._history.steps.append(now_ns // 1000, encode_map(nodes, edges), now_ns)
            self.cpu_seconds += time.thread_time() - started

    def _grown(self, picture: Picture) -> tuple[list[Node], list[Edge]]:
        """The edges seen since the last step, each with what it grew by."""
        grown: list[Edge] = []
        now: dict[Name, Edge] = {}
        for edge in picture.edges:
            name = edge.client, edge.server, edge.protocol, edge.port
            now[name] = edge
            before = self._before.get(name)
            if before is None or before.first_seen_ns != edge.first_seen_ns:
                grown.append(edge)
            elif edge.last_seen_ns != before.last_seen_ns:
                grown.append(
                    replace(
                        edge,
                        total=edge.total - before.total,
                        bytes_sent=edge.bytes_sent - before.bytes_sent,
                        bytes_received=edge.bytes_received - before.bytes_received,
                    )
                )
        self._before = now
        ids = {node for edge in grown for node in (edge.client, edge.server)}
        return [node for node in picture.nodes if node.id in ids], grown


def encode_map(nodes: Sequence[Node], edges: Sequence[Edge]) -> bytes:
    """As JSON; edges name nodes by their place in the list."""
    places = {node.id: place for place, node in enumerate(nodes)}
    return orjson.dumps(
        (
            _VERSION,
            [(node.id, node.name, node.kind) for node in nodes],
            [
                (
                    places[e.client],
                    places[e.server],
                    e.protocol,
                    e.port,
                    e.connections,
                    e.total,
                    e.bytes_sent,
                    e.bytes_received,
                    e.first_seen_ns,
                    e.last_seen_ns,
                )
                for e in edges
            ],
        )
    )


def decode_map(data: bytes) -> tuple[list[Node], list[Edge]]:
    """``encode_map`` undone. Raises ValueError for what is none."""
    try:
        version, packed, edges = orjson.loads(data)
        if version != _VERSION:
            raise ValueError(f"version {version}, expected {_VERSION}")
        nodes = [Node(*one) for one in packed]
        return nodes, [Edge(nodes[client].id, nodes[server].id, *rest) for client, server, *rest in edges]
    except (TypeError, ValueError, IndexError) as error:
        raise ValueError(f"a map of connections that cannot be read: {error}") from error


def _decoded(steps: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, list[Node], list[Edge]]]:
    for time_us, data in steps:
        try:
            yield time_us, *decode_map(data)
        except ValueError as error:
            log.warning("passed over %s", error)


def _together(steps: Iterable[tuple[int, list[Node], list[Edge]]]) -> PastMap:
    nodes: dict[str, Node] = {}
    edges: dict[Name, Edge] = {}
    times: list[int] = []
    left_out = 0
    for time_us, present, seen in steps:
        times.append(time_us)
        nodes.update((node.id, node) for node in present)
        for edge in seen:
            name = edge.client, edge.server, edge.protocol, edge.port
            before = edges.pop(name, None)
            edges[name] = edge if before is None else _sum(before, edge)
        if len(edges) > _MOST_EDGES:
            left_out += len(edges) - _MOST_EDGES
            edges = _newest(edges, _MOST_EDGES)
        if len(nodes) > _MOST_NODES:
            nodes = _named(nodes, edges)
    return PastMap(
        list(_named(nodes, edges).values()),
        list(edges.values()),
        min(times, default=0),
        max(times, default=0),
        len(times),
        left_out,
    )


def _named(nodes: Mapping[str, Node], edges: Iterable[Name]) -> dict[str, Node]:
    """The nodes at the ends of these edges, in their order."""
    ids = {node for name in edges for node in name[:2]}
    return {key: node for key, node in nodes.items() if key in ids}


def _newest(edges: Mapping[_T, Edge], most: int) -> dict[_T, Edge]:
    """The last of these that were put in."""
    return dict(list(edges.items())[-most:])


def _sum(before: Edge, now: Edge) -> Edge:
    return replace(
        now,
        total=before.total + now.total,
        bytes_sent=before.bytes_sent + now.bytes_sent,
        bytes_received=before.bytes_received + now.bytes_received,
        first_seen_ns=min(before.first_seen_ns, now.first_seen_ns),
        last_seen_ns=max(before.last_seen_ns, now.last_seen_ns),
    )
