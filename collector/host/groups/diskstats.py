"""Block devices: their counters from ``/proc/diskstats``, what udev knows of them.

Source of the format: the kernel's Documentation/admin-guide/iostats.rst. A device on which nothing was
ever done is counted too; partitions, RAM disks and loops are not (Node Exporter's default choice).
"""

from __future__ import annotations

import re

from collector.host.group import Files, Readings

__all__ = ["diskstats", "parse_diskstats", "parse_udev"]

_IGNORED = re.compile(r"(z?ram|loop|fd|(h|s|v|xv)d[a-z]|nvme\d+n\d+p)\d+")
#: Columns from the fourth, each with what makes its unit: sectors of 512 bytes, milliseconds.
_COLUMNS = (
    ("node_disk_reads_completed_total", 0, 0),
    ("node_disk_reads_merged_total", 0, 0),
    ("node_disk_read_bytes_total", 512, 0),
    ("node_disk_read_time_seconds_total", 0, 1000),
    ("node_disk_writes_completed_total", 0, 0),
    ("node_disk_writes_merged_total", 0, 0),
    ("node_disk_written_bytes_total", 512, 0),
    ("node_disk_write_time_seconds_total", 0, 1000),
    ("node_disk_io_now", 0, 0),
    ("node_disk_io_time_seconds_total", 0, 1000),
    ("node_disk_io_time_weighted_seconds_total", 0, 1000),
    ("node_disk_discards_completed_total", 0, 0),
    ("node_disk_discards_merged_total", 0, 0),
    ("node_disk_discarded_sectors_total", 0, 0),
    ("node_disk_discard_time_seconds_total", 0, 1000),
    ("node_disk_flush_requests_total", 0, 0),
    ("node_disk_flush_requests_time_seconds_total", 0, 1000),
)
_INFO = ("ID_PATH", "ID_WWN", "ID_MODEL")
_MAPPER = ("DM_NAME", "DM_UUID", "DM_VG_NAME", "DM_LV_NAME", "DM_LV_LAYER")


def parse_diskstats(data: bytes) -> tuple[Readings, list[tuple[str, str, str]]]:
    """The counters, and major, minor and name of each device. Raises ValueError on a short line."""
    readings: Readings = {name: [] for name, _, _ in _COLUMNS}
    devices = []
    for line in data.decode().splitlines():
        words = line.split()
        if len(words) < 14:
            raise ValueError(f"diskstats line {line[:60]!r}: expected 14 fields or more")
        if _IGNORED.fullmatch(words[2]):
            continue
        devices.append((words[0], words[1], words[2]))
        label = (words[2],)
        for (name, times, over), word in zip(_COLUMNS, words[3:], strict=False):
            value: float = int(word)
            readings[name].append((label, value * times if times else value / over if over else value))
    return readings, devices


def parse_udev(text: str) -> dict[str, str]:
    """A file of ``/run/udev/data``: its lines that begin with ``E:`` are properties."""
    properties = {}
    for line in text.splitlines():
        if line.startswith("E:"):
            key, _, value = line[2:].partition("=")
            properties[key] = value
    return properties


def diskstats(files: Files) -> Readings:
    """Node Exporter's ``diskstats``."""
    readings, devices = parse_diskstats(files.read(f"{files.proc}/diskstats"))
    readings["node_disk_info"] = []
    for major, minor, device in devices:
        udev = parse_udev(files.text(f"{files.root}/run/udev/data/b{major}:{minor}") or "")
        _describe(readings, device, major, minor, udev)
    return readings


def _describe(readings: Readings, device: str, major: str, minor: str, udev: dict[str, str]) -> None:
    """Add what udev tells of a device; it tells nothing where udev does not run."""
    serial = udev.get("SCSI_IDENT_SERIAL") or udev.get("ID_SERIAL_SHORT") or udev.get("ID_SERIAL", "")
    described = (*(udev.get(key, "") for key in _INFO), serial, udev.get("ID_REVISION", ""))
    readings["node_disk_info"].append(((device, major, minor, *described), 1))
    if udev.get("ID_FS_TYPE"):
        keys = ("ID_FS_TYPE", "ID_FS_USAGE", "ID_FS_UUID", "ID_FS_VERSION")
        labels = (device, *(udev.get(key, "") for key in keys))
        readings.setdefault("node_disk_filesystem_info", []).append((labels, 1))
    if udev.get("DM_NAME"):
        labels = (device, *(udev.get(key, "") for key in _MAPPER))
        readings.setdefault("node_disk_device_mapper_info", []).append((labels, 1))
    for key, family in (
        ("ID_ATA_WRITE_CACHE", "node_disk_ata_write_cache"),
        ("ID_ATA_WRITE_CACHE_ENABLED", "node_disk_ata_write_cache_enabled"),
        ("ID_ATA_ROTATION_RATE_RPM", "node_disk_ata_rotation_rate_rpm"),
    ):
        if udev.get("ID_ATA") and udev.get(key, "").isdigit():
            readings.setdefault(family, []).append(((device,), int(udev[key])))
