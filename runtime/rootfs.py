"""A container's root file system: an overlay mount over the image's layers, and its private /etc files.

``ContainerRootfs`` owns one directory (``upper``, ``work``, ``merged``, ``etc``) and can be made again over it
after a crash: every step looks at what is there. Volumes and binds are mounts of the OCI spec and not here.
"""

from __future__ import annotations

import logging
import os
import shutil
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from runtime.files import write_atomically
from runtime.mounts import mount, mount_points, unmount

__all__ = ["ContainerRootfs", "EtcFiles"]

log = logging.getLogger(__name__)

_OPTIONS_LIMIT = 4000  #: mount(2) takes one page of options


@dataclass(frozen=True, slots=True)
class EtcFiles:
    """The files that are bind-mounted over /etc/hostname, /etc/hosts and /etc/resolv.conf."""

    hostname: Path
    hosts: Path
    resolv_conf: Path


class ContainerRootfs:
    """The root file system of one container, below ``directory``.

    ``layers``: the image's layer directories, lowest first, as ``Image.layer_dirs`` has them.
    """

    def __init__(self, directory: Path, layers: Sequence[Path]) -> None:
        self.directory = directory
        self.layers = tuple(layers)
        self.upper = directory / "upper"
        self.work = directory / "work"
        self.merged = directory / "merged"  #: the mount point: ``root.path`` of the OCI spec
        etc = directory / "etc"
        self.etc = EtcFiles(etc / "hostname", etc / "hosts", etc / "resolv.conf")

    def mount(self) -> Path:
        """Mount the overlay (once: a mount that is there stays) and return ``merged``. Raises OSError."""
        for path in (self.upper, self.work, self.merged):
            path.mkdir(parents=True, exist_ok=True, mode=0o755)
        self.directory.chmod(0o710)
        if not self.mounted():
            self._overlay()
        return self.merged

    def mounted(self) -> bool:
        """Whether the overlay is mounted."""
        try:
            return self.merged.stat().st_dev != self.directory.stat().st_dev
        except FileNotFoundError:
            return False

    def unmount(self) -> None:
        """Unmount the overlay and whatever is mounted in it; nothing happens if nothing is."""
        if not self.mounted():
            return
        for point in mount_points(self.merged):
            while unmount(point):
                pass

    def remove(self) -> None:
        """Unmount, and remove the container's own files for good."""
        self.unmount()
        for path in (self.upper, self.work, self.merged, self.etc.hosts.parent):
            if path.exists():
                shutil.rmtree(path)

    def size_rw_bytes(self) -> int:
        """Bytes of the regular files that the container wrote (``docker ps -s``), hard links once."""
        return _tree_size(self.upper)

    def write_etc(self, hostname: str, hosts: str, resolv_conf: str) -> EtcFiles:
        """Write the three files, in place where they exist: bind mounts of running containers see it."""
        self.etc.hosts.parent.mkdir(parents=True, exist_ok=True)
        for path, text in (
            (self.etc.hostname, f"{hostname}\n"),
            (self.etc.hosts, hosts),
            (self.etc.resolv_conf, resolv_conf),
        ):
            if path.exists():
                path.write_text(text)
            else:
                write_atomically(path, text.encode(), durable=False, mode=0o644)
                path.chmod(0o644)
        return self.etc

    def _overlay(self) -> None:
        lower = [str(layer) for layer in reversed(self.layers)] or [str(self._empty_layer())]
        if any(mark in path for path in [*lower, str(self.directory)] for mark in (",", ":")):
            raise OSError(f"overlay on {self.merged}: a path holds ',' or ':', which overlayfs cannot take")
        options = self._options(lower)
        if len(options) <= _OPTIONS_LIMIT:
            mount("overlay", self.merged, "overlay", data=options)
            return
        fds = [os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for path in lower]
        try:  # many layers: descriptors make short names, which overlayfs resolves once, now
            mount(
                "overlay", self.merged, "overlay", data=self._options([f"/proc/self/fd/{fd}" for fd in fds])
            )
        finally:
            for fd in fds:
                os.close(fd)

    def _options(self, lower: Sequence[str]) -> str:
        return f"lowerdir={':'.join(lower)},upperdir={self.upper},workdir={self.work}"

    def _empty_layer(self) -> Path:
        empty = self.directory / "empty"
        empty.mkdir(exist_ok=True)
        return empty


def _tree_size(directory: Path) -> int:
    total = 0
    seen: set[tuple[int, int]] = set()
    stack = [os.fspath(directory)]
    while stack:
        try:
            with os.scandir(stack.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        stack.append(entry.path)
                        continue
                    found = entry.stat(follow_symlinks=False)
                    if found.st_nlink > 1:
                        if (found.st_dev, found.st_ino) in seen:
                            continue
                        seen.add((found.st_dev, found.st_ino))
                    if stat.S_ISREG(found.st_mode):
                        total += found.st_size
        except FileNotFoundError:
            continue  # the container removed it meanwhile
    return total
