"""A container's rows as curves: even steps, rates and averages in columns.

Pure arithmetic on rows; which rows is ``reader.py``'s question.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from collector.history.growth import growth

if TYPE_CHECKING:
    from collector.history.rows import Rows

__all__ = ["COLUMNS", "Curves", "curves"]

_Floats = npt.NDArray[np.float64]
_Numbers = npt.NDArray[Any]

#: Columns of curves, with their units: what is known at each step, None where nothing is.
COLUMNS: Mapping[str, str] = {
    "cpu_percent": "average, 100 is one whole CPU",
    "cpu_percent_max": "highest of the resolution's steps within this one",
    "throttled_percent": "share of the time it was throttled",
    "memory_bytes": "average usage",
    "memory_bytes_max": "highest usage sampled",
    "working_set_bytes": "average usage without inactive page cache",
    "working_set_bytes_max": "highest of it sampled",
    "memory_limit_bytes": "0 is none",
    "rx_bytes_per_second": "received",
    "tx_bytes_per_second": "sent",
    "read_bytes_per_second": "read from block devices",
    "write_bytes_per_second": "written to block devices",
    "pids": "average",
    "pids_max": "highest sampled",
}

_RATES = {
    "cpu_percent": ("cpu_us", 100.0),
    "throttled_percent": ("throttled_us", 100.0),
    "rx_bytes_per_second": ("rx_bytes", 1e6),
    "tx_bytes_per_second": ("tx_bytes", 1e6),
    "read_bytes_per_second": ("read_bytes", 1e6),
    "write_bytes_per_second": ("write_bytes", 1e6),
}
_AVERAGES = {
    "memory_bytes": ("memory_avg", 1.0),
    "working_set_bytes": ("working_avg", 1.0),
    "memory_limit_bytes": ("limit", 1.0),
    "pids": ("pids_avg", 1e-3),
}
_HIGHEST = {
    "memory_bytes_max": "memory_max",
    "working_set_bytes_max": "working_max",
    "pids_max": "pids_max",
}


@dataclass(frozen=True, slots=True)
class Curves:
    """Columns of equal length; ``times`` are where the steps begin, in Unix seconds."""

    times: Sequence[int]
    columns: Mapping[str, Sequence[float | None]]
    totals: Mapping[str, float]  #: what the counters grew by in all of it: ``cpu_seconds``, ``rx_bytes``, …
    #: Of the columns that are averages, over all the time that is known: not the steps' mean, for a young
    #: container's first step may be a second of ten minutes.
    averages: Mapping[str, float | None]


def curves(rows: Rows, start_us: int, step_us: int, count: int) -> Curves:
    """``count`` steps of ``step_us`` from ``start_us``, of one container's rows in the order written.

    A row counts where its last sample is; rates are growth by the time it took.
    """
    grown = growth(rows)
    where = (grown.values["time_us"] - start_us) // step_us
    inside = (where >= 0) & (where < count)
    where = where[inside]
    values = grown.values[inside]
    span = grown.span_us[inside].astype(np.float64)
    deltas = {name: delta[inside] for name, delta in grown.grown.items()}
    columns: dict[str, Sequence[float | None]] = {}
    spans = np.bincount(where, span, count)
    weights = np.maximum(values["samples"], 1).astype(np.float64)
    samples = np.bincount(where, weights, count)
    for name, (counter, factor) in _RATES.items():
        columns[name] = _listed(_quotient(np.bincount(where, deltas[counter], count) * factor, spans))
    columns["cpu_percent_max"] = _listed(_highest(where, _quotient(deltas["cpu_us"] * 100.0, span), count))
    for name, (gauge, factor) in _AVERAGES.items():
        columns[name] = _listed(
            _quotient(np.bincount(where, values[gauge] * weights, count), samples) * factor
        )
    for name, gauge in _HIGHEST.items():
        columns[name] = _listed(_highest(where, values[gauge].astype(np.float64), count))
    totals = {
        name: float(delta.sum()) for name, delta in deltas.items() if name not in ("cpu_us", "throttled_us")
    }
    totals["cpu_seconds"] = float(deltas["cpu_us"].sum()) / 1e6
    totals["throttled_seconds"] = float(deltas["throttled_us"].sum()) / 1e6
    times = range(
        start_us // 1_000_000, start_us // 1_000_000 + count * (step_us // 1_000_000), step_us // 1_000_000
    )
    averages = {
        name: _listed(_quotient(deltas[counter].sum(keepdims=True) * factor, span.sum(keepdims=True)))[0]
        for name, (counter, factor) in _RATES.items()
    } | {
        name: _listed(
            _quotient((values[gauge] * weights).sum(keepdims=True), weights.sum(keepdims=True)) * factor
        )[0]
        for name, (gauge, factor) in _AVERAGES.items()
    }
    return Curves(times, {name: columns[name] for name in COLUMNS}, totals, averages)


def _quotient(above: _Numbers, below: _Numbers) -> _Floats:
    quotient: _Floats = np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0)
    return quotient


def _highest(where: npt.NDArray[np.int64], values: _Floats, count: int) -> _Floats:
    highest = np.full(count, np.nan)
    np.fmax.at(highest, where, values)
    return highest


def _listed(values: _Floats, digits: int = 3) -> list[float | None]:
    return [
        None if value != value else value for value in np.round(values, digits).tolist()
    ]  # NaN is no JSON
