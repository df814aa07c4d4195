"""Searching the local store: skip what cannot match, scan what is left, decode only what is shown.

Best first: segments, chunks and rows wait in one heap, ordered by the newest (oldest) line they can hold,
and are opened only when nothing already found is newer. So the newest lines of a frequent word cost one
chunk, and a rare word costs the filters. Lines come in the order of time, then source, then line number.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from collector.classes import class_run, line_indexes, literal_places, literal_run, places_of, scan_classes
from collector.hits import TIME_LIMIT_SECONDS, Hit, SearchError
from collector.matching import for_source, select
from collector.needs import Clause, fold, needs
from collector.query import All, And, Node, Query, Regex
from collector.regex import RegexProcess, RegexTimeout, spans_lines
from collector.segments.chunk import Chunk
from collector.segments.frames import Corrupt
from collector.sink import Source

__all__ = ["TIME_LIMIT_SECONDS", "Hit", "Plan", "Plans", "SearchError", "Searchable", "Unit", "search"]

#: From this strength on a clause is looked for before an expression is tried: two characters and more.
_STRONG: Final = 2 * 8 - 4


@dataclass(frozen=True, slots=True)
class Plan:
    """A query as it is for some sources: what to skip by, what to test."""

    node: Node
    clauses: tuple[Clause, ...]


class Unit(NamedTuple):
    """Something a segment can load: chunks whose lines lie between two times."""

    first_ns: int
    last_ns: int
    key: object  #: the segment's own
    plan: Plan


#: The plan for a source, by number; None if none of its lines can match.
Plans = Callable[[int], Plan | None]


class Searchable(Protocol):
    """What a segment of either form offers."""

    @property
    def first_ns(self) -> int | None:
        """Lowest time of its lines; None if it has no lines."""

    @property
    def last_ns(self) -> int | None:
        """Highest time of its lines."""

    def units(self, since_ns: int, until_ns: int, plans: Plans) -> Sequence[Unit]:
        """What can hold matching lines from ``since_ns`` on and before ``until_ns``."""

    def load(self, unit: Unit) -> Sequence[tuple[Chunk, Plan]]:
        """Read a unit. What is damaged is left out (and counted by the segment)."""


def search(
    segments: Sequence[Searchable],
    sources: Mapping[int, Source],
    query: Query,
    since_ns: int,
    until_ns: int,
    limit: int,
    newest_first: bool = True,
    time_limit_seconds: float = TIME_LIMIT_SECONDS,
) -> Iterator[Hit]:
    """The first ``limit`` lines that match, from ``since_ns`` on and before ``until_ns``.

    ``time_limit_seconds`` bounds the work, not the time the caller takes. Raises SearchError when it is up.
    """
    run = _Search(sources, query, since_ns, until_ns, newest_first, time_limit_seconds)
    try:
        left = limit
        for hit in run.hits(segments):
            if left <= 0:
                return
            left -= 1
            run.pause()
            yield hit
            run.resume()
            if left <= 0:
                return
    except RegexTimeout as error:
        raise SearchError(
            f"{error}: the limit of {time_limit_seconds:g} s for the query {query.text!r} is reached;"
            " ask for a shorter time range or add a word that every match has"
        ) from error
    finally:
        run.close()


class _RowOf(NamedTuple):
    """A row of a loaded chunk with its candidate lines."""

    chunk: Chunk
    plan: Plan
    row: int
    lines: Sequence[int]


class _Search:
    """One search: the heap, the plans, the time."""

    def __init__(
        self,
        sources: Mapping[int, Source],
        query: Query,
        since_ns: int,
        until_ns: int,
        newest_first: bool,
        seconds: float,
    ) -> None:
        self._sources = sources
        self._query = query
        self._since, self._until = since_ns, until_ns
        self._sign = -1 if newest_first else 1
        self._seconds = seconds
        self._left = seconds
        self._deadline = 0.0
        self._regex = RegexProcess(0.0)
        self._plans: dict[int, Plan | None] = {}
        self._made: dict[Node, Plan] = {}
        #: (time, 0 to open or 1 for a hit, source, line, serial, what), negated for newest first
        self._heap: list[tuple[int, int, int, int, int, object]] = []
        self._serial = 0
        self.resume()

    # --- time ---

    def resume(self) -> None:
        """Let the clock run."""
        self._deadline = time.monotonic() + self._left
        self._regex.deadline = self._deadline

    def pause(self) -> None:
        """Stop the clock while the caller has the line."""
        self._left = self._deadline - time.monotonic()

    def close(self) -> None:
        """End what was started."""
        self._regex.close()

    def _check_time(self) -> None:
        if time.monotonic() > self._deadline:
            raise SearchError(
                f"the query {self._query.text!r} took longer than its limit of {self._seconds:g} s;"
                " ask for a shorter time range or add a word that every match has"
            )

    # --- the heap ---

    def hits(self, segments: Sequence[Searchable]) -> Iterator[Hit]:
        """All of them, in order, as late as possible."""
        for segment in segments:
            if segment.first_ns is None or segment.last_ns is None:
                continue
            if segment.last_ns >= self._since and segment.first_ns < self._until:
                self._open_later(segment.first_ns, segment.last_ns, segment)
        while self._heap:
            what = heapq.heappop(self._heap)[5]
            if isinstance(what, Hit):
                yield what
                continue
            self._check_time()
            if isinstance(what, _RowOf):
                with suppress(Corrupt):  # counted by the segment
                    self._open_row(what)
            elif isinstance(what, tuple):
                segment, unit = what
                for chunk, plan in segment.load(unit):
                    with suppress(Corrupt):
                        self._open_chunk(chunk, plan)
            else:
                segment = what  # type: ignore[assignment]
                for unit in segment.units(self._since, self._until, self._plan):
                    self._open_later(unit.first_ns, unit.last_ns, (segment, unit))

    def _open_later(self, first_ns: int, last_ns: int, what: object) -> None:
        bound = -last_ns if self._sign < 0 else first_ns
        self._serial += 1
        heapq.heappush(self._heap, (bound, 0, 0, 0, self._serial, what))

    def _plan(self, number: int) -> Plan | None:
        try:
            return self._plans[number]
        except KeyError:
            node = for_source(self._query.root, self._sources[number], self._regex.each)
            plan = None if node is None else self._made.get(node)
            if plan is None and node is not None:
                plan = self._made[node] = Plan(node, needs(node))
            self._plans[number] = plan
            return plan

    # --- from chunks to lines ---

    def _open_chunk(self, chunk: Chunk, plan: Plan) -> None:
        candidates = self._candidates(chunk, plan)
        rows: Sequence[tuple[int, Sequence[int]]]
        if candidates is None:
            rows = [(row, range(at, at + chunk.rows[row].lines)) for row, at in enumerate(chunk.starts)]
        else:
            rows = _by_row(chunk, candidates)
        for row, lines in rows:
            times = chunk.rows[row]
            if times.last_ns >= self._since and times.first_ns < self._until:
                self._open_later(times.first_ns, times.last_ns, _RowOf(chunk, plan, row, lines))

    def _candidates(self, chunk: Chunk, plan: Plan) -> list[int] | None:
        """Lines that may match, rising; None for all."""
        clauses = [clause for clause in plan.clauses if not (clause.anywhere and chunk.has_attrs)]
        if clauses and clauses[0].strength >= _STRONG:
            return scan(chunk.text, clauses)
        for node in plan.node.terms if isinstance(plan.node, And) else (plan.node,):
            if isinstance(node, Regex) and (found := self._scan_regex(chunk, node)) is not None:
                return found
        return scan(chunk.text, clauses) if clauses else None

    def _scan_regex(self, chunk: Chunk, regex: Regex) -> list[int] | None:
        """Lines of a chunk that an expression may match; None if they have to be tested one by one."""
        run = class_run(regex)
        if run is not None and run.unescaped and chunk.text.isascii():
            return scan_classes(chunk.text, run)
        if run is None and spans_lines(regex):
            return None
        text = chunk.plain_text()
        if text is None:
            return None
        if run is not None and text.isascii():
            return scan_classes(text, run)
        if spans_lines(regex):
            return None
        found: list[int] = self._regex.scan(regex, text).tolist()
        return found

    def _open_row(self, what: _RowOf) -> None:
        chunk = what.chunk
        lines = chunk.decode(what.row, what.lines)
        row = chunk.rows[what.row]
        if row.first_ns < self._since or row.last_ns >= self._until:
            lines = [line for line in lines if self._since <= line.time_ns < self._until]
        if isinstance(what.plan.node, All):
            chosen: Sequence[int] = range(len(lines))
        else:
            chosen = select(what.plan.node, lines, self._regex.each)
        source, sign, heap = self._sources[chunk.source], self._sign, self._heap
        for index in chosen:
            time_ns, number, stream, text, attrs = lines[index]
            hit = Hit(time_ns, source, stream, text, chunk.source, number, attrs)
            heapq.heappush(heap, (sign * time_ns, 1, sign * chunk.source, sign * number, 0, hit))


def _by_row(chunk: Chunk, candidates: list[int]) -> list[tuple[int, list[int]]]:
    if not candidates:
        return []
    if len(chunk.rows) == 1:
        return [(0, candidates)]
    rows: dict[int, list[int]] = {}
    for line in candidates:
        rows.setdefault(chunk.row_of(line), []).append(line)
    return list(rows.items())


#: Fewer candidates than this are decoded and tested rather than looked for by a second literal.
_FEW: Final = 32
#: From so many literals of one length on, one pass over the sets of their characters is cheaper than one each.
_MANY: Final = 3
_RUN_LENGTH: Final = 8


def scan(text: bytes, clauses: Sequence[Clause]) -> list[int]:
    """Indexes of the lines of ``text`` that hold a literal of each clause, or a superset of them."""
    folded = fold(text)
    found: list[int] | None = None
    for clause in clauses:
        lines = line_indexes(text, _places(folded, clause.literals))
        if found is None:
            found = lines
        else:
            also = set(lines)
            found = [line for line in found if line in also]
        if len(found) < _FEW:
            break
    return found or []


def _places(folded: bytes, literals: frozenset[bytes]) -> npt.NDArray[np.int64]:
    """Where one of the literals is: every line that holds one has a place."""
    by_length: dict[int, list[bytes]] = {}
    for literal in literals:
        by_length.setdefault(len(literal), []).append(literal)
    parts: list[npt.NDArray[np.int64]] = []
    for length, same in by_length.items():
        if len(same) >= _MANY and 1 < length <= _RUN_LENGTH:
            parts.append(places_of(folded, literal_run(frozenset(same))))
            continue
        parts += [literal_places(folded, literal) for literal in same]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
