"""Writes docs/metrics.md's tables of container, machine and host series from the tables of families.

``python -m exporters.prometheus.reference`` rewrites the page between its marks; a test keeps it so.
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from collector.lanes.groups import CHOICES
from exporters.prometheus.families import BEYOND, FAMILIES
from exporters.prometheus.node_families import NODE_FAMILIES

__all__ = ["PAGE", "group_table", "node_table", "rewrite", "table"]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"


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


def group_table() -> str:
    """A Markdown row per slow group of container series: whether it is on, how often it is read, what it has."""
    lines = ["| group | on | every | series |", "|---|---|---|---|"]
    for group, choice in CHOICES.items():
        names = [family.name for family in FAMILIES if family.source == f"lane.{group}"]
        shown = names if len(names) <= 6 else [names[0], "…", names[-1]]
        series = ", ".join("…" if name == "…" else f"`{name}`" for name in shown)
        lines.append(f"| {group} | {'yes' if choice.on else 'no'} | {choice.seconds:g} s | {series} |")
    return "\n".join(lines) + "\n"


def node_table() -> str:
    """A Markdown row per family of host series, by the group that reads it."""
    lines = ["| group | series | type | labels | meaning |", "|---|---|---|---|---|"]
    for family in NODE_FAMILIES:
        labels = ", ".join(f"`{label}`" for label in family.labels)
        lines.append(
            f"| {family.group} | `{family.name}` | {family.kind} | {labels} | {family.help.replace('{}', '…')} |"
        )
    return "\n".join(lines) + "\n"


def rewrite(page: str) -> str:
    """The page with the tables as they are now. Raises ValueError if the marks are missing."""
    for name, rows in (("families", table()), ("groups", group_table()), ("host families", node_table())):
        begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->\n"
        before, found, rest = page.partition(begin)
        _, finished, after = rest.partition(end)
        if not found or not finished:
            raise ValueError(f"{PAGE}: expected the lines {begin.strip()!r} and {end.strip()!r}")
        page = f"{before}{begin}{rows}{end}{after}"
    return page


if __name__ == "__main__":
    PAGE.write_text(rewrite(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
