"""Disk use by images, containers and volumes: ``docker system df``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.state import Status

if TYPE_CHECKING:
    from runtime.engine import Engine

__all__ = ["directory_size", "disk_usage"]


def directory_size(path: Path) -> int:
    """Bytes of the regular files below a directory, hard links once."""
    total = 0
    seen: set[tuple[int, int]] = set()
    for directory, _, names in os.walk(path):
        for name in names:
            try:
                found = os.lstat(os.path.join(directory, name))  # noqa: PTH118 - a walk over many files
            except FileNotFoundError:
                continue
            if (found.st_dev, found.st_ino) not in seen:
                seen.add((found.st_dev, found.st_ino))
                total += found.st_size
    return total


def disk_usage(engine: Engine) -> dict[str, Any]:
    """The answer of ``GET /system/df``. Walks every container's and volume's files: call it in a thread."""
    users: dict[str, int] = {}
    for container in engine.containers.all():
        users[container.image_id] = users.get(container.image_id, 0) + 1
    layers = {layer.diff_id: layer.size_bytes for image in engine.images.list() for layer in image.layers}
    return {
        "LayersSize": sum(layers.values()),
        "Images": [
            {
                "Id": image.id,
                "ParentId": "",
                "RepoTags": list(image.repo_tags),
                "RepoDigests": [],
                "Created": image.created_ns // 1_000_000_000,
                "Size": image.size_bytes,
                "SharedSize": 0,
                "Labels": image.config.get("Labels"),
                "Containers": users.get(image.id, 0),
            }
            for image in engine.images.list()
        ],
        "Containers": [
            {
                "Id": container.id,
                "Names": [container.name],
                "Image": container.definition.config.image,
                "ImageID": container.image_id,
                "Created": container.definition.created_ns // 1_000_000_000,
                "State": container.state.status.value,
                "Status": "" if container.state.status is Status.CREATED else container.state.status.value,
                "SizeRw": engine.rootfs(container).size_rw_bytes(),
                "SizeRootFs": engine.image_size(container.image_id),
                "Labels": dict(container.definition.labels),
                "Mounts": [mount.render() for mount in container.definition.mounts],
            }
            for container in engine.containers.all()
        ],
        "Volumes": [
            {
                "Name": volume.name,
                "Driver": "local",
                "Mountpoint": str(volume.mountpoint),
                "Labels": dict(volume.labels) or None,
                "Scope": "local",
                "Options": None,
                "UsageData": {
                    "Size": directory_size(volume.mountpoint),
                    "RefCount": len(engine.users_of_volume(volume.name)),
                },
            }
            for volume in engine.volumes.list()
        ],
        "BuildCache": [],
    }
