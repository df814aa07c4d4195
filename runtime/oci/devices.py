"""Devices of a container: the default cgroup rules, ``--device``, ``--device-cgroup-rule``, and all for privileged."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.config import Device
from runtime.errors import BadRequest

__all__ = ["SpecDevices", "spec_devices"]

_RULE = re.compile(r"([acb]) ([0-9]+|\*):([0-9]+|\*) ([rwm]{1,3})\Z")

#: /dev/null, zero, full, random, urandom, tty, console, pts; runc makes the nodes itself.
_DEFAULT = ((1, 5), (1, 3), (1, 9), (1, 8), (5, 0), (5, 1))


@dataclass(frozen=True, slots=True)
class SpecDevices:
    """``linux.devices`` (nodes to make) and ``linux.resources.devices`` (cgroup rules, in order)."""

    nodes: list[dict[str, Any]]
    rules: list[dict[str, Any]]


def spec_devices(devices: Sequence[Device], cgroup_rules: Sequence[str], privileged: bool) -> SpecDevices:
    """Devices for the OCI spec. Raises BadRequest with Docker's words for a path that is no device."""
    if privileged:
        nodes = [_node(path, str(path)) for path in _host_devices()]
        return SpecDevices(nodes, [{"allow": True, "access": "rwm"}])
    rules: list[dict[str, Any]] = [{"allow": False, "access": "rwm"}]
    rules += [_allow("c", major, minor, "rwm") for major, minor in _DEFAULT]
    rules.append({"allow": False, "type": "c", "major": 10, "minor": 229, "access": "rwm"})
    nodes = []
    for device in devices:
        for node in _wanted_nodes(device):
            nodes.append(node)
            rules.append(_allow(node["type"], node["major"], node["minor"], device.permissions))
    rules += [_parse_rule(rule) for rule in cgroup_rules]
    return SpecDevices(nodes, rules)


def _allow(kind: str, major: int, minor: int, access: str) -> dict[str, Any]:
    return {"allow": True, "type": kind, "major": major, "minor": minor, "access": access}


def _wanted_nodes(device: Device) -> list[dict[str, Any]]:
    if not device.permissions or device.permissions.strip("rwm"):
        raise BadRequest(f"invalid device mode: {device.permissions}")
    path = Path(device.host_path).resolve()
    try:
        found = path.stat()
    except OSError as error:
        raise _gathering(device, (error.strerror or str(error)).lower()) from error
    if stat.S_ISDIR(found.st_mode):
        inner = [
            _node(entry, f"{device.container_path.rstrip('/')}/{entry.relative_to(path)}")
            for entry in sorted(path.rglob("*"))
            if _is_device(entry)
        ]
        if inner:
            return inner
    elif _is_device(path):
        return [_node(path, device.container_path)]
    raise _gathering(device, "not a device node")


def _gathering(device: Device, why: str) -> BadRequest:
    return BadRequest(
        f'error gathering device information while adding custom device "{device.host_path}": {why}'
    )


def _is_device(path: Path) -> bool:
    mode = path.lstat().st_mode
    return stat.S_ISCHR(mode) or stat.S_ISBLK(mode)


def _node(path: Path, name: str) -> dict[str, Any]:
    found = path.stat()
    return {
        "path": name,
        "type": "b" if stat.S_ISBLK(found.st_mode) else "c",
        "major": os.major(found.st_rdev),
        "minor": os.minor(found.st_rdev),
        "fileMode": stat.S_IMODE(found.st_mode),
        "uid": found.st_uid,
        "gid": found.st_gid,
    }


def _host_devices(root: Path = Path("/dev")) -> Iterator[Path]:
    """Every device node of the host but those of mounts that the container has its own of."""
    own = {"pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"}
    for directory, names, files in os.walk(root):
        if Path(directory) == root:
            names[:] = [name for name in names if name not in own]
        for file in files:
            path = Path(directory) / file
            if file != "console" and not path.is_symlink() and _is_device(path):
                yield path


def _parse_rule(text: str) -> dict[str, Any]:
    match = _RULE.match(text)
    if not match:
        raise BadRequest(f"invalid device cgroup rule format: '{text}'")
    rule: dict[str, Any] = {"allow": True, "type": match[1], "access": match[4]}
    rule |= {key: int(value) for key, value in (("major", match[2]), ("minor", match[3])) if value != "*"}
    return rule
