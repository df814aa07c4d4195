"""Series without a container: the host under the id ``/``, the machine, and the scrape itself."""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter

from collector.host.filesystems import FileSystem
from collector.host.machine import Machine
from collector.sample import Sample
from exporters.prometheus.families import FAMILIES
from exporters.prometheus.labels import render
from exporters.prometheus.series import Number, Row, rows_of

__all__ = ["disk_series", "filesystem_series", "machine_series", "scrape_series"]

_DISK, _FILESYSTEM = rows_of("disk"), rows_of("filesystem")
_MACHINE, _SCRAPE = rows_of("machine"), rows_of("scrape")

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
    labels = render(
        {"boot_id": machine.boot_id, "machine_id": machine.machine_id, "system_uuid": machine.system_uuid}
    )
    values: dict[str, Number] = {
        "cores": machine.topology.cores,
        "physical_cores": machine.topology.physical_cores,
        "sockets": machine.topology.sockets,
        "memory_bytes": machine.memory.total_bytes,
        "swap_bytes": machine.memory.swap_total_bytes,
    }
    for row in _MACHINE:
        yield _line(row, labels), values[FAMILIES[row].field]


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


def _line(row: int, labels: str) -> Row:
    return row, f"{{{labels}}} " if labels else " "
