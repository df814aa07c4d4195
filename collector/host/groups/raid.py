"""Software RAID and memory errors.

Sources of the formats: md(4), the kernel's drivers/md/md.c, Documentation/ABI/testing/sysfs-devices-edac.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from collector.host.group import Files, Labels, Readings, Series

__all__ = ["Array", "edac", "mdadm", "parse_mdstat"]

_STATES = ("active", "inactive", "recovering", "resync", "check")
_ACTIONS = (("recovery", "recovering"), ("resync", "resync"), ("reshape", "resync"), ("check", "check"))
_MEMBER = re.compile(r"\S+\[\d+\](?:\([A-Z]\))*")


class Array(NamedTuple):
    """One software RAID."""

    device: str
    state: str  #: one of active, inactive, recovering, resync, check
    active: int  #: disks that work
    required: int  #: disks it should have; 0 where it does not tell
    failed: int
    spare: int
    blocks: int  #: of 1024 bytes
    synced: int  #: blocks synchronized so far, all of them while nothing is under way


def parse_mdstat(text: str) -> list[Array]:
    """``/proc/mdstat``."""
    arrays = []
    for block in re.split(r"\n(?=md)", text):
        first, _, rest = block.partition("\n")
        device, colon, words = first.partition(" : ")
        if not colon or not device.startswith("md"):
            continue
        members = _MEMBER.findall(words)
        failed = sum("(F)" in member for member in members)
        spare = sum("(S)" in member for member in members)
        sizes = re.search(r"(\d+) blocks", rest)
        blocks = int(sizes[1]) if sizes else 0
        disks = re.search(r"\[(\d+)/(\d+)\]", rest)
        active = words.startswith("active")
        if disks:
            required, working = int(disks[1]), int(disks[2])
        else:  # RAID 0 and linear have no such count, an array that does not run has no working disks
            working = required = len(members) - failed - spare if active else 0
        state, synced = ("active" if active else "inactive"), blocks
        for action, name in _ACTIONS:
            under_way = re.search(rf"{action}\s*=\s*(?:[\d.]+%\s*\((\d+)/\d+\)|DELAYED|PENDING)", rest)
            if under_way:
                state, synced = name, int(under_way[1] or 0)
        arrays.append(Array(device.strip(), state, working, required, failed, spare, blocks, synced))
    return arrays


def mdadm(files: Files) -> Readings:
    """Node Exporter's ``mdadm``. Raises Absent on a kernel without software RAID."""
    arrays = parse_mdstat(files.required(f"{files.proc}/mdstat").decode())
    states: Series = []
    disks: Series = []
    for array in arrays:
        states += [((array.device, state), int(state == array.state)) for state in _STATES]
        counts = (("active", array.active), ("failed", array.failed), ("spare", array.spare))
        disks += [((array.device, state), count) for state, count in counts]
    return {
        "node_md_state": states,
        "node_md_disks": disks,
        "node_md_disks_required": [((array.device,), array.required) for array in arrays],
        "node_md_blocks": [((array.device,), array.blocks) for array in arrays],
        "node_md_blocks_synced": [((array.device,), array.synced) for array in arrays],
    }


_ERRORS = (("ce", "correctable"), ("ue", "uncorrectable"))


def edac(files: Files) -> Readings:
    """Node Exporter's ``edac``: errors of memory, by controller and by row of chips."""
    directory = f"{files.sys}/devices/system/edac/mc"
    readings: Readings = {}

    def add(family: str, labels: Labels, path: str) -> None:
        value = files.number(path)
        if value is not None:
            readings.setdefault(family, []).append((labels, value))

    for name in files.some_names(directory, r"mc\d+"):
        controller = name[2:]
        for short, kind in _ERRORS:
            family = f"node_edac_{kind}_errors_total"
            add(family, (controller,), f"{directory}/{name}/{short}_count")
            family = f"node_edac_csrow_{kind}_errors_total"
            path = f"{directory}/{name}/{short}_noinfo_count"
            add(family, (controller, "unknown"), path)
            for row in files.names(f"{directory}/{name}", r"csrow\d+"):
                add(family, (controller, row[5:]), f"{directory}/{name}/{row}/{short}_count")
    return readings
