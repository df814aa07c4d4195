"""Has a cgroup v1 kernel count block I/O per cgroup, which newer ones do only once somebody throttles.

Since Linux 6.10 the throttling policy of a device, whose counters are the only ones v1 has for it
(``blkio.throttle.io_service_bytes``), is set up when the first rule for the device is written
(block/blk-throttle.c, tg_set_conf). A rule of 0 means no limit, so writing one for every disk into our own
cgroup limits nothing and makes ``docker stats`` and every collector on the host see what is read and written.
On v2 io.stat always counts and nothing is done.
"""

from __future__ import annotations

import logging
from pathlib import Path

__all__ = ["count_block_io"]

log = logging.getLogger(__name__)

_RULE = "blkio.throttle.read_bps_device"
#: Devices without a queue of their own worth counting.
_VIRTUAL = ("loop", "ram", "zram")


def count_block_io(sys: Path, cgroup_parent: str) -> list[str]:
    """Write a rule without a limit for every disk; returns the ``major:minor`` numbers that took it.

    A device that refuses is logged and costs the others nothing.
    """
    hierarchy = sys / "fs/cgroup/blkio"
    if not hierarchy.is_dir():
        return []
    parent = hierarchy / cgroup_parent.strip("/")
    counted = []
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        log.warning("block I/O may not be counted: making cgroup %s failed: %s", parent, error)
        return []
    for device in sorted((sys / "block").iterdir()):
        if device.name.startswith(_VIRTUAL):
            continue
        try:
            number = (device / "dev").read_text().strip()
            (parent / _RULE).write_text(f"{number} 0\n")
        except OSError as error:
            log.warning("block I/O on %s may not be counted: %s", device.name, error)
        else:
            counted.append(number)
    return counted
