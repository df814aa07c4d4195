"""How ``taffrail stats`` looks: docker stats' columns and number formats, the name first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import orjson

from taffrail.units import bytes_size, human_size

__all__ = ["json_lines", "live_frame", "table"]

_HEADINGS = ("NAME", "CONTAINER ID", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS")


def _number(row: Mapping[str, object], key: str) -> float:
    value = row.get(key)
    return float(value) if isinstance(value, int | float) else 0.0


def _cells(row: Mapping[str, object]) -> tuple[str, ...]:
    """One container's row; dashes where there is no sample, as docker stats has them."""
    name, short = str(row["name"]), str(row["id"])[:12]
    if not row.get("time_ns"):
        return (name, short, "--", "-- / --", "--", "-- / --", "-- / --", "--")
    usage, limit = (bytes_size(_number(row, key)) for key in ("memory_usage_bytes", "memory_limit_bytes"))
    return (
        name,
        short,
        f"{_number(row, 'cpu_percent'):.2f}%",
        f"{usage} / {limit}",
        f"{_number(row, 'memory_percent'):.2f}%",
        f"{human_size(_number(row, 'net_rx_bytes'))} / {human_size(_number(row, 'net_tx_bytes'))}",
        f"{human_size(_number(row, 'block_read_bytes'))} / {human_size(_number(row, 'block_write_bytes'))}",
        str(int(_number(row, "pids"))),
    )


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """A heading and a line per container, columns three spaces apart."""
    cells = [_HEADINGS, *(_cells(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "".join("   ".join(map(str.ljust, line, widths)).rstrip() + "\n" for line in cells)


def live_frame(rows: Sequence[Mapping[str, object]]) -> str:
    """The table over a cleared terminal: cursor home, each line erased to its end, the rest erased."""
    return "\x1b[H" + table(rows).replace("\n", "\x1b[K\n") + "\x1b[J"


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
