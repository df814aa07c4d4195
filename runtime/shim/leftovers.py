"""Clearing away a container of which the OCI runtime was killed while it made it.

The runtime's own ``delete`` knows only what it had written down by then; its cgroups, and whatever process
is in them, are found by the path in the bundle.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import time
from pathlib import Path

__all__ = ["remove_cgroups"]

log = logging.getLogger(__name__)

_SECONDS = 5.0


def remove_cgroups(bundle: Path, sys: Path = Path("/sys")) -> None:
    """Kill what is in the cgroups that the bundle names, in every hierarchy, and remove them."""
    config = json.loads((bundle / "config.json").read_text())
    path = str(config.get("linux", {}).get("cgroupsPath", ""))
    if not path.startswith("/") or path.strip("/") == "" or ".." in path.split("/"):
        return
    root = sys / "fs/cgroup"
    # v1 and hybrid have a directory per hierarchy; v2 is the root itself.
    roots = [root, *(entry for entry in root.iterdir() if entry.is_dir() and not entry.is_symlink())]
    deadline = time.monotonic() + _SECONDS
    for top in roots:
        directory = top / path.lstrip("/")
        while directory.is_dir() and not _removed(directory):
            if time.monotonic() > deadline:
                log.error("remove cgroup %s: it is still in use", directory)
                return
            time.sleep(0.01)


def _removed(directory: Path) -> bool:
    try:
        for pid in _members(directory):
            with contextlib.suppress(ProcessLookupError):
                _kill(pid, directory)
        directory.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _members(directory: Path) -> list[int]:
    return [int(text) for text in (directory / "cgroup.procs").read_text().split()]


def _kill(pid: int, directory: Path) -> None:
    """Kill a process if it is in the cgroup while we hold it: by now the number may be another's."""
    pidfd = os.pidfd_open(pid)
    try:
        if pid in _members(directory):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    finally:
        os.close(pidfd)
