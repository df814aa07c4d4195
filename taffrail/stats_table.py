"""How ``taffrail stats`` looks: docker stats' columns and number formats, the name first; JSON and CSV beside."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence

import orjson

from taffrail.terminal import visible
from taffrail.units import bytes_size, human_size

__all__ = ["CSV_COLUMNS", "csv_lines", "json_lines", "table_lines"]

_HEADINGS = ("NAME", "CONTAINER ID", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS")

#: Names and units of CSV columns; rows of JSON have them too.
CSV_COLUMNS = (
    "time_ns",
    "host",
    "name",
    "id",
    "image",
    "engine",
    "state",
    "health",
    "cpu_percent",
    "online_cpus",
    "memory_usage_bytes",
    "memory_limit_bytes",
    "memory_percent",
    "net_rx_bytes",
    "net_tx_bytes",
    "net_rx_bytes_per_second",
    "net_tx_bytes_per_second",
    "block_read_bytes",
    "block_write_bytes",
    "block_read_bytes_per_second",
    "block_write_bytes_per_second",
    "pids",
)


def _number(row: Mapping[str, object], key: str) -> float:
    value = row.get(key)
    return float(value) if isinstance(value, int | float) else 0.0


def _cells(row: Mapping[str, object]) -> tuple[str, ...]:
    """One container's row; dashes where there is no sample, as docker stats has them, or no such counter."""
    name, short = visible(str(row["name"])), visible(str(row["id"]))[:12]
    if not row.get("time_ns"):
        return (name, short, "--", "-- / --", "--", "-- / --", "-- / --", "--")
    usage, limit = (_known(row, key, bytes_size) for key in ("memory_usage_bytes", "memory_limit_bytes"))
    return (
        name,
        short,
        _known(row, "cpu_percent", "{:.2f}%".format),
        f"{usage} / {limit}",
        _known(row, "memory_percent", "{:.2f}%".format),
        f"{human_size(_number(row, 'net_rx_bytes'))} / {human_size(_number(row, 'net_tx_bytes'))}",
        f"{human_size(_number(row, 'block_read_bytes'))} / {human_size(_number(row, 'block_write_bytes'))}",
        _known(row, "pids", "{:.0f}".format),
    )


def _known(row: Mapping[str, object], key: str, form: Callable[[float], str]) -> str:
    """The number in its form, dashes where nobody counts it."""
    return "--" if key in row and row[key] is None else form(_number(row, key))


def table_lines(rows: Sequence[Mapping[str, object]], with_host: bool = False) -> list[str]:
    """A heading and a line per container, columns three spaces apart, the host first where there are several."""
    cells = [_HEADINGS, *(_cells(row) for row in rows)]
    if with_host:
        hosts = ("HOST", *(visible(str(row["host"])) for row in rows))
        cells = [(host, *line) for host, line in zip(hosts, cells, strict=True)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["   ".join(map(str.ljust, line, widths)).rstrip() for line in cells]


def json_lines(rows: Sequence[Mapping[str, object]]) -> str:
    """A JSON object per container: docker stats' keys, and the unrounded numbers beside them."""
    lines = []
    for row in rows:
        name, short, cpu, usage, share, net, block, pids = _cells(row)
        docker = {
            "Name": name,
            "Container": short,
            "ID": short,
            "CPUPerc": cpu,
            "MemUsage": usage,
            "MemPerc": share,
        }
        lines.append(
            orjson.dumps({**docker, "NetIO": net, "BlockIO": block, "PIDs": pids, **row}).decode() + "\n"
        )
    return "".join(lines)


def csv_lines(rows: Sequence[Mapping[str, object]], heading: bool) -> str:
    """A line per container (RFC 4180, lines end with LF), numbers unrounded, empty where there is none."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    if heading:
        writer.writerow(CSV_COLUMNS)
    for row in rows:
        sampled = bool(row.get("time_ns"))
        writer.writerow(
            row.get(column, "") if sampled or not isinstance(row.get(column), int | float) else ""
            for column in CSV_COLUMNS
        )
    return out.getvalue()
