"""The lines of a page, laid out once for a set of series and filled with the values of every scrape.

Lines are grouped by family and cut into blocks of some hundred: what does not change in a block is not written
anew, and no single step is long. Which series there are is ``exposition.py``'s to know.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from operator import itemgetter
from typing import Any

from exporters.prometheus.families import FAMILIES
from exporters.prometheus.series import Entry, Number, Row

__all__ = ["Plan", "Sink"]

#: Takes the next bytes of a page.
Sink = Callable[[bytes], object]

#: What comes before the labels: of a family's first line with its header, and of its other lines.
_FIRST = {
    family.name: f"# HELP {family.name} {family.help}\n# TYPE {family.name} {family.kind}\n{family.name}"
    for family in FAMILIES
}
_NEXT = {family.name: f"\n{family.name}" for family in FAMILIES}
#: Lines of a block: its text is small enough for memory that is used again and again.
_LINES = 256

#: A line: the container's labels, what comes behind them, and where in the list of values its value is.
_Line = tuple[str, str, int]


class Plan:
    """Every line up to its value, in the order of the page."""

    def __init__(
        self, host: list[Row], entries: Iterable[Entry], max_series: int, names: Collection[str] = ()
    ) -> None:
        """``host`` are rows without a container, whose values come first; ``names`` leaves those families only.

        Containers over ``max_series`` are left out whole, the values of all are expected.
        """
        self.host = host
        self.series = 0
        self.dropped = 0  #: series of the containers that were left out
        self.left_out: list[int] = []  #: which of the entries these are, by their number
        by_row: list[list[_Line]] = [[] for _ in FAMILIES]
        position = 0
        for row, text in host:
            by_row[row].append(("", text, position))
            position += 1
        for number, entry in enumerate(entries):
            rows, head = entry.rows, entry.head
            if position - self.dropped + len(rows) > max_series:
                self.dropped += len(rows)
                self.left_out.append(number)
                position += len(rows)
                continue
            for row, text in rows:
                by_row[row].append((head, text, position))
                position += 1
        self._blocks: list[_Block] = []
        self._lay_out(by_row, names)

    def _lay_out(self, by_row: list[list[_Line]], names: Collection[str]) -> None:
        open_family = ""
        for family, lines in zip(FAMILIES, by_row, strict=True):
            if not lines or (names and family.name not in names):
                continue
            start = _NEXT[family.name][1:] if family.name == open_family else _FIRST[family.name]
            open_family = family.name
            for first in range(0, len(lines), _LINES):
                block = lines[first : first + _LINES]
                self._blocks.append(_Block(start, _NEXT[family.name], block))
                start = _NEXT[family.name][1:]
            self.series += len(lines)

    def fill(self, values: list[Number], sink: Sink) -> None:
        """Give the page with these values to ``sink``, block by block."""
        for block in self._blocks:
            sink(block.fill(values))


class _Block:
    """Some lines of one family: of each four parts, of which the first three are shared with other lines."""

    __slots__ = ("_last", "_parts", "_pick")

    def __init__(self, start: str, following: str, lines: list[_Line]) -> None:
        parts: list[str] = []
        for head, text, _ in lines:
            parts += (start, head, text, "")
            start = following
        parts.append("\n")
        self._parts = parts
        positions = [position for _, _, position in lines]
        self._pick: Callable[[list[Number]], Any] = itemgetter(*positions)
        self._last: Any = None

    def fill(self, values: list[Number]) -> bytes:
        """The text with these values: the name, labels and value of each line."""
        picked = self._pick(values)
        parts = self._parts
        if picked != self._last:
            self._last = picked
            parts[3::4] = map(str, picked) if len(parts) > 5 else [str(picked)]
        return "".join(parts).encode("utf-8", "replace")
