"""Memory and paging. Sources of the formats: proc_meminfo(5), the kernel's mm/vmstat.c."""

from __future__ import annotations

import re
from functools import cache

from collector.host.group import Files, Readings, one

__all__ = ["meminfo", "parse_meminfo", "parse_vmstat", "vmstat"]

#: Node Exporter's default choice of fields.
_VMSTAT = re.compile(rb"\n((?:oom_kill|pgpg|pswp|pg.*fault)\S*) (\d+)")
_FIELD = re.compile(rb"^(\S+):\s+(\d+)( kB)?$", re.MULTILINE)


def parse_meminfo(data: bytes) -> Readings:
    """Every field, in bytes where the kernel tells kibibytes: ``Active(anon)`` is ``Active_anon_bytes``.

    Raises ValueError where there is none.
    """
    readings: Readings = {}
    for name, value, kibibytes in _FIELD.findall(data):
        readings[_family(name, kibibytes)] = one(int(value) * 1024 if kibibytes else int(value))
    if not readings:
        raise ValueError(f"{data[:40]!r}: expected lines like MemTotal: 1024 kB")
    return readings


@cache
def _family(name: bytes, kibibytes: bytes) -> str:
    field = name.decode().replace("(", "_").replace(")", "")
    return f"node_memory_{field}_bytes" if kibibytes else f"node_memory_{field}"


def meminfo(files: Files) -> Readings:
    """Node Exporter's ``meminfo``."""
    return parse_meminfo(files.read(f"{files.proc}/meminfo"))


def parse_vmstat(data: bytes) -> Readings:
    """The fields on paging, faults and processes killed for want of memory."""
    return {f"node_vmstat_{name.decode()}": one(int(value)) for name, value in _VMSTAT.findall(b"\n" + data)}


def vmstat(files: Files) -> Readings:
    """Node Exporter's ``vmstat``."""
    return parse_vmstat(files.read(f"{files.proc}/vmstat"))
