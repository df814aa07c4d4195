"""How ``taffrail history --processes`` and ``--connections`` look: a row a process, a row a service used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from taffrail.ps_table import Column, Row, aligned
from taffrail.units import bytes_size

__all__ = ["connections_table", "processes_table"]

_COMMAND = 60  # of a command line, at most


def processes_table(rows: Sequence[Row], limit: int = 0, left_out: int = 0, *, several: bool) -> str:
    """The processes, those that used most CPU time first; ``several``: with their containers.

    At most ``limit`` (0: all); the last line counts the rest and those ``left_out`` of the answer.
    """
    container: list[Column] = [("CONTAINER", _text("container"))] if several else []
    columns: tuple[Column, ...] = (
        ("PID", _text("pid")),
        *container,
        ("USER", _text("user")),
        ("CPU TIME", lambda row: f"{_number(row, 'cpu_seconds'):.2f} s"),
        ("MAX CPU %", lambda row: f"{_number(row, 'cpu_percent_max'):.1f}"),
        ("AT", lambda row: _moment(_number(row, "cpu_max_at"))),
        ("MAX RES", _size("resident_bytes_max")),
        ("READ", _size("read_bytes")),
        ("WRITTEN", _size("write_bytes")),
        ("BUSIEST THREAD", _thread),
        ("COMMAND", lambda row: str(row["command"])[:_COMMAND]),
    )
    return _limited(columns, rows, limit, left_out, "processes")


def connections_table(nodes: Sequence[Row], edges: Sequence[Row], limit: int = 0, left_out: int = 0) -> str:
    """The services used, those that carried most first, then those with most connections."""
    names = {node["id"]: str(node["name"]) for node in nodes}
    columns: tuple[Column, ...] = (
        ("CLIENT", lambda row: names.get(row["client"], str(row["client"]))),
        ("SERVER", lambda row: names.get(row["server"], str(row["server"]))),
        ("SERVICE", lambda row: f"{row['port']}/{row['protocol']}"),
        ("CONNECTIONS", _text("total")),
        ("SENT", _size("bytes_sent")),
        ("RECEIVED", _size("bytes_received")),
        ("FIRST SEEN", lambda row: _moment(_number(row, "first_seen_ns") / 1e9)),
        ("LAST SEEN", lambda row: _moment(_number(row, "last_seen_ns") / 1e9)),
    )

    def order(row: Row) -> tuple[float, float]:
        return -_number(row, "bytes_sent") - _number(row, "bytes_received"), -_number(row, "total")

    return _limited(columns, sorted(edges, key=order), limit, left_out, "connections")


def _limited(columns: Sequence[Column], rows: Sequence[Row], limit: int, left_out: int, what: str) -> str:
    """The first rows, and how many more there are."""
    if not rows:
        return f"no {what} are known of this time\n"
    shown = rows[:limit] if limit else rows
    hidden, more = len(rows) - len(shown), ""
    if hidden:
        more = f"and {hidden} more: --limit 0 shows them\n"
    if left_out:
        more += f"and {left_out} that the agent left out: choose a container or a shorter time\n"
    return aligned(columns, shown) + more


def _text(key: str) -> Callable[[Row], str]:
    return lambda row: str(row.get(key, "-"))


def _size(key: str) -> Callable[[Row], str]:
    return lambda row: bytes_size(_number(row, key))


def _thread(row: Row) -> str:
    threads = row["threads"]
    if not isinstance(threads, list) or not threads:
        return "-"
    return f"{threads[0]['name']} ({threads[0]['cpu_seconds']:.1f} s)"


def _number(row: Row, key: str) -> float:
    value = row.get(key)
    return float(value) if isinstance(value, int | float) else 0.0


def _moment(seconds: float) -> str:
    moment = datetime.fromtimestamp(int(seconds))
    today = moment.date() == datetime.now().date()
    return moment.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S")
