"""Our own metrics' families, as a part of the product tells them at a scrape, and their text.

They come out as prometheus-client's exposition writes its own families, byte for byte; with some series for each
container they are too many to be made of its samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from prometheus_client.utils import floatToGoString

from exporters.prometheus.family import Kind
from exporters.prometheus.lines import Labels, Lines

__all__ = ["OwnCounter", "OwnFamily", "OwnGauge", "OwnWriter"]

Number = int | float
#: Whole numbers below are written as they are; Go writes others with an exponent.
_PLAIN = 1_000_000


class OwnFamily:
    """A family and its series at this moment."""

    __slots__ = ("help", "kind", "labels", "name", "series")

    def __init__(
        self, name: str, text: str, kind: Kind, value: Number | None = None, labels: Sequence[str] = ()
    ) -> None:
        """``value`` is that of the only series of a family without labels, which else are added by ``add``."""
        self.name = name  #: as it is on the page
        self.help = text
        self.kind = kind
        self.labels = tuple(labels)
        self.series: list[tuple[Labels, Number]] = [] if value is None else [((), value)]

    def add(self, labels: Iterable[str], value: Number) -> None:
        """A series by the values of its labels, as many as the family has labels."""
        self.series.append((tuple(labels), value))

    def add_each(self, values: Mapping[str, Number]) -> None:
        """A series for every entry, by the value of the only label. Other threads may add entries meanwhile."""
        self.series += [((label,), value) for label, value in tuple(values.items())]


class OwnCounter(OwnFamily):
    """A counter; ``_total`` is added to its name."""

    __slots__ = ()

    def __init__(self, name: str, text: str, value: Number | None = None, labels: Sequence[str] = ()) -> None:
        super().__init__(f"{name}_total", text, Kind.COUNTER, value, labels)


class OwnGauge(OwnFamily):
    """A gauge."""

    __slots__ = ()

    def __init__(self, name: str, text: str, value: Number | None = None, labels: Sequence[str] = ()) -> None:
        super().__init__(name, text, Kind.GAUGE, value, labels)


class OwnWriter:
    """Writes families in text format 0.0.4; the text of a series up to its value is made once."""

    def __init__(self) -> None:
        self._lines: dict[str, Lines] = {}

    def write(self, family: OwnFamily) -> str:
        """The family's part of the page. Raises ValueError for a series with too few or too many labels."""
        lines = self._lines.get(family.name)
        if lines is None:
            lines = Lines(family.name, family.kind, family.help, family.labels, in_order=True)
            self._lines[family.name] = lines
        lines.make_room(len(family.series))
        text = [f"{lines[labels]}{_number(value)}\n" for labels, value in family.series]
        return lines.header + "".join(text)


def _number(value: Number) -> str:
    if type(value) is int and 0 <= value < _PLAIN:
        return f"{value}.0"
    return str(floatToGoString(value))  # type: ignore[no-untyped-call]
