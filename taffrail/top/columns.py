"""The columns of each list: heading, the letter that sorts by it, how a row's cell is written and compared.

Rows are the API's JSON objects. How columns fit a width is ``layout.py``'s.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from taffrail.terminal import visible
from taffrail.units import bytes_size, human_size

__all__ = ["FLEET_COLUMNS", "LISTS", "Column", "Kind", "Row", "number", "text_of"]

Row = Mapping[str, object]
Kind = str  #: containers, processes, threads, files or connections


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a list."""

    title: str
    letter: str  #: sorts by it; upper case
    cell: Callable[[Row], str]
    value: Callable[[Row], float | str]
    width: int  #: the narrowest that is of use
    right: bool = True  #: numbers are aligned to the right and sorted from the largest
    wide: bool = False  #: takes what is left of the line


def number(row: Row, *keys: str) -> float:
    """The sum of the row's numbers; 0 for those it does not have."""
    return sum(float(value) for value in map(row.get, keys) if isinstance(value, int | float))


def text_of(row: Row, key: str) -> str:
    """A text of the row, safe on a terminal."""
    return visible(str(row.get(key) or "")).replace("\t", " ")


def _text(title: str, letter: str, key: str, width: int, *, wide: bool = False) -> Column:
    return Column(
        title,
        letter,
        lambda row: text_of(row, key),
        lambda row: str(row.get(key) or "").lower(),
        width,
        False,
        wide,
    )


def _plain(title: str, letter: str, key: str, width: int) -> Column:
    return Column(title, letter, lambda row: f"{number(row, key):.0f}", lambda row: number(row, key), width)


def _percent(row: Row) -> str:
    return f"{number(row, 'cpu_percent'):.1f}" if row.get("cpu_percent") is not None else "-"


def _bytes(title: str, letter: str, key: str) -> Column:
    return Column(
        title,
        letter,
        lambda row: "-" if row.get(key) is None else bytes_size(number(row, key)),
        lambda row: number(row, key),
        9,
    )


def _rates(title: str, letter: str, one: str, other: str) -> Column:
    def cell(row: Row) -> str:
        if row.get(one) is None:
            return "-"
        return f"{human_size(number(row, one))}/{human_size(number(row, other))}"

    return Column(title, letter, cell, lambda row: number(row, one, other), 13)


def _limit(row: Row) -> str:
    if row.get("memory_usage_bytes") is None:
        return "-"
    return f"{bytes_size(number(row, 'memory_usage_bytes'))}/{bytes_size(number(row, 'memory_limit_bytes'))}"


def _pids(row: Row) -> str:
    return f"{number(row, 'pids'):.0f}" if row.get("pids") else "-"  # the host's cgroup does not count them


def _cpu_time(row: Row) -> str:
    if row.get("cpu_seconds") is None:
        return "-"
    seconds = number(row, "cpu_seconds")
    return f"{int(seconds // 60)}:{seconds % 60:05.2f}"


def _age(row: Row) -> str:
    if row.get("started_ns") is None:
        return "-"
    seen_ns = number(row, "seen_ns") or time.time_ns()
    seconds = max(0.0, (seen_ns - number(row, "started_ns")) / 1e9)
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{int(seconds)}s"


def _end(address: str, port: str) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        host, where = text_of(row, address), int(number(row, port))
        return f"{f'[{host}]' if ':' in host else host}:{where or '*'}"

    return cell


def _peer(row: Row) -> str:
    return " ".join(part for part in (text_of(row, "remote_name"), text_of(row, "translated")) if part)


_CPU = Column("CPU%", "C", _percent, lambda row: number(row, "cpu_percent"), 6)
_TIME = Column("TIME", "T", _cpu_time, lambda row: number(row, "cpu_seconds"), 8)
_IO = _rates("READ/WRITE/s", "I", "read_bytes_per_second", "write_bytes_per_second")
_LOCAL, _REMOTE = _end("local", "local_port"), _end("remote", "remote_port")

#: The columns of each list, the most important first: the last ones go where the terminal is narrow.
LISTS: Mapping[Kind, tuple[Column, ...]] = {
    "containers": (
        _text("NAME", "N", "name", 8, wide=True),
        _CPU,
        Column("MEM/LIMIT", "M", _limit, lambda row: number(row, "memory_usage_bytes"), 17),
        _rates("NET rx/tx /s", "E", "net_rx_bytes_per_second", "net_tx_bytes_per_second"),
        _rates("BLOCK r/w /s", "B", "block_read_bytes_per_second", "block_write_bytes_per_second"),
        Column("PIDS", "P", _pids, lambda row: number(row, "pids"), 5),
        _text("STATE", "S", "state", 7),
        _text("IMAGE", "G", "image", 16),
    ),
    "processes": (
        _plain("PID", "P", "pid", 7),
        _CPU,
        _bytes("RES", "M", "resident_bytes"),
        _text("S", "S", "state", 1),
        _plain("THR", "H", "threads", 4),
        _text("USER", "U", "user", 8),
        _text("COMMAND", "N", "command", 18, wide=True),
        _IO,
        _TIME,
        _bytes("VIRT", "V", "virtual_bytes"),
        _bytes("SHR", "R", "shared_bytes"),
        Column("AGE", "A", _age, lambda row: -number(row, "started_ns"), 5),
        _text("CONTAINER", "O", "container", 12),
    ),
    "threads": (
        _plain("TID", "P", "tid", 7),
        _CPU,
        _text("S", "S", "state", 1),
        _text("NAME", "N", "name", 16, wide=True),
        _TIME,
        _IO,
        Column("AGE", "A", _age, lambda row: -number(row, "started_ns"), 5),
    ),
    "files": (
        _plain("FD", "D", "fd", 5),
        _text("TYPE", "T", "kind", 9),
        _text("FLAGS", "L", "flags", 12),
        _plain("POS", "O", "position", 10),
        _text("PATH", "N", "path", 20, wide=True),
    ),
    "connections": (
        _text("PROTO", "T", "protocol", 5),
        _text("STATE", "S", "state", 11),
        Column("LOCAL", "L", _LOCAL, _LOCAL, 21, False),
        Column("REMOTE", "R", _REMOTE, _REMOTE, 21, False),
        Column("PEER", "N", _peer, _peer, 12, False, True),
        _bytes("SENT", "E", "bytes_sent"),
        _bytes("RECEIVED", "V", "bytes_received"),
        _plain("RECV-Q", "I", "receive_queue", 6),
        _plain("SEND-Q", "O", "send_queue", 6),
        _plain("PID", "P", "pid", 7),
        _text("PROCESS", "C", "process", 12),
    ),
}

#: Those of the containers of several hosts: whether one is down has to be seen on a narrow terminal, too.
FLEET_COLUMNS = (
    _text("NAME", "N", "name", 18, wide=True),
    _CPU,
    _text("STATE", "S", "state", 7),
    _text("HOST", "H", "host", 10),
    *(column for column in LISTS["containers"][2:] if column.title != "STATE"),
)
