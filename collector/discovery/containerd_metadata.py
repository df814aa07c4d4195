"""What containerd writes down of a container: its metadata database, and the CRI part's status files.

The database (bbolt) has image, labels, the time it was made, and the CRI part's own JSON with the name, the
image's id, the log file and how often Kubernetes restarted it; ``status`` files beside it have how it
ended. The container's bundle, which leads here by its ``work`` link, is ``containerd_files.py``'s.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from collector.discovery.bolt import BoltFile, Bucket

__all__ = ["Metadata", "exit_code_of_status", "parse_go_time", "read_metadata"]

logger = logging.getLogger(__name__)

_TRIES = 3
#: Seconds from the year 1, where Go's clock begins, to 1970.
_GO_EPOCH = 62_135_596_800
_GO_TIME = struct.Struct(">Bqih")  # version, seconds, nanoseconds, minutes east of Greenwich
#: Tags of the two fields of a protobuf ``Any``.
_TYPE_URL, _VALUE = 0x0A, 0x12
_SANDBOX, _CONTAINER = b"io.cri-containerd.sandbox.metadata", b"io.cri-containerd.container.metadata"


@dataclass(frozen=True, slots=True)
class Metadata:
    """One container's."""

    image: str = ""
    image_id: str = ""  #: CRI only
    name: str = ""  #: CRI only, as CRI-O names it: ``k8s_<container>_<pod>_<namespace>_<uid>_<attempt>``
    labels: Mapping[str, str] = field(default_factory=dict)
    created_ns: int = 0
    log_path: str = ""  #: CRI only
    restarts: int = 0  #: CRI only: which attempt of Kubernetes it is
    status: Path | None = None  #: CRI only, not of sandboxes: the file that will have the exit code


def read_metadata(root: Path, bundle: Path, namespace: str, name: str) -> Metadata:
    """What the database says, whose place the bundle's ``work`` link tells; nothing where it cannot be read.

    ``root`` is where the host's root file system is.
    """
    try:
        own = root / str((bundle / "work").readlink().parents[2]).lstrip("/")
    except (OSError, IndexError):
        return Metadata()
    path = own / "io.containerd.metadata.v1.bolt" / "meta.db"
    for attempt in range(_TRIES):
        try:
            with BoltFile(path) as file:
                bucket = file.root().bucket(b"v1", namespace.encode(), b"containers", name.encode())
                return _parse(bucket, own, name) if bucket is not None else Metadata()
        except OSError:
            return Metadata()
        except ValueError as error:
            if attempt == _TRIES - 1:
                logger.warning("cannot read containerd's metadata in %s: %s", path, error)
    return Metadata()


def parse_go_time(data: bytes) -> int:
    """Go's binary form of a time as nanoseconds since 1970; 0 for none. Raises ValueError."""
    if not data:
        return 0
    if len(data) < _GO_TIME.size or data[0] not in (1, 2):
        raise ValueError(f"time {data[:16]!r}: expected 15 bytes of version 1")
    _version, seconds, nanoseconds, _offset = _GO_TIME.unpack_from(data)
    since_1970: int = (seconds - _GO_EPOCH) * 1_000_000_000 + nanoseconds
    return max(since_1970, 0)


def exit_code_of_status(path: Path) -> int | None:
    """The exit code in a CRI container's status file; None while it runs, and where there is no such file."""
    try:
        status = orjson.loads(path.read_bytes())
        if not isinstance(status, dict):
            raise ValueError("expected a JSON object")
        return int(status["ExitCode"]) if status.get("FinishedAt") else None
    except OSError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        logger.warning("cannot read how a container ended in %s: %r", path, error)
        return None


def _parse(bucket: Bucket, own: Path, name: str) -> Metadata:
    """Raises ValueError on damage."""
    labels = bucket.bucket(b"labels")
    found = {key.decode(errors="replace"): value.decode(errors="replace") for key, value in _items(labels)}
    image = (bucket.get(b"image") or b"").decode(errors="replace")
    created_ns = parse_go_time(bucket.get(b"createdat") or b"")
    extensions = bucket.bucket(b"extensions")
    for key in (_CONTAINER, _SANDBOX):
        cri = _cri(extensions.get(key) if extensions is not None else None)
        if cri:
            sandbox = key == _SANDBOX
            directory = own / "io.containerd.grpc.v1.cri" / "containers" / name
            config = cri.get("Config") or {}
            return Metadata(
                image,
                str(cri.get("ImageRef") or ""),
                f"k8s_{'POD_' if sandbox else ''}{cri['Name']}" if cri.get("Name") else "",
                found,
                created_ns,
                str(cri.get("LogPath") or ""),
                int((config.get("metadata") or {}).get("attempt") or 0),
                None if sandbox else directory / "status",
            )
    return Metadata(image, labels=found, created_ns=created_ns)


def _items(labels: Bucket | None) -> list[tuple[bytes, bytes]]:
    return list(labels.items()) if labels is not None else []


def _cri(extension: bytes | None) -> Mapping[str, Any]:
    """The JSON inside a protobuf ``Any``. Raises ValueError on damage."""
    data = _value(extension or b"")
    found = orjson.loads(data) if data else {}
    metadata = found.get("Metadata") if isinstance(found, dict) else None
    return metadata if isinstance(metadata, dict) else {}


def _value(message: bytes) -> bytes:
    """The second field of a protobuf ``Any``, whose first is the name of the type. Raises ValueError on damage."""
    at = 0
    while at < len(message):
        tag = message[at]
        size = shift = 0
        more = True
        while more:
            at += 1
            if at >= len(message) or shift > 28:
                raise ValueError(f"protobuf Any {message[:40]!r}: cut short")
            size |= (message[at] & 0x7F) << shift
            shift += 7
            more = message[at] >= 0x80
        at += 1
        if tag == _VALUE:
            return message[at : at + size]
        if tag != _TYPE_URL:
            raise ValueError(f"protobuf Any {message[:40]!r}: expected a type's name and a value")
        at += size
    return b""
