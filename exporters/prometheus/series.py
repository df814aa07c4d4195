"""The series of one container: their label text, rendered once, and their values, read anew each scrape.

Values come out as one flat list, in the order of the rows, without the absent ones. While the same rows
are present the label text is used again; ``exposition.py`` puts lists together to a page. The text that
all series of a container share is one string, the text that differs is shared among containers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import compress
from operator import attrgetter
from typing import Any

from collector.cgroup.v2.cpu import shares_as_asked
from collector.container import Container
from collector.lanes.board import Key, Record
from collector.sample import BlockIO, Cpu, Memory, Sample
from collector.sampler import HOST
from exporters.prometheus.families import FAMILIES, Family, Kind
from exporters.prometheus.labels import render

__all__ = ["LANE_ROWS", "Entry", "Number", "Row", "rows_of"]

logger = logging.getLogger(__name__)

Number = int | float
#: A series: the number of its family's row in the table, and its line between the container's own labels
#: and the value.
Row = tuple[int, str]

#: Rows a container keeps after its end: what was counted is still true, what was used is not.
_AFTER_END = frozenset(
    {"container.last_seen", "container.state", "container.exit_code", "container.info", "container.started"}
)


def rows_of(group: str) -> tuple[int, ...]:
    """The numbers of a group's rows in the table."""
    return tuple(number for number, family in enumerate(FAMILIES) if family.group == group)


def _getter(rows: Sequence[int]) -> Callable[[Any], tuple[Any, ...]]:
    return attrgetter(*(FAMILIES[row].field for row in rows))


_CONTAINER = rows_of("container")
_CPU, _MEMORY, _STAT = rows_of("cpu"), rows_of("memory"), rows_of("stat")
_PRESSURE, _TASKS = rows_of("pressure"), rows_of("tasks")
_INTERFACE, _DEVICE = rows_of("interface"), rows_of("device")
#: Rows of what lanes read, by the family's name.
LANE_ROWS = {FAMILIES[row].name: row for row in rows_of("lane")}
_LIFECYCLE = tuple(FAMILIES[row].field for row in _CONTAINER)
_STALL, _LIMIT = rows_of("stall"), rows_of("limit")
_FIXED = (*_CONTAINER, *_CPU, *_MEMORY, *_STAT, *_PRESSURE, *_STALL, *_TASKS, *_LIMIT)

_get_cpu, _get_memory, _get_tasks = _getter(_CPU), _getter(_MEMORY), _getter(_TASKS)
_get_interface, _get_device = _getter(_INTERFACE), _getter(_DEVICE)
_NO_CPU, _NO_MEMORY = (None,) * len(_CPU), (None,) * len(_MEMORY)
_NO_STAT, _NO_PRESSURE = (None,) * len(_STAT), (None,) * (len(_PRESSURE) + len(_STALL))
_STAT_KEYS = tuple(FAMILIES[row].field for row in _STAT)
#: Resources some tasks can wait for, in the table's order; behind them come the interrupts, for which all do.
_RESOURCES = tuple(dict.fromkeys(FAMILIES[row].field.partition(".")[0] for row in _PRESSURE))[:-1]
_USAGE_ROW = next(row for row in _CPU if FAMILIES[row].source == "cpu.usage_seconds")

#: Positions in the fixed part whose absent value is a number, where their controller is there at all.
_DEFAULTS = tuple(
    (position, FAMILIES[row].default, FAMILIES[row].group)
    for position, row in enumerate(_FIXED)
    if FAMILIES[row].default is not None
)
_MEMORY_DEFAULTS = tuple((p, d) for p, d, group in _DEFAULTS if group == "memory")
_TASK_DEFAULTS = tuple((p, d) for p, d, group in _DEFAULTS if group == "tasks")
_PIDS = _FIXED.index(_TASKS[0])
_SHARES = next(position for position, row in enumerate(_FIXED) if FAMILIES[row].source == "cpu.shares")


def _stays(family: Family) -> bool:
    return family.kind is Kind.COUNTER or family.source in _AFTER_END


_FIXED_STAYS = tuple(_stays(FAMILIES[row]) for row in _FIXED)


@lru_cache(maxsize=16384)
def _row(number: int, labels: str) -> Row:
    """A row with what comes behind the container's labels; equal ones are one object."""
    return number, f",{labels}}} " if labels else "} "


class Entry:
    """One container's part of the page."""

    __slots__ = ("_container", "_masks", "_present", "_shape", "_slow", "head", "rows", "values")

    def __init__(self) -> None:
        self.head = ""  #: what every line has behind the series' name: a brace and the container's labels
        self.rows: list[Row] = []
        self.values: list[Number] = []
        self._container: Container | None = None
        self._present: list[bool] = []
        self._shape: object = None
        self._slow: object = None
        self._masks: list[list[bool] | None] = []  # of each group's readings, those shown; None: all

    def update(
        self,
        container: Container,
        base: Callable[[Container], str],
        sample: Sample | None,
        last_seen: int | None,
        running: bool,
        device_name: Callable[[str], str],
        records: Mapping[str, Record],
        memory_bytes: int = 0,
    ) -> bool:
        """Take the newest values; true when the set of series is another than before.

        ``memory_bytes`` is the host's memory, which a container without a limit may use.
        """
        shape: tuple[object, ...] = (running,)
        raw: list[Number | None] = _lifecycle(container, sample, last_seen)
        if sample is not None and last_seen is not None:
            raw += _fixed_values(sample, memory_bytes)
            _put_defaults(raw, sample)
            if container.cpu_shares and sample.cpu and sample.cpu.shares:
                raw[_SHARES] = shares_as_asked(sample.cpu.shares, container.cpu_shares)
            per_cpu = sample.cpu.per_cpu_seconds if sample.cpu else ()
            if per_cpu:
                raw[_FIXED.index(_USAGE_ROW)] = None  # never both, or sums would be double
                raw += per_cpu
            for interface in sample.interfaces:
                raw += _get_interface(interface)
            for device in sample.block_io:
                raw += _get_device(device)
            shape = (
                running,
                len(per_cpu),
                [interface.name for interface in sample.interfaces],
                [device.device for device in sample.block_io],
            )
        present = [value is not None for value in raw]
        if not running:
            present[: len(_FIXED)] = map(_both, present, _FIXED_STAYS)
        self.values = list(compress(raw, present))  # type: ignore[arg-type]
        changed = self._take_slow(records if last_seen is not None else {}, running)
        if not changed and (
            container is self._container and present == self._present and shape == self._shape
        ):
            return False
        if container is not self._container:
            self._container, self.head = container, "{" + base(container)
        self._present, self._shape = present, shape
        self.rows = list(compress(_all_rows(container, sample, len(raw), device_name), present))
        for record, mask in zip(records.values(), self._masks, strict=False):
            shown = record.keys if mask is None else compress(record.keys, mask)
            self.rows += [_row(LANE_ROWS[name], render(dict(labels))) for name, labels in shown]
        return True

    def _take_slow(self, records: Mapping[str, Record], running: bool) -> bool:
        """Append what the lanes read; true when it is another set of series."""
        slow = (running, [record.keys for record in records.values()])
        changed = slow != self._slow
        if changed:
            self._slow = slow
            self._masks = [_mask(record.keys, running) for record in records.values()]
        for record, mask in zip(records.values(), self._masks, strict=True):
            self.values += record.values if mask is None else compress(record.values, mask)
        return changed


def _all_rows(
    container: Container, sample: Sample | None, count: int, device_name: Callable[[str], str]
) -> list[Row]:
    """The rows of everything the sampling pass reads."""
    rows = []
    for row in _FIXED:
        family = FAMILIES[row]
        own = _own_labels(container, family)
        rows.append(_row(row, ",".join(part for part in (family.labels, own) if part)))
    if sample is None or count <= len(_CONTAINER):
        return rows[:count]
    if sample.cpu:
        rows += [
            _row(_USAGE_ROW, f'cpu="cpu{number:02d}"') for number in range(len(sample.cpu.per_cpu_seconds))
        ]
    for interface in sample.interfaces:
        label = render({"interface": interface.name})
        rows += [_row(row, label) for row in _INTERFACE]
    for device in sample.block_io:
        for row in _DEVICE:
            further = _device_labels(row, device, device_name)
            rows.append(_row(row, ",".join(part for part in (FAMILIES[row].labels, further) if part)))
    return rows


def _mask(keys: tuple[Key, ...], running: bool) -> list[bool] | None:
    """Which readings are shown: all that the table knows, after the end only what was counted."""
    rows = [LANE_ROWS.get(name) for name, _ in keys]
    if None in rows:
        unknown = sorted({name for name, _ in keys} - LANE_ROWS.keys())
        logger.error("readings of %s are left off /metrics: the table has no such family", ", ".join(unknown))
    elif running:
        return None
    return [row is not None and (running or FAMILIES[row].kind is Kind.COUNTER) for row in rows]


def _both(left: bool, right: bool) -> bool:
    return left and right


def _lifecycle(container: Container, sample: Sample | None, last_seen: int | None) -> list[Number | None]:
    """Values of the ``container`` rows, in the table's order; the host only runs, it has no engine."""
    if container.id == HOST:
        seen = {"last_seen": last_seen, "started": container.started_ns // 1_000_000_000 or None}
        return [seen.get(field) for field in _LIFECYCLE]
    kills = sample.memory.oom_kills if sample and sample.memory else None
    if container.oom_killed:
        kills = max(kills or 0, 1)
    values: dict[str, Number | None] = {
        "last_seen": last_seen,
        "health": {"healthy": 1, "": -1}.get(container.health, 0),
        "started": container.started_ns // 1_000_000_000 or None,
        "created": container.created_ns // 1_000_000_000 or None,
        "oom_kills": kills,
        "state": 1,
        "exit_code": container.exit_code,
        "restarts": container.restarts,
        "info": 1,
    }
    return [values[field] for field in _LIFECYCLE]


def _fixed_values(sample: Sample, memory_bytes: int) -> list[Number | None]:
    cpu, memory = sample.cpu, sample.memory
    values: list[Number | None] = [
        *(_get_cpu(cpu) if cpu else _NO_CPU),
        *(_get_memory(memory) if memory else _NO_MEMORY),
    ]
    if memory and memory.stat:
        values += map(memory.stat.get, _STAT_KEYS)
    else:
        values += _NO_STAT
    if sample.pressure:
        for resource in _RESOURCES:
            pressure = sample.pressure.get(resource)
            values += (pressure.some_seconds, pressure.full_seconds) if pressure else (None, None)
        interrupts = sample.pressure.get("irq")
        values.append(interrupts.full_seconds if interrupts else None)
        for resource in _RESOURCES:
            pressure = sample.pressure.get(resource)
            values += (pressure.some_avg10, pressure.full_avg10) if pressure else (None, None)
        values.append(interrupts.full_avg10 if interrupts else None)
    else:
        values += _NO_PRESSURE
    values += _get_tasks(sample)
    values += _limits(cpu, memory, memory_bytes)
    return values


def _limits(cpu: Cpu | None, memory: Memory | None, memory_bytes: int) -> tuple[Number | None, Number | None]:
    """Values of the ``limit`` rows: cores of the quota, and how much of the memory there is is in use."""
    cores = cpu.quota_us / cpu.period_us if cpu and cpu.quota_us and cpu.period_us else None
    limit = min(memory.limit_bytes or memory_bytes, memory_bytes or memory.limit_bytes or 0) if memory else 0
    return cores, memory.working_set_bytes / limit if memory and limit else None


def _put_defaults(raw: list[Number | None], sample: Sample) -> None:
    if sample.memory:
        for position, default in _MEMORY_DEFAULTS:
            if raw[position] is None:
                raw[position] = default
    if raw[_PIDS] is not None:
        for position, default in _TASK_DEFAULTS:
            if raw[position] is None:
                raw[position] = default


def _own_labels(container: Container, family: Family) -> str:
    if family.source == "container.state":
        return render({"state": container.state})
    if family.source == "container.info":
        info: Mapping[str, str] = {
            "container_id": container.id,
            "image_id": container.image_id,
            "engine": container.engine,
            "log_driver": container.log.driver,
            "network_mode": container.network_mode,
            "privileged": "true" if container.privileged else "",
        }
        return render(info)
    return ""


def _device_labels(row: int, device: BlockIO, device_name: Callable[[str], str]) -> str:
    name = device_name(device.device)
    if FAMILIES[row].name != "container_blkio_device_usage_total":
        return render({"device": name})
    major, _, minor = device.device.partition(":")
    return render({"device": name, "major": major, "minor": minor})
