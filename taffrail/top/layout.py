"""Draws a model as lines of a given width: title, path, headings, rows, message, keys.

Everything can be told without colours: the cursor has a ``>``, the order an arrow. Lines carry escape
sequences only where colours are wanted.
"""

from __future__ import annotations

import textwrap
import time
import unicodedata
from collections.abc import Sequence
from datetime import datetime

from taffrail.terminal import visible
from taffrail.top.columns import Column, Row, number
from taffrail.top.model import Level, Model

__all__ = ["draw", "fit", "fitting"]

#: Lines that are not rows: title, path, headings; message, keys.
_ABOVE, _BELOW = 3, 2

_KEYS = {
    "containers": "Enter processes  c connections",
    "processes": "Enter threads  f files  c connections",
    "threads": "f files  c connections",
    "files": "",
    "connections": "",
}
_ALWAYS = "Left back  / find  < > sort  p pause  []t time  ? help  q quit"

_HELP = (
    "Up Down PgUp PgDn Home End   move (k and j too)",
    "Enter Right                  into: container, its processes, a process's threads",
    "Left Backspace               back",
    "f                            open files of the process",
    "c                            connections of the container",
    "/                            find: words, or cpu > 2 and name:web*   (Esc: all again)",
    "< >                          sort by the column before, after",
    "r                            the other way round",
    "p Space                      pause, and on again",
    "[ ]                          5 seconds back, forward in time",
    "{ }   ( )                    a minute, an hour back, forward",
    "t                            go to a time: 03:00, 2h, 2026-01-31T12:00 (nothing: now)",
    "q Ctrl-C                     leave",
    "Shift and a letter           sort by a column:",
)


def draw(model: Model, width: int, height: int, *, colours: bool) -> list[str]:
    """At most ``height`` lines of at most ``width`` columns."""
    model.page = max(1, height - _ABOVE - _BELOW)
    rows = model.rows()
    level = model.level
    columns, widths = fitting(level, width - 1)
    lines = [
        _styled(fit(_title(model), width), "1", colours),
        fit(_path(model, len(rows)), width),
        _styled(fit(" " + _headings(level, columns, widths), width), "7", colours),
    ]
    if model.help:
        letters = "   ".join(f"{column.letter} {column.title}" for column in level.columns)
        lines += [fit(" " + text, width) for text in (*_HELP, *_wrapped(letters, width - 4))]
    else:
        shown = rows[level.top : level.top + model.page]
        for place, row in enumerate(shown, level.top):
            seen = {**row, "seen_ns": level.frame.time_ns}
            lines.append(_row(seen, columns, widths, width, place == level.cursor, colours))
    lines = lines[: max(0, height - _BELOW)]
    lines += [""] * (height - _BELOW - len(lines))
    lines.append(fit(_message(model, rows), width))
    keys = f"{_KEYS[level.subject.kind]}  {_ALWAYS}".strip()
    if len(keys) > width:
        keys = _ALWAYS if len(_ALWAYS) <= width else "? help  q quit"
        first = _KEYS[level.subject.kind].split("  ")
        while first and len(keys) + 2 + len("  ".join(first)) > width:
            first.pop()
        keys = "  ".join([*first, keys]) if first[:1] != [""] else keys
    lines.append(_styled(fit(keys, width), "7", colours))
    return lines[-height:]


def fitting(level: Level, width: int) -> tuple[list[Column], list[int]]:
    """The first columns that find room, and how wide each is; a wide one takes what is left."""
    columns: list[Column] = []
    used = -1
    for column in level.columns:
        if columns and used + 1 + column.width > width:
            break
        columns.append(column)
        used += 1 + column.width
    widths = [column.width for column in columns]
    for place, column in enumerate(columns):
        if column.wide:
            widths[place] += max(0, width - used)
            break
    return columns, widths


def fit(text: str, width: int, *, right: bool = False) -> str:
    """The text on exactly ``width`` columns, cut with ``~`` where it is longer."""
    size = 0
    for place, letter in enumerate(text):
        step = (
            0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        )
        if size + step > width:
            text = text[: max(0, place - 1)] + "~" if place else ""
            return fit(text, width) if place else " " * width
        size += step
    return " " * (width - size) + text if right else text + " " * (width - size)


def _title(model: Model) -> str:
    frame = model.level.frame
    if model.paused_ns is None:
        when = f"{_clock(frame.time_ns)} live" if frame.time_ns else "asking the agent"
    else:
        ago = max(0.0, time.time() - model.paused_ns / 1e9)
        when = f"PAUSED at {_clock(model.paused_ns)}, {_ago(int(ago))} ago"
    asking = "  asking..." if model.waiting and frame.time_ns else ""
    return f"taffrail top  {model.host}  {when}{asking}"


def _ago(seconds: int) -> str:
    """``90 s``, ``15 min``, ``4 h 50 min``, ``3 d 2 h``: as fine as it is near."""
    minutes, hours = seconds // 60, seconds // 3600
    if minutes < 2:
        return f"{seconds} s"
    if hours < 1:
        return f"{minutes} min"
    return f"{hours} h {minutes % 60} min" if hours < 24 else f"{hours // 24} d {hours % 24} h"


def _clock(time_ns: int) -> str:
    moment = datetime.fromtimestamp(time_ns // 1_000_000_000)
    today = moment.date() == datetime.now().date()
    return moment.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S")


def _path(model: Model, count: int) -> str:
    path = " > ".join(level.title for level in model.levels)
    found = f"  /{visible(model.level.filter)}" if model.level.filter else ""
    return f"{path}  ({count}){found}"


def _headings(level: Level, columns: Sequence[Column], widths: Sequence[int]) -> str:
    cells = []
    for column, width in zip(columns, widths, strict=True):
        mark = ("v" if level.reverse else "^") if column.title == level.column else ""
        cells.append(fit(column.title[: max(0, width - len(mark))] + mark, width, right=column.right))
    return " ".join(cells)


def _row(
    row: Row, columns: Sequence[Column], widths: Sequence[int], width: int, chosen: bool, colours: bool
) -> str:
    cells = [fit(c.cell(row), w, right=c.right) for c, w in zip(columns, widths, strict=True)]
    line = fit((">" if chosen else " ") + " ".join(cells), width)
    if chosen:
        return _styled(line, "7", colours)
    share = number(row, "cpu_percent")
    return _styled(line, "31" if share >= 80 else "33" if share >= 20 else "", colours)


def _message(model: Model, rows: Sequence[Row]) -> str:
    if model.prompt is not None:
        return f"{'time: ' if model.prompt_for_time else '/'}{visible(model.prompt)}_"
    if model.message:
        return model.message
    if not rows and model.level.frame.time_ns:
        return "nothing here" + (" that the filter lets through" if model.level.filter else "")
    return ""


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, max(20, width), initial_indent="   ", subsequent_indent="   ")


def _styled(line: str, style: str, colours: bool) -> str:
    return f"\x1b[{style}m{line}" if colours and style else line
