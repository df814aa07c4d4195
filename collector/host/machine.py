"""The host's identity and size: read once at start, for ``machine_*`` series and for limits' fallbacks."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from collector.host.cpu import Topology, parse_boot, parse_cpuinfo
from collector.host.memory import HostMemory, parse_meminfo
from collector.roots import Roots

__all__ = ["Machine", "read_machine"]


@dataclass(frozen=True, slots=True)
class Machine:
    """What does not change while the host runs; an id that the host does not have is ""."""

    hostname: str
    machine_id: str
    system_uuid: str
    boot_id: str
    kernel_version: str
    os_version: str
    boot_ns: int  #: when the host was booted, 0 where ``/proc/stat`` does not say
    topology: Topology
    memory: HostMemory


def read_machine(roots: Roots) -> Machine:
    """Read them. Raises OSError or ValueError when procfs lacks cpuinfo or meminfo."""
    uname = os.uname()
    kernel = _text(roots.proc / "sys/kernel/osrelease")
    return Machine(
        _text(roots.proc / "sys/kernel/hostname") or uname.nodename,
        _text(roots.root / "etc/machine-id") or _text(roots.root / "var/lib/dbus/machine-id"),
        _system_uuid(roots),
        _text(roots.proc / "sys/kernel/random/boot_id"),
        kernel or uname.release,
        _pretty_name(roots.root / "etc/os-release"),
        parse_boot((roots.proc / "stat").read_bytes()) * 1_000_000_000,
        parse_cpuinfo((roots.proc / "cpuinfo").read_bytes()),
        parse_meminfo((roots.proc / "meminfo").read_bytes()),
    )


def _system_uuid(roots: Roots) -> str:
    """Where cAdvisor looks, in its order: the firmware's, a Power system's, and the machine id where there is none."""
    tree = roots.proc / "device-tree"
    places = (roots.sys / "class/dmi/id/product_uuid", tree / "system-id", tree / "vm,uuid")
    found = (_text(place).rstrip("\0") for place in (*places, roots.root / "etc/machine-id"))
    return next(filter(None, found), "")


def _text(path: Path) -> str:
    """The file's text, "" where the host does not have it or does not show it to us."""
    try:
        return path.read_text(errors="replace").strip()
    except (FileNotFoundError, PermissionError, NotADirectoryError):
        return ""


def _pretty_name(path: Path) -> str:
    for line in _text(path).splitlines():
        key, _, value = line.partition("=")
        if key == "PRETTY_NAME":
            return value.strip("\"'")
    return ""
