"""What the kernel counts of itself, and what it and the system are called.

Sources of the formats: proc_stat(5), proc_loadavg(5), proc_sys_fs(5), os-release(5), the kernel's
Documentation/accounting/psi.rst.
"""

from __future__ import annotations

import os
import re

from collector.host.group import Absent, Files, Readings, one

__all__ = [
    "dmi",
    "entropy",
    "filefd",
    "loadavg",
    "os_release",
    "parse_loadavg",
    "parse_os_release",
    "parse_pressure",
    "parse_stat",
    "pressure",
    "selinux",
    "stat",
    "uname",
]

_STAT = {
    b"intr": "node_intr_total",
    b"ctxt": "node_context_switches_total",
    b"processes": "node_forks_total",
    b"btime": "node_boot_time_seconds",
    b"procs_running": "node_procs_running",
    b"procs_blocked": "node_procs_blocked",
}
_OS_LABELS = (
    "build_id id id_like image_id image_version name pretty_name variant variant_id version "
    "version_codename version_id"
)
_DMI = (
    "bios_date bios_release bios_vendor bios_version board_asset_tag board_name board_serial board_vendor "
    "board_version chassis_asset_tag chassis_serial chassis_vendor chassis_version product_family "
    "product_name product_serial product_sku product_uuid product_version sys_vendor"
)


def parse_stat(data: bytes) -> Readings:
    """Interrupts, context switches, forks, time of boot and processes of ``/proc/stat``."""
    readings: Readings = {}
    for line in data[data.find(b"\nintr") + 1 :].splitlines():
        name, _, rest = line.partition(b" ")
        if name in _STAT:
            readings[_STAT[name]] = one(int(rest.split(b" ", 1)[0]))
    if "node_forks_total" not in readings:
        raise ValueError(f"{data[:40]!r}: expected a line processes")
    return readings


def stat(files: Files) -> Readings:
    """Node Exporter's ``stat``."""
    return parse_stat(files.read(f"{files.proc}/stat"))


def parse_loadavg(data: bytes) -> Readings:
    """``/proc/loadavg``. Raises ValueError with fewer than three numbers."""
    words = data.split()
    if len(words) < 3:
        raise ValueError(f"{data[:40]!r}: expected three load averages")
    return {f"node_load{minutes}": one(float(word)) for minutes, word in zip((1, 5, 15), words, strict=False)}


def loadavg(files: Files) -> Readings:
    """Node Exporter's ``loadavg``."""
    return parse_loadavg(files.read(f"{files.proc}/loadavg"))


def parse_pressure(resource: str, data: bytes) -> Readings:
    """The totals of one file of ``/proc/pressure`` in seconds; ``full`` of the CPU means nothing for a host."""
    readings: Readings = {}
    for line in data.decode().splitlines():
        kind, _, rest = line.partition(" ")
        seconds = int(rest.rpartition("total=")[2]) / 1e6
        if kind == "some":
            readings[f"node_pressure_{resource}_waiting_seconds_total"] = one(seconds)
        elif resource != "cpu":
            readings[f"node_pressure_{resource}_stalled_seconds_total"] = one(seconds)
    return readings


def pressure(files: Files) -> Readings:
    """Node Exporter's ``pressure``. Raises Absent on a kernel without PSI, or with it switched off."""
    readings: Readings = {}
    for resource in ("cpu", "io", "memory", "irq"):
        try:
            readings |= parse_pressure(resource, files.read(f"{files.proc}/pressure/{resource}"))
        except FileNotFoundError:
            if resource != "irq":  # since Linux 6.1, and only where configured
                raise Absent(f"pressure/{resource}") from None
        except OSError as error:
            raise Absent(f"pressure/{resource}: {error}") from error
    return readings


def filefd(files: Files) -> Readings:
    """Node Exporter's ``filefd``."""
    allocated, _, maximum = files.read(f"{files.proc}/sys/fs/file-nr").split()
    return {"node_filefd_allocated": one(int(allocated)), "node_filefd_maximum": one(int(maximum))}


def entropy(files: Files) -> Readings:
    """Node Exporter's ``entropy``."""
    directory = f"{files.proc}/sys/kernel/random"
    return {
        "node_entropy_available_bits": one(int(files.read(f"{directory}/entropy_avail"))),
        "node_entropy_pool_size_bits": one(int(files.read(f"{directory}/poolsize"))),
    }


def uname(files: Files) -> Readings:
    """Node Exporter's ``uname``; the names that a procfs elsewhere has come from there, it may be another host's."""
    system = os.uname()
    kernel = f"{files.proc}/sys/kernel"

    def told(name: str, ours: str) -> str:
        return ours if files.proc == "/proc" else files.text(f"{kernel}/{name}") or ours

    labels = (
        told("ostype", system.sysname),
        told("osrelease", system.release),
        told("version", system.version),
        system.machine,
        told("hostname", system.nodename),
        files.text(f"{kernel}/domainname") or "(none)",
    )
    return {"node_uname_info": [(labels, 1)]}


def parse_os_release(text: str) -> dict[str, str]:
    """os-release(5): keys in lower case, values without their quotes and backslashes."""
    fields = {}
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        if equals and not key.startswith("#"):
            if value[:1] in ("'", '"') and value[-1:] == value[:1]:
                value = re.sub(r"\\(.)", r"\1", value[1:-1])
            fields[key.lower()] = value
    return fields


def os_release(files: Files) -> Readings:
    """Node Exporter's ``os``. Raises Absent without an os-release file."""
    text = files.text(f"{files.root}/etc/os-release") or files.text(f"{files.root}/usr/lib/os-release")
    if not text:
        raise Absent("os-release")
    fields = parse_os_release(text)
    readings: Readings = {
        "node_os_info": [(tuple(fields.get(name, "") for name in _OS_LABELS.split()), 1)],
    }
    version = re.match(r"\d+(\.\d+)?", fields.get("version_id", ""))
    if version:
        labels = (fields.get("id", ""), fields.get("id_like", ""), fields.get("name", ""))
        readings["node_os_version"] = [(labels, float(version[0]))]
    return readings


def dmi(files: Files) -> Readings:
    """Node Exporter's ``dmi``. Raises Absent where the firmware has no DMI."""
    directory = f"{files.sys}/class/dmi/id"
    files.names(directory)
    return {"node_dmi_info": [(tuple(files.text(f"{directory}/{name}") or "" for name in _DMI.split()), 1)]}


def selinux(files: Files) -> Readings:
    """Node Exporter's ``selinux``: whether it is enabled, and if so its modes (1 enforcing, 0 permissive)."""
    current = files.number(f"{files.sys}/fs/selinux/enforce")
    if current is None:
        return {"node_selinux_enabled": one(0)}
    config = files.text(f"{files.root}/etc/selinux/config") or ""
    wanted = re.search(r"^SELINUX=(\w+)", config, re.MULTILINE)
    modes = {"enforcing": 1, "permissive": 0}
    return {
        "node_selinux_enabled": one(1),
        "node_selinux_config_mode": one(modes.get(wanted[1], -1) if wanted else -1),
        "node_selinux_current_mode": one(current),
    }
