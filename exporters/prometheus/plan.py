"""The lines of a page, laid out once for a set of series and filled with the values of every scrape.

Lines are grouped by family, and within a family by groups of containers: a container that comes or goes has
its own group laid out anew, values that did not change are not written again, and no single step is long.
Which series there are is ``exposition.py``'s to know.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any

from exporters.prometheus.families import FAMILIES
from exporters.prometheus.series import Entry, Number, Row

__all__ = ["Plan", "Sink"]

#: Takes the next bytes of a page.
Sink = Callable[[bytes], object]

#: Containers of a group.
_CONTAINERS = 64
_HEADERS = {
    family.name: f"# HELP {family.name} {family.help}\n# TYPE {family.name} {family.kind}\n".encode()
    for family in FAMILIES
}
#: A family's place on the page; rows of one name are one family.
_PLACES = {name: place for place, name in enumerate(_HEADERS)}
_NAMES = tuple(_HEADERS)


class Plan:
    """Every line up to its value, in the order of the page."""

    def __init__(self, names: Collection[str] = ()) -> None:
        """``names`` leaves those families only, where it has any."""
        self.series = 0  #: lines of the page that was filled last
        self._wanted = [not names or family.name in names for family in FAMILIES]
        self._host: list[Row] = []
        self._groups = [_Group()]  # the first is that of rows without a container
        self._of: dict[str, _Group] = {}
        self._order: list[tuple[bytes, _Block, int]] = []

    def put(self, key: str, entry: Entry) -> None:
        """Take a container onto the page, or its rows, which are others than before."""
        group = self._of.get(key)
        if group is None:
            rooms = (group for group in self._groups[1:] if len(group.entries) < _CONTAINERS)
            group = next(rooms, None)
            if group is None:
                group = _Group()
                self._groups.append(group)
            self._of[key] = group
        group.entries[key] = entry
        group.stale = True

    def remove(self, key: str) -> None:
        """Take a container off the page, if it is on it."""
        group = self._of.pop(key, None)
        if group is not None:
            del group.entries[key]
            group.stale = True
            if not group.entries:
                self._groups.remove(group)
                self._order = []

    def fill(self, host: list[Row], values: Sequence[Number], sink: Sink) -> None:
        """Give the page to ``sink``, block by block. ``host`` are the rows without a container, with their values."""
        if host != self._host:
            self._host, self._groups[0].stale = host, True
        if not self._order or any(group.stale for group in self._groups):
            self._lay_out()
        of_groups = [values, *(group.values() for group in self._groups[1:])]
        for header, block, number in self._order:
            if header:
                sink(header)
            sink(block.fill(of_groups[number]))

    def _lay_out(self) -> None:
        places: list[list[tuple[_Block, int]]] = [[] for _ in _NAMES]
        self.series = 0
        for number, group in enumerate(self._groups):
            if group.stale:
                group.lay_out(self._wanted, () if number else self._host)
            self.series += group.series
            for place, block in group.blocks:
                places[place].append((block, number))
        self._order = [
            (b"" if after else _HEADERS[name], block, number)
            for name, blocks in zip(_NAMES, places, strict=True)
            for after, (block, number) in enumerate(blocks)
        ]


class _Group:
    """Some containers and their blocks, a family each."""

    __slots__ = ("blocks", "entries", "series", "stale")

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.blocks: list[tuple[int, _Block]] = []  # with their places on the page, in order
        self.series = 0
        self.stale = True

    def values(self) -> list[Number]:
        """The values of all its containers now."""
        return list(chain.from_iterable([entry.values for entry in self.entries.values()]))

    def lay_out(self, wanted: Sequence[bool], host: Sequence[Row]) -> None:
        """Make the blocks anew, of ``host``'s rows or of the containers'."""
        by_row: list[list[_Line]] = [[] for _ in FAMILIES]
        position = 0
        for head, rows in (("", host), *((entry.head, entry.rows) for entry in self.entries.values())):
            for row, text in rows:
                by_row[row].append((head, text, position))
                position += 1
        by_place: dict[int, list[_Line]] = {}
        for family, lines, shown in zip(FAMILIES, by_row, wanted, strict=True):
            if lines and shown:
                by_place.setdefault(_PLACES[family.name], []).extend(lines)
        self.blocks = [(place, _Block(_NAMES[place], lines)) for place, lines in by_place.items()]
        self.series = sum(map(len, by_place.values()))
        self.stale = False


#: A line: the container's labels, what comes behind them, and where in the list of values its value is.
_Line = tuple[str, str, int]


class _Block:
    """Lines of one family: of each four parts, of which the first three are shared with other lines."""

    __slots__ = ("_last", "_parts", "_pick")

    def __init__(self, name: str, lines: list[_Line]) -> None:
        parts: list[str] = []
        start, following = name, f"\n{name}"
        for head, text, _ in lines:
            parts += (start, head, text, "")
            start = following
        parts.append("\n")
        self._parts = parts
        self._pick: Callable[[Sequence[Number]], Any] = itemgetter(*[position for _, _, position in lines])
        self._last: Any = None

    def fill(self, values: Sequence[Number]) -> bytes:
        """The text with these values: the name, labels and value of each line."""
        picked = self._pick(values)
        parts = self._parts
        if picked != self._last:
            self._last = picked
            parts[3::4] = map(str, picked) if len(parts) > 5 else [str(picked)]
        return "".join(parts).encode("utf-8", "replace")
