"""Reading ``docker save`` archives and OCI image layouts (image-layout.md) into the image store.

An archive is kept in a temporary file while it is read: its parts refer to each other by name. Every digest
that the archive states is checked.
"""

from __future__ import annotations

import hashlib
import posixpath
import shutil
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from typing import IO, Any

import orjson

from runtime.errors import BadRequest
from runtime.images.extract import ArchiveError
from runtime.images.image import ARCHITECTURE, ImageStore
from runtime.images.reference import parse_reference

__all__ = ["load_archive"]

_JSON_LIMIT = 16 << 20
_NAME_ANNOTATIONS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
_INDEX_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)


def load_archive(store: ImageStore, stream: IO[bytes]) -> Sequence[str]:
    """Load every image of an archive; the lines that ``docker load`` prints. Raises BadRequest."""
    with tempfile.TemporaryFile(dir=store.layers.root) as file:
        shutil.copyfileobj(stream, file, 1 << 20)
        file.seek(0)
        try:
            with tarfile.open(fileobj=file) as archive:
                contents = _Contents(archive)
                if contents.has("manifest.json"):
                    return _load_docker(store, contents)
                if contents.has("index.json"):
                    return _load_oci(store, contents)
        except (tarfile.TarError, EOFError) as error:
            raise ArchiveError(f"error reading archive: {error}") from error
    raise BadRequest("invalid archive: it has neither a manifest.json nor an index.json")


class _Contents:
    """An archive's files by name, links between them followed."""

    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive
        self._members = {posixpath.normpath(member.name): member for member in archive}

    def has(self, name: str) -> bool:
        return name in self._members

    def open(self, name: str) -> IO[bytes]:
        path = posixpath.normpath(name)
        for _ in range(8):  # old archives hold a layer once and link to it
            member = self._members.get(path)
            if member is None:
                raise ArchiveError(f"invalid archive: {name} is not in it")
            if member.issym():
                path = posixpath.normpath(posixpath.join(posixpath.dirname(path), member.linkname))
            elif member.islnk():
                path = posixpath.normpath(member.linkname)
            elif member.isreg() and (file := self._archive.extractfile(member)) is not None:
                return file
            else:
                break
        raise ArchiveError(f"invalid archive: {name} is not a file")

    def read(self, name: str) -> bytes:
        data = self.open(name).read(_JSON_LIMIT + 1)
        if len(data) > _JSON_LIMIT:
            raise ArchiveError(f"invalid archive: {name} has more than {_JSON_LIMIT} bytes")
        return data

    def json(self, name: str) -> Any:
        return _parsed(self.read(name), name)

    def blob(self, digest: str) -> bytes:
        """A blob of an OCI layout, its digest checked."""
        data = self.read(_blob_path(digest))
        if f"sha256:{hashlib.sha256(data).hexdigest()}" != digest:
            raise ArchiveError(f"invalid archive: blob {digest} has another content")
        return data


def _parsed(data: bytes, name: str) -> Any:
    try:
        return orjson.loads(data)
    except ValueError as error:
        raise ArchiveError(f"invalid archive: {name}: {error}") from error


def _blob_path(digest: str) -> str:
    algorithm, _, digits = digest.partition(":")
    if algorithm != "sha256" or len(digits) != 64 or digits.strip("0123456789abcdef"):
        raise ArchiveError(f"invalid archive: digest {digest!r}: expected sha256 and 64 hexadecimal digits")
    return f"blobs/sha256/{digits}"


def _load_docker(store: ImageStore, contents: _Contents) -> list[str]:
    lines = []
    entries = contents.json("manifest.json")
    if not isinstance(entries, list):
        raise ArchiveError("invalid archive: manifest.json: expected an array")
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("Config"), str):
            raise ArchiveError("invalid archive: manifest.json: expected objects with Config and Layers")
        layers = [str(path) for path in entry.get("Layers") or ()]
        names = [str(name) for name in entry.get("RepoTags") or ()]
        lines += _add(store, contents, contents.read(entry["Config"]), layers, names)
    return lines


def _load_oci(store: ImageStore, contents: _Contents) -> list[str]:
    lines = []
    for descriptor in _objects(contents.json("index.json"), "manifests"):
        manifest = _manifest(contents, descriptor)
        annotations = descriptor.get("annotations") or {}
        names = [annotations[key] for key in _NAME_ANNOTATIONS if annotations.get(key)][:1]
        config = contents.blob(_digest(manifest.get("config")))
        layers = [_blob_path(_digest(layer)) for layer in _objects(manifest, "layers")]
        lines += _add(store, contents, config, layers, [name for name in names if not _bare_tag(name)])
    return lines


def _manifest(contents: _Contents, descriptor: Mapping[str, Any]) -> Mapping[str, Any]:
    """The manifest behind a descriptor: of an index, that of this machine."""
    document = _parsed(contents.blob(_digest(descriptor)), "manifest")
    if descriptor.get("mediaType") not in _INDEX_TYPES:
        return dict(document)
    for inner in _objects(document, "manifests"):
        platform = inner.get("platform") or {}
        if platform.get("os") == "linux" and platform.get("architecture") == ARCHITECTURE:
            return _manifest(contents, inner)
    raise ArchiveError(f"invalid archive: no image for linux/{ARCHITECTURE} in it")


def _objects(document: Any, key: str) -> list[dict[str, Any]]:
    items = document.get(key) if isinstance(document, dict) else None
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise ArchiveError(f"invalid archive: expected an array of objects under {key}")
    return items


def _digest(descriptor: Any) -> str:
    if not isinstance(descriptor, dict) or not isinstance(descriptor.get("digest"), str):
        raise ArchiveError("invalid archive: expected a descriptor with a digest")
    return str(descriptor["digest"])


def _bare_tag(name: str) -> bool:
    """Whether an OCI ref.name is a tag alone (``latest``), which says nothing of the repository."""
    return "/" not in name and ":" not in name


def _add(
    store: ImageStore, contents: _Contents, config: bytes, layers: Sequence[str], names: Sequence[str]
) -> list[str]:
    document = _parsed(config, "image configuration")
    try:
        diff_ids = list(document["rootfs"]["diff_ids"])
    except (KeyError, TypeError) as error:
        raise ArchiveError("invalid archive: image configuration without rootfs.diff_ids") from error
    if len(diff_ids) != len(layers):
        raise ArchiveError(f"invalid archive: {len(layers)} layers for {len(diff_ids)} diff_ids")
    references = [str(parse_reference(name).tagged()) for name in names]
    for diff_id, path in zip(diff_ids, layers, strict=True):
        if diff_id not in store.layers:
            store.layers.unpack(contents.open(path), str(diff_id))
    image = store.add(config)
    for reference in references:
        store.tag(image.id, reference)
    return [f"Loaded image: {name}" for name in references] or [f"Loaded image ID: {image.id}"]
