"""How every measurement is shown: ours and the peer's in one row, with the ratio."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Row", "print_table"]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; ``theirs`` is None where no peer ran, ``budget`` where none is set."""

    work: str
    unit: str
    ours: float
    peer: str = ""
    theirs: float | None = None
    budget: float | None = None

    def cells(self) -> tuple[str, ...]:
        """The row's texts: work, unit, ours, peer with its figure, how many times fewer, budget."""
        theirs = "" if self.theirs is None else f"{self.peer} {self.theirs:.3g}"
        ratio = "" if not self.theirs or not self.ours else f"{self.theirs / self.ours:.1f}"
        return (
            self.work,
            self.unit,
            f"{self.ours:.3g}",
            theirs,
            ratio,
            "" if self.budget is None else f"{self.budget:g}",
        )


def print_table(rows: Sequence[Row]) -> None:
    """Markdown, as bench/README.md has it."""
    print("| work | unit | ours | peer | times fewer | budget |\n|---|---|---|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(row.cells())} |")
