"""How ``taffrail ps`` looks: the containers of every engine in one table, or the processes of one container."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import orjson

from runtime.api.durations import human_duration
from taffrail.terminal import visible
from taffrail.units import bytes_size

__all__ = [
    "Column",
    "Row",
    "aligned",
    "container_rows",
    "container_table",
    "json_lines",
    "process_table",
    "status_text",
]

Row = Mapping[str, object]
Column = tuple[str, Callable[[Row], str]]  #: heading, and a row's cell

_DASH = "-"


def status_text(row: Row, now_ns: int) -> str:
    """``Up 5 seconds (healthy)``, ``Exited (137) 2 minutes ago``: docker ps' words."""
    started, finished = (now_ns - int(_number(row, key)) for key in ("started_ns", "finished_ns"))
    code = row.get("exit_code")
    ended = human_duration(finished) + " ago" if row.get("finished_ns") else ""
    match row.get("state"):
        case "running" | "paused" as state:
            up = f"Up {human_duration(started)}" if row.get("started_ns") else "Up"
            health = str(row.get("health") or "")
            note = "Paused" if state == "paused" else "health: starting" if health == "starting" else health
            return f"{up} ({note})" if note else up
        case "restarting":
            return f"Restarting ({code or 0}) {ended}".rstrip()
        case "removing":
            return "Removal In Progress"
        case "dead":
            return "Dead"
        case "exited":
            return f"Exited ({code if code is not None else '?'}) {ended}".rstrip()
        case "created":
            return "Created"
        case other:
            return str(other or "").capitalize()


def container_rows(
    containers: Sequence[Row], stats: Sequence[Row], *, every: bool, now_ns: int
) -> list[dict[str, object]]:
    """What the agent lists joined with what they use; running ones, or all."""
    used = {row["id"]: row for row in stats}
    rows = [
        {**used.get(container["id"], {}), **container, "status": status_text(container, now_ns)}
        for container in containers
        if every or container.get("state") in ("running", "paused", "restarting")
    ]
    return sorted(rows, key=lambda row: (str(row["engine"]), str(row["name"])))


def container_table(rows: Sequence[Row]) -> str:
    """Headings and a line each."""
    return aligned(
        (
            ("ID", lambda row: str(row["id"])[:12]),
            ("NAME", lambda row: str(row["name"])),
            ("IMAGE", lambda row: str(row.get("image") or _DASH)),
            ("STATUS", lambda row: str(row["status"])),
            ("ENGINE", lambda row: str(row.get("engine") or _DASH)),
            ("CPU %", lambda row: _percent(row) if row.get("time_ns") else _DASH),
            ("MEM", lambda row: _size(row, "memory_usage_bytes") if row.get("time_ns") else _DASH),
            ("LOG", lambda row: str(row.get("log_driver") or _DASH)),
        ),
        rows,
    )


def process_table(rows: Sequence[Row]) -> str:
    """The processes of one container or of the host."""
    several = any(row.get("container") != rows[0].get("container") for row in rows) if rows else False
    container: list[Column] = [("CONTAINER", lambda row: str(row.get("container") or _DASH))]
    return aligned(
        (
            ("PID", lambda row: str(row["pid"])),
            ("PPID", lambda row: str(row["parent"])),
            *(container if several else ()),
            ("USER", lambda row: str(row["user"])),
            ("S", lambda row: str(row["state"])),
            ("THR", lambda row: str(row["threads"])),
            ("CPU %", lambda row: f"{_number(row, 'cpu_percent'):.1f}"),
            ("RES", lambda row: _size(row, "resident_bytes")),
            ("READ/s", lambda row: _size(row, "read_bytes_per_second")),
            ("WRITE/s", lambda row: _size(row, "write_bytes_per_second")),
            ("COMMAND", lambda row: str(row["command"])),
        ),
        rows,
    )


def json_lines(rows: Sequence[Row]) -> str:
    """A JSON object a line, with every key the agent gave."""
    return "".join(orjson.dumps(row).decode() + "\n" for row in rows)


def aligned(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    """Headings and a line each, columns three spaces apart; whatever a cell holds is safe on a terminal."""
    cells = [tuple(title for title, _ in columns)]
    cells += [tuple(visible(cell(row)).replace("\t", " ") for _, cell in columns) for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "".join("   ".join(map(str.ljust, line, widths)).rstrip() + "\n" for line in cells)


def _number(row: Row, key: str) -> float:
    value = row.get(key)
    return float(value) if isinstance(value, int | float) else 0.0


def _percent(row: Row) -> str:
    return f"{_number(row, 'cpu_percent'):.2f}%" if row.get("cpu_percent") is not None else _DASH


def _size(row: Row, key: str) -> str:
    return bytes_size(_number(row, key)) if row.get(key) is not None else _DASH
