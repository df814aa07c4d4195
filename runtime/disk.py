"""Disk use by images, containers and volumes: ``docker system df``."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.state import Status

if TYPE_CHECKING:
    from runtime.container import Container
    from runtime.engine import Engine
    from runtime.images.image import Image
    from runtime.volume import Volume

__all__ = ["directory_size", "disk_usage", "image_summary"]


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
    images = engine.images.list()
    containers = engine.containers.all()
    users = Counter(container.image_id for container in containers)
    layers = {layer.diff_id: layer.size_bytes for image in images for layer in image.layers}
    return {
        "LayersSize": sum(layers.values()),
        "Images": [image_summary(image, users[image.id], shared_size=0) for image in images],
        "Containers": [_of_container(engine, container) for container in containers],
        "Volumes": [_of_volume(engine, volume) for volume in engine.volumes.list()],
        "BuildCache": [],
    }


def image_summary(image: Image, containers: int, *, shared_size: int) -> dict[str, Any]:
    """An image in ``docker system df`` and ``docker images``; sizes in bytes, -1 where nobody counted."""
    return {
        "Id": image.id,
        "ParentId": "",
        "RepoTags": list(image.repo_tags),
        "RepoDigests": [],
        "Created": image.created_ns // 1_000_000_000,
        "Size": image.size_bytes,
        "SharedSize": shared_size,
        "Labels": image.config.get("Labels"),
        "Containers": containers,
    }


def _of_container(engine: Engine, container: Container) -> dict[str, Any]:
    definition, status = container.definition, container.state.status
    return {
        "Id": container.id,
        "Names": [container.name],
        "Image": definition.config.image,
        "ImageID": container.image_id,
        "Created": definition.created_ns // 1_000_000_000,
        "State": status.value,
        "Status": "" if status is Status.CREATED else status.value,
        "SizeRw": engine.rootfs(container).size_rw_bytes(),
        "SizeRootFs": engine.image_size(container.image_id),
        "Labels": dict(definition.labels),
        "Mounts": [mount.render() for mount in definition.mounts],
    }


def _of_volume(engine: Engine, volume: Volume) -> dict[str, Any]:
    return {
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
