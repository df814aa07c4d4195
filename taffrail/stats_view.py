"""Which rows of statistics are shown, and in which order: names, filter, sort, limit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from taffrail.errors import CommandError
from taffrail.stats_filter import NUMBERS, TEXTS, FilterError, Row, field_value, number_of, parse_filter

__all__ = ["View", "make_view"]

Order = Callable[[Row], tuple[object, ...]]


@dataclass(frozen=True, slots=True)
class View:
    """What of a frame's rows is shown."""

    #: Names, ids or, where nobody has that name or id, beginnings of ids; all rows if none is given.
    names: tuple[str, ...] = ()
    test: Callable[[Row], bool] | None = None
    key: Order = lambda row: (str(row["name"]), str(row["host"]))
    reverse: bool = False
    limit: int = 0  #: 0: all

    def of(self, rows: Sequence[Row]) -> list[Row]:
        """The rows to show, in order. Rows without a sample are last, whatever the order."""
        shown = [row for row in self._named(rows) if self.test is None or self.test(row)]
        shown.sort(key=lambda row: (str(row["name"]), str(row["host"])))
        shown.sort(key=self.key, reverse=self.reverse)
        shown.sort(key=lambda row: row.get("time_ns") == 0)
        return shown[: self.limit] if self.limit else shown

    def missing(self, rows: Sequence[Row]) -> list[str]:
        """The names nobody has."""
        return [name for name in self.names if not _meant(rows, name)]

    def _named(self, rows: Sequence[Row]) -> Sequence[Row]:
        if not self.names:
            return rows
        meant = {id(row) for name in self.names for row in _meant(rows, name)}
        return [row for row in rows if id(row) in meant]


def make_view(
    names: Sequence[str] = (),
    filter_text: str = "",
    sort: str = "name",
    reverse: bool = False,
    limit: int = 0,
) -> View:
    """A view from what a person typed.

    ``sort`` is a number (largest first) or a text (a to z); a leading ``-`` or ``reverse`` turns it round.
    Raises CommandError naming what cannot be read.
    """
    try:
        test = parse_filter(filter_text) if filter_text else None
    except FilterError as error:
        raise CommandError(f"--filter {filter_text!r}: {error}") from error
    if limit < 0:
        raise CommandError(f"--limit {limit}: expected a number, 0 for all")
    field = sort.removeprefix("-").lower()
    turned = reverse != sort.startswith("-")
    if field in NUMBERS:
        quantity = NUMBERS[field]
        return View(tuple(names), test, lambda row: (number_of(row, quantity) or 0.0,), not turned, limit)
    if field in TEXTS or field.startswith("label."):
        field = field if field in TEXTS else "label." + sort.removeprefix("-")[6:]
        return View(tuple(names), test, lambda row: (field_value(row, field),), turned, limit)
    raise CommandError(f"--sort {sort!r}: expected one of {', '.join([*NUMBERS, *TEXTS])} or label.KEY")


def _meant(rows: Sequence[Row], name: str) -> list[Row]:
    """The rows with this name or id, on whichever host; only where there is none, those whose id begins so."""
    exact = [row for row in rows if row["name"] == name.removeprefix("/") or row["id"] == name]
    return exact or [row for row in rows if str(row["id"]).startswith(name)]
