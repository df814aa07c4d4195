"""Binds, volumes and tmpfs of a container: from what the create request says to what inspect and runc get.

``MountPlan.plan`` makes the volumes that do not exist yet; nothing is mounted here. Errors have Docker's words.
"""

from __future__ import annotations

import logging
import posixpath
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.config import ContainerConfig, MountConfig
from runtime.definition import MountPoint
from runtime.errors import BadRequest
from runtime.oci.spec import SpecMount
from runtime.volume import VolumeStore

if TYPE_CHECKING:
    from runtime.container import Container

__all__ = ["MountPlan", "spec_mounts"]

log = logging.getLogger(__name__)

_PROPAGATION = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
_MODES = frozenset(("ro", "rw", "z", "Z", "nocopy", "cached", "delegated", "consistent", *_PROPAGATION))


class MountPlan:
    """Plans mounts over one set of volumes."""

    def __init__(self, volumes: VolumeStore) -> None:
        self._volumes = volumes

    def plan(self, config: ContainerConfig, sources: Sequence[Container]) -> tuple[MountPoint, ...]:
        """The container's mounts by destination; ``sources`` are those of ``--volumes-from``.

        Raises BadRequest for a mount that cannot be.
        """
        host = config.host
        planned: dict[str, MountPoint] = {}
        read_only = {r.partition(":")[0]: r.partition(":")[2] == "ro" for r in host.volumes_from}
        for source, reference in zip(sources, host.volumes_from, strict=True):
            for mount in source.definition.mounts:
                writable = mount.read_write and not read_only[reference.partition(":")[0]]
                planned[mount.destination] = MountPoint(
                    mount.kind, mount.source, mount.destination, writable, mount.name, "", mount.propagation
                )
        asked = [self._bind(text) for text in host.binds] + [self._mount(mount) for mount in host.mounts]
        seen: set[str] = set()
        for mount in asked:
            if mount.destination in seen:
                raise BadRequest(f"Duplicate mount point: {mount.destination}")
            seen.add(mount.destination)
            planned[mount.destination] = mount
        for destination in config.volumes:
            clean = _destination(destination, destination)
            if clean not in planned and clean not in host.tmpfs:
                planned[clean] = self._volume("", clean, read_write=True, mode="")
        return tuple(planned.values())

    def _bind(self, text: str) -> MountPoint:
        """``-v source:destination[:mode]``, source a path or a volume's name."""
        parts = text.split(":")
        if len(parts) == 1:
            return self._volume("", _destination(parts[0], text), read_write=True, mode="")
        if len(parts) > 3 or not parts[0] or not parts[1]:
            raise BadRequest(f"invalid volume specification: '{text}'")
        mode = parts[2] if len(parts) == 3 else ""
        words = [word for word in mode.split(",") if word]
        if any(word not in _MODES for word in words) or {"ro", "rw"} <= set(words):
            raise BadRequest(f"invalid mode: {mode}")
        destination = _destination(parts[1], text)
        writable = "ro" not in words
        if not parts[0].startswith("/"):
            return self._volume(parts[0], destination, read_write=writable, mode=mode or "z")
        source = Path(parts[0])
        if not source.exists():  # as Docker: -v makes the directory, --mount refuses
            source.mkdir(parents=True, exist_ok=True)
        propagation = next((word for word in words if word in _PROPAGATION), "rprivate")
        return MountPoint("bind", posixpath.normpath(parts[0]), destination, writable, "", mode, propagation)

    def _mount(self, mount: MountConfig) -> MountPoint:
        destination = _destination(mount.target, mount.target)
        writable = not mount.read_only
        if mount.type == "bind":
            source = Path(mount.source)
            if not source.is_absolute():
                raise BadRequest(
                    f"invalid mount config for type \"bind\": invalid mount path: '{mount.source}' "
                    "mount path must be absolute"
                )
            if not source.exists():
                if not mount.create_source:
                    raise BadRequest(
                        f'invalid mount config for type "bind": bind source path does not exist: {mount.source}'
                    )
                source.mkdir(parents=True, exist_ok=True)
            return MountPoint(
                "bind", posixpath.normpath(mount.source), destination, writable, "", "",
                mount.propagation or "rprivate",
            )  # fmt: skip
        if mount.type == "volume":
            return self._volume(mount.source, destination, read_write=writable, mode="z", labels=mount.labels)
        if mount.type == "tmpfs":
            words = [f"size={mount.tmpfs_size_bytes}"] if mount.tmpfs_size_bytes else []
            words += [f"mode={mount.tmpfs_mode:o}"] if mount.tmpfs_mode else []
            words += ["ro"] if mount.read_only else []
            return MountPoint("tmpfs", "", destination, writable, "", ",".join(words))
        raise BadRequest(f"invalid mount config: mount type unknown: {mount.type!r}")

    def _volume(
        self, name: str, destination: str, *, read_write: bool, mode: str, labels: object = None
    ) -> MountPoint:
        volume, made = self._volumes.create(name, labels if isinstance(labels, dict) else None)
        if made:
            log.debug("made volume %s for %s", volume.name, destination)
        return MountPoint("volume", str(volume.mountpoint), destination, read_write, volume.name, mode)


def _destination(path: str, text: str) -> str:
    if not path.startswith("/"):
        raise BadRequest(
            f"invalid volume specification: '{text}': invalid mount path: '{path}' must be absolute"
        )
    clean = posixpath.normpath(path)
    if clean == "/":
        raise BadRequest(
            f"invalid volume specification: '{text}': invalid specification: destination can't be '/'"
        )
    return clean.replace("//", "/")


def spec_mounts(mounts: Sequence[MountPoint]) -> list[SpecMount]:
    """The same for the OCI spec."""
    out = []
    for mount in mounts:
        if mount.kind == "tmpfs":
            words = [word for word in mount.mode.split(",") if word]
            out.append(SpecMount(mount.destination, "tmpfs", "tmpfs", ("noexec", "nosuid", "nodev", *words)))
            continue
        access = () if mount.read_write else ("ro",)
        out.append(
            SpecMount(
                mount.destination, mount.source, "bind", ("rbind", mount.propagation or "rprivate", *access)
            )
        )
    return out
