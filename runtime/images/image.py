"""Images: configuration, tags and layers, by content digest, in one directory.

An image's id is the SHA-256 of its configuration's bytes, which are kept as they came. Reading archives is
``image_archive``'s part, unpacking ``layers``'; this module keeps what they produce and answers by name.
"""

from __future__ import annotations

import hashlib
import json
import platform
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import orjson

from runtime.errors import BadRequest, Conflict, NotFound
from runtime.files import write_atomically
from runtime.images.changes import apply_changes
from runtime.images.layers import Layer, LayerStore
from runtime.images.reference import parse_reference

__all__ = ["Image", "ImageStore", "InUse", "Removed"]

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
ARCHITECTURE = _ARCHITECTURES.get(platform.machine(), platform.machine())


@dataclass(frozen=True, slots=True)
class InUse:
    """A container that uses an image."""

    container_id: str
    running: bool


#: Asked before an image goes: which containers use the image of this id?
UsersOf = Callable[[str], Sequence[InUse]]


@dataclass(frozen=True, slots=True)
class Removed:
    """One line of ``docker rmi``'s answer: a tag taken away or an image deleted."""

    untagged: str = ""
    deleted: str = ""

    def to_api(self) -> dict[str, str]:
        """The Engine API's ImageDeleteResponseItem."""
        return {"Untagged": self.untagged} if self.untagged else {"Deleted": self.deleted}


@dataclass(frozen=True, slots=True)
class Image:
    """One image. ``config`` is the ``config`` object of the image configuration, with Docker's names."""

    id: str  #: ``sha256:…`` of the configuration's bytes
    repo_tags: tuple[str, ...]  #: familiar references, sorted: ``busybox:latest``
    created: str  #: RFC 3339, as the configuration has it
    size_bytes: int  #: of the regular files of all layers
    layers: tuple[Layer, ...]  #: lowest first
    document: Mapping[str, Any] = field(repr=False)  #: the whole configuration, parsed

    @property
    def config(self) -> Mapping[str, Any]:
        """What containers take as defaults: Cmd, Entrypoint, Env, WorkingDir, User, …"""
        return self.document.get("config") or {}

    @property
    def layer_dirs(self) -> tuple[Path, ...]:
        """The layers' directories, lowest first (overlayfs's ``lowerdir`` wants them reversed)."""
        return tuple(layer.path for layer in self.layers)

    @property
    def created_ns(self) -> int:
        """Creation time in nanoseconds since the epoch; 0 when the configuration has none."""
        try:
            return int(datetime.fromisoformat(self.created.replace("Z", "+00:00")).timestamp() * 1e9)
        except ValueError:
            return 0


class ImageStore:
    """All images below one directory. Safe to use from several threads."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._configs = root / "images"
        self._configs.mkdir(parents=True, exist_ok=True, mode=0o700)
        root.chmod(0o710)
        self.layers = LayerStore(root / "layers")
        self._lock = threading.RLock()
        self._tags_file = root / "repositories.json"
        self._tags: dict[str, str] = {}
        if self._tags_file.exists():
            self._tags = orjson.loads(self._tags_file.read_bytes())
        self._images: dict[str, Image] = {}
        for path in self._configs.glob("*.json"):
            image_id = f"sha256:{path.stem}"
            self._images[image_id] = self._build(image_id, orjson.loads(path.read_bytes()))

    def list(self) -> Sequence[Image]:
        """All images, newest first."""
        with self._lock:
            return sorted(self._images.values(), key=lambda image: (image.created_ns, image.id), reverse=True)

    def get(self, reference: str) -> Image:
        """By name, tag, id, or unique id prefix. Raises NotFound with Docker's words."""
        with self._lock:
            image_id = self._resolve(reference)
            if image_id is None:
                raise NotFound(f"No such image: {_shown(reference)}")
            return self._images[image_id]

    def config_bytes(self, image: Image) -> bytes:
        """The configuration as it came, byte for byte."""
        return self._config_path(image.id).read_bytes()

    def import_tar(
        self,
        stream: IO[bytes],
        reference: str = "",
        changes: Sequence[str] = (),
        message: str = "",
        platform_os: str = "linux",
    ) -> Image:
        """Make an image of one layer from a root filesystem's (compressed) tar stream.

        ``reference`` may be empty; ``changes`` are Dockerfile instructions. Raises BadRequest.
        """
        if reference:
            parse_reference(reference)
        config = apply_changes({}, changes)
        layer = self.layers.unpack(stream)
        created = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        comment = message or "Imported from -"
        document = {
            "architecture": ARCHITECTURE,
            "comment": comment,
            "config": config,
            "created": created,
            "history": [{"created": created, "comment": comment}],
            "os": platform_os,
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]},
        }
        image = self.add(json.dumps(document, separators=(",", ":")).encode())
        return self.tag(image.id, reference) if reference else image

    def add(self, config: bytes) -> Image:
        """Keep an image whose layers are all here. Raises BadRequest for an unusable configuration."""
        image_id = f"sha256:{hashlib.sha256(config).hexdigest()}"
        try:
            document = orjson.loads(config)
            diff_ids = document["rootfs"]["diff_ids"]
            if not isinstance(document.get("config") or {}, dict) or not isinstance(diff_ids, list):
                raise TypeError("config and rootfs.diff_ids expected")
        except (ValueError, KeyError, TypeError) as error:
            raise BadRequest(f"invalid image configuration: {error}") from error
        missing = [diff_id for diff_id in diff_ids if diff_id not in self.layers]
        if missing:
            raise BadRequest(f"invalid image configuration: layer {missing[0]} is not in the archive")
        with self._lock:
            if image_id not in self._images:
                write_atomically(self._config_path(image_id), config)
                self._images[image_id] = self._build(image_id, document)
            return self._images[image_id]

    def tag(self, source: str, reference: str) -> Image:
        """Give an image another name. Raises NotFound, BadRequest."""
        target = parse_reference(reference)
        if target.digest:
            raise BadRequest("refusing to create a tag with a digest reference")
        with self._lock:
            image = self.get(source)
            name = str(target.tagged())
            before = self._tags.get(name)
            if before == image.id:
                return image
            self._write_tags({**self._tags, name: image.id})
            if before in self._images:
                self._refresh(before)
            return self._refresh(image.id)

    def remove(self, reference: str, users_of: UsersOf, force: bool = False) -> Sequence[Removed]:
        """``docker rmi``: take away a tag, and the image with its last one. Raises NotFound, Conflict."""
        with self._lock:
            image = self.get(reference)
            by_id = _is_id(reference, image.id)
            users = users_of(image.id)
            if not by_id and len(image.repo_tags) > 1:
                name = str(parse_reference(reference).tagged())
                self._untag((name,))
                self._refresh(image.id)
                return [Removed(untagged=name)]
            self._check_removable(reference, image, by_id, users, force)
            removed = [Removed(untagged=name) for name in image.repo_tags]
            self._untag(image.repo_tags)
            if users:
                self._refresh(image.id)
                return removed
            self._delete(image)
            removed.append(Removed(deleted=image.id))
            return removed

    def _check_removable(
        self, reference: str, image: Image, by_id: bool, users: Sequence[InUse], force: bool
    ) -> None:
        short = image.id.removeprefix("sha256:")[:12]
        if by_id and len(image.repo_tags) > 1 and not force:
            raise Conflict(
                f"conflict: unable to delete {short} (must be forced) - "
                "image is referenced in multiple repositories"
            )
        running = [user for user in users if user.running]
        if running:
            if not by_id and force:
                return
            user = running[0].container_id[:12]
            if by_id:
                raise Conflict(
                    f"conflict: unable to delete {short} (cannot be forced) - "
                    f"image is being used by running container {user}"
                )
        if users and not force:
            user = users[0].container_id[:12]
            if by_id:
                raise Conflict(
                    f"conflict: unable to delete {short} (must be forced) - "
                    f"image is being used by stopped container {user}"
                )
            raise Conflict(
                f'conflict: unable to remove repository reference "{reference}" (must force) - '
                f"container {user} is using its referenced image {short}"
            )

    def _delete(self, image: Image) -> None:
        self._config_path(image.id).unlink(missing_ok=True)
        del self._images[image.id]
        kept = {layer.diff_id for other in self._images.values() for layer in other.layers}
        for layer in image.layers:
            if layer.diff_id not in kept:
                self.layers.remove(layer.diff_id)

    def _resolve(self, reference: str) -> str | None:
        digits = reference.removeprefix("sha256:")
        if len(digits) == 64 and f"sha256:{digits}" in self._images:
            return f"sha256:{digits}"
        if not reference.startswith("sha256:"):
            try:
                name = str(parse_reference(reference).tagged())
            except BadRequest:
                name = ""
            if name in self._tags:
                return self._tags[name]
        if digits and not digits.strip("0123456789abcdef"):
            found = [image_id for image_id in self._images if image_id.startswith(f"sha256:{digits}")]
            if len(found) > 1:
                raise BadRequest(f"ambiguous reference: multiple images have the id prefix {digits}")
            return found[0] if found else None
        return None

    def _build(self, image_id: str, document: dict[str, Any]) -> Image:
        layers = tuple(self.layers.get(diff_id) for diff_id in document["rootfs"]["diff_ids"])
        return Image(
            id=image_id,
            repo_tags=tuple(sorted(name for name, target in self._tags.items() if target == image_id)),
            created=str(document.get("created") or ""),
            size_bytes=sum(layer.size_bytes for layer in layers),
            layers=layers,
            document=document,
        )

    def _refresh(self, image_id: str) -> Image:
        image = self._build(image_id, dict(self._images[image_id].document))
        self._images[image_id] = image
        return image

    def _untag(self, names: Sequence[str]) -> None:
        self._write_tags({name: target for name, target in self._tags.items() if name not in names})

    def _write_tags(self, tags: dict[str, str]) -> None:
        write_atomically(self._tags_file, orjson.dumps(tags, option=orjson.OPT_INDENT_2))
        self._tags = tags

    def _config_path(self, image_id: str) -> Path:
        return self._configs / f"{image_id.removeprefix('sha256:')}.json"


def _is_id(reference: str, image_id: str) -> bool:
    return image_id.startswith((reference, f"sha256:{reference}"))


def _shown(reference: str) -> str:
    """Docker's answer has the tag that it looked for."""
    try:
        return str(parse_reference(reference).tagged())
    except BadRequest:
        return reference
