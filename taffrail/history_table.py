"""How ``taffrail history`` looks: two sparklines over the whole range, and a row of numbers a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from taffrail.terminal import visible
from taffrail.units import bytes_size, human_size

__all__ = ["containers_table", "history_table", "sparkline"]

_BARS = "▁▂▃▄▅▆▇█"
_HEADINGS = (
    "TIME",
    "CPU %",
    "MAX",
    "THROTTLED",
    "MEM",
    "MAX",
    "NET RX/S",
    "NET TX/S",
    "READ/S",
    "WRITE/S",
    "PIDS",
)
_DAY = 86400

Values = Sequence[float | None]
Columns = Mapping[str, Values]


def sparkline(values: Values) -> str:
    """A character a value, from zero to the highest; a space where nothing is known."""
    highest = max((value for value in values if value is not None), default=0.0)
    scale = (len(_BARS) - 1) / highest if highest > 0 else 0.0
    return "".join(" " if value is None else _BARS[round(max(value, 0.0) * scale)] for value in values)


def history_table(
    title: str,
    times: Sequence[int],
    columns: Columns,
    overview: Columns,
    averages: Mapping[str, float | None],
) -> str:
    """The whole output: title, sparklines of ``overview``, a line for every step something is known of.

    ``averages`` are over all the time that is known, whatever the steps.
    """
    lines = [visible(title)]
    for name, key, form_of in (("CPU", "cpu_percent", _percent), ("MEM", "working_set_bytes", _memory)):
        lines.append(_overview(name, overview[key], overview[f"{key}_max"], averages[key], form_of))
    lines.append("")
    form = "%Y-%m-%d %H:%M" if times and times[-1] - times[0] >= _DAY else "%H:%M:%S"
    cells: list[Sequence[str]] = [_HEADINGS]
    for index, second in enumerate(times):
        if columns["memory_bytes"][index] is not None:
            cells.append((datetime.fromtimestamp(second).strftime(form), *_cells(columns, index)))
    if len(cells) == 1:
        return "\n".join([*lines[:1], "nothing is known of this time"]) + "\n"
    return "\n".join(lines) + "\n" + _aligned(cells)


def containers_table(rows: Sequence[Mapping[str, object]]) -> str:
    """Every container with history: name, id, image, from when to when."""
    cells = [("NAME", "CONTAINER ID", "IMAGE", "FROM", "TO")]
    for row in rows:
        moments = [datetime.fromtimestamp(int(str(row[key])) // 1_000_000) for key in ("first_us", "last_us")]
        first, last = (moment.strftime("%Y-%m-%d %H:%M:%S") for moment in moments)
        cells.append(
            (visible(str(row["name"])), str(row["id"])[:12], visible(str(row["image"])), first, last)
        )
    return _aligned(cells, numbers=False)


def _overview(
    name: str, values: Values, highest: Values, average: float | None, form: Callable[[float | None], str]
) -> str:
    most = max((value for value in highest if value is not None), default=None)
    return f"{name}  {sparkline(values)}  average {form(average)}, highest {form(most)}"


def _cells(columns: Columns, index: int) -> tuple[str, ...]:
    def at(name: str) -> float | None:
        return columns[name][index]

    rates = ("rx_bytes_per_second", "tx_bytes_per_second", "read_bytes_per_second", "write_bytes_per_second")
    pids = at("pids")
    return (
        _percent(at("cpu_percent")),
        _percent(at("cpu_percent_max")),
        _percent(at("throttled_percent")),
        _memory(at("working_set_bytes")),
        _memory(at("working_set_bytes_max")),
        *(_rate(at(name)) for name in rates),
        f"{pids:.1f}".removesuffix(".0") if pids else "--",  # the kernel does not count the host's
    )


def _percent(value: float | None) -> str:
    return "--" if value is None else f"{value:.2f}%"


def _memory(value: float | None) -> str:
    return "--" if value is None else bytes_size(value)


def _rate(value: float | None) -> str:
    return "--" if value is None else human_size(value)


def _aligned(cells: Sequence[Sequence[str]], *, numbers: bool = True) -> str:
    """Columns three spaces apart; numbers to the right, the first column and texts to the left."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for line in cells:
        words = [
            text.rjust(width) if numbers and index else text.ljust(width)
            for index, (text, width) in enumerate(zip(line, widths, strict=True))
        ]
        lines.append("   ".join(words).rstrip() + "\n")
    return "".join(lines)
