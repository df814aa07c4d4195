"""The lines of one family up to their values, made when a series is first seen and kept while it is there."""

from __future__ import annotations

from collections.abc import Sequence

from exporters.prometheus.labels import escape

__all__ = ["Labels", "Lines"]

#: Values of a family's labels, in the family's order.
Labels = tuple[str, ...]


class Lines(dict[Labels, str]):
    """Label values to the text of their series before the value; a ValueError where they are not as many as names."""

    def __init__(
        self, name: str, kind: str, text: str, labels: Sequence[str], *, in_order: bool = False
    ) -> None:
        """``in_order``: labels are written in the order of their names."""
        super().__init__()
        help_text = text.replace("\\", "\\\\").replace("\n", "\\n")
        self.header = f"# HELP {name} {help_text}\n# TYPE {name} {kind}\n"
        self._name = name
        self._labels = tuple(labels)
        self._order = sorted if in_order else list

    def make_room(self, series: int) -> None:
        """Before so many series are written: forget the lines where most are of what is gone."""
        if len(self) > 2 * series + 16:
            self.clear()

    def line(self, values: Labels) -> str:
        """The text for these values, made and not kept."""
        pairs = self._order(zip(self._labels, values, strict=True))
        text = ",".join(f'{label}="{escape(value)}"' for label, value in pairs)
        return f"{self._name}{{{text}}} " if text else f"{self._name} "

    def __missing__(self, values: Labels) -> str:
        line = self[values] = self.line(values)
        return line
