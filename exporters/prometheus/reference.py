"""Writes docs/metrics.md's table of container and machine series from the one table of families.

``python -m exporters.prometheus.reference`` rewrites the page between its two marks; a test keeps it so.
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from exporters.prometheus.families import BEYOND, FAMILIES

__all__ = ["PAGE", "rewrite", "table"]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"
_BEGIN, _END = "<!-- families: begin -->\n", "<!-- families: end -->\n"


def table() -> str:
    """A Markdown row per series name, those beyond cAdvisor's marked."""
    beyond = {family.name for family in BEYOND}
    lines = ["| series | type | unit | labels beside the container's | meaning |", "|---|---|---|---|---|"]
    for name, rows in groupby(FAMILIES, key=lambda family: family.name):
        family, *others = rows
        labels = sorted({row.labels for row in (family, *others) if row.labels})
        labels += [f'{name}="…"' for name in family.varies]
        mark = " *" if name in beyond else ""
        shown = "<br>".join(f"`{text}`" for text in labels)
        lines.append(f"| `{name}`{mark} | {family.kind} | {family.unit} | {shown} | {family.help} |")
    return "\n".join(lines) + "\n"


def rewrite(page: str) -> str:
    """The page with the table as it is now. Raises ValueError if the marks are missing."""
    before, begin, rest = page.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"{PAGE}: expected the lines {_BEGIN.strip()!r} and {_END.strip()!r}")
    return f"{before}{_BEGIN}{table()}{_END}{after}"


if __name__ == "__main__":
    PAGE.write_text(rewrite(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
