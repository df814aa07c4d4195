"""Series without a container: the host under the id ``/``, the machine, and the scrape itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import attrgetter
from typing import Any

from collector.host.filesystems import FileSystem
from collector.host.hardware import Hardware
from collector.host.machine import Machine
from collector.sample import Sample
from exporters.prometheus.families import FAMILIES
from exporters.prometheus.labels import render
from exporters.prometheus.series import Number, Row, rows_of

__all__ = ["disk_series", "filesystem_series", "hardware_series", "machine_series", "scrape_series"]

_DISK, _FILESYSTEM = rows_of("disk"), rows_of("filesystem")
_MACHINE, _SCRAPE, _HARDWARE = rows_of("machine"), rows_of("scrape"), rows_of("hardware")

Series = Iterable[tuple[Row, Number]]


def disk_series(sample: Sample) -> Series:
    """What is counted of whole devices only, which no container may claim."""
    for disk in sample.disks:
        labels = render({"device": disk.device, "id": "/"})
        for row in _DISK:
            yield _line(row, labels), attrgetter(FAMILIES[row].field)(disk)


def filesystem_series(filesystems: Iterable[FileSystem]) -> Series:
    """Size and use of every file system."""
    for filesystem in filesystems:
        labels = render({"device": filesystem.device, "id": "/"})
        for row in _FILESYSTEM:
            yield _line(row, labels), attrgetter(FAMILIES[row].field)(filesystem)


def machine_series(machine: Machine) -> Series:
    """What the machine has."""
    labels = render(_identity(machine))
    values: dict[str, Number] = {
        "cores": machine.topology.cores,
        "physical_cores": machine.topology.physical_cores,
        "sockets": machine.topology.sockets,
        "memory_bytes": machine.memory.total_bytes,
        "swap_bytes": machine.memory.swap_total_bytes,
    }
    for row in _MACHINE:
        yield _line(row, labels), values[FAMILIES[row].field]


def hardware_series(machine: Machine, hardware: Hardware) -> Series:
    """What the machine is built of; labels in the order of the table's rows."""
    nvm = hardware.nvm_bytes
    values: dict[str, Mapping[Any, Number]] = {
        "books": {(): hardware.books},
        "drawers": {(): hardware.drawers},
        "dimm_count": {(kind,): modules.number for kind, modules in hardware.modules.items()},
        "dimm_bytes": {(kind,): modules.size_bytes for kind, modules in hardware.modules.items()},
        "nvm_bytes": {(mode,): size for mode, size in nvm.items()},
        "nvm_watts": {} if any(nvm.values()) or "memory_mode" not in nvm else {(): 0},
        "caches": {
            (cache.node, "" if cache.core is None else cache.core, cache.kind, cache.level): cache.size_bytes
            for cache in hardware.caches
        },
        "siblings": {(cpu.node, cpu.core, cpu.thread): cpu.siblings for cpu in hardware.threads},
        "node_memory": {(node,): size for node, size in hardware.node_memory.items()},
        "huge_pages": hardware.huge_pages,
        "distances": hardware.distances,
    }
    for row in _HARDWARE:
        family = FAMILIES[row]
        for key, value in values[family.field].items():
            labels = dict(zip(family.varies, map(str, key), strict=True))
            yield _line(row, render(_identity(machine) | labels)), value


def scrape_series(machine: Machine, container_error: bool, machine_error: bool, version: str) -> Series:
    """Whether this scrape went well, and by which versions."""
    versions = render(
        {
            "cadvisorRevision": "",
            "cadvisorVersion": version,
            "kernelVersion": machine.kernel_version,
            "osVersion": machine.os_version,
        }
    )
    values: dict[str, tuple[str, Number]] = {
        "container_error": ("", int(container_error)),
        "machine_error": ("", int(machine_error)),
        "version": (versions, 1),
    }
    for row in _SCRAPE:
        labels, value = values[FAMILIES[row].field]
        yield _line(row, labels), value


def _identity(machine: Machine) -> dict[str, str]:
    return {"boot_id": machine.boot_id, "machine_id": machine.machine_id, "system_uuid": machine.system_uuid}


def _line(row: int, labels: str) -> Row:
    return row, f"{{{labels}}} " if labels else " "
