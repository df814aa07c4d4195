"""What ``/`` takes: words that all must be somewhere in a row, or an expression like ``cpu > 2 and name:web*``.

The expression is ``taffrail stats``' own, over processes, threads and the rest too.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from taffrail.stats_filter import FilterError, parse_filter
from taffrail.top.columns import LISTS, Kind, Row, number

__all__ = ["FilterError", "row_test"]

_EXPRESSION = re.compile(r"[<>=:]")


def row_test(kind: Kind, text: str) -> Callable[[Row], bool]:
    """The test of the rows of one list. Raises FilterError for an expression that cannot be read."""
    words = text.lower().split()
    # A colon alone may be an address; an expression begins with a field.
    if not _EXPRESSION.search(text) or (kind in ("files", "connections") and not re.search(r"[<>=]", text)):
        cells = [column.cell for column in LISTS[kind]]
        return lambda row: _has_all(words, " ".join(cell(row) for cell in cells).lower())
    test = parse_filter(text)
    return test if kind == "containers" else lambda row: test(_as_container(row))


def _has_all(words: list[str], text: str) -> bool:
    return all(word in text for word in words)


def _as_container(row: Row) -> Row:
    """The row under the names of a container's."""
    return {
        "name": row.get("name") or row.get("process") or row.get("kind") or "",
        "image": row.get("command") or row.get("path") or "",
        "id": str(row.get("pid") or row.get("tid") or row.get("fd") or ""),
        "state": row.get("state") or "",
        "cpu_percent": row.get("cpu_percent"),
        "memory_usage_bytes": row.get("resident_bytes"),
        "block_read_bytes_per_second": row.get("read_bytes_per_second"),
        "block_write_bytes_per_second": row.get("write_bytes_per_second"),
        "block_read_bytes": row.get("read_bytes"),
        "block_write_bytes": row.get("write_bytes"),
        "net_rx_bytes": row.get("bytes_received"),
        "net_tx_bytes": row.get("bytes_sent"),
        "pids": number(row, "threads"),
    }
