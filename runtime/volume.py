"""Named volumes of the ``local`` driver: a directory each, ``<root>/<name>/_data``, kept until removed.

Which containers use a volume is the engine's knowledge; mounting one into a container is ``binds`` and
``oci``. A volume made without a name (``-v /data``) gets 64 hexadecimal digits and is marked anonymous.
"""

from __future__ import annotations

import re
import secrets
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from runtime.errors import BadRequest, no_such_volume
from runtime.files import write_atomically

__all__ = ["ANONYMOUS", "Volume", "VolumeStore"]

ANONYMOUS = "com.docker.volume.anonymous"
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*\Z")


@dataclass(frozen=True, slots=True)
class Volume:
    """One volume."""

    name: str
    mountpoint: Path
    created_ns: int
    labels: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def anonymous(self) -> bool:
        """Made without a name; goes with its container on ``rm -v``."""
        return ANONYMOUS in self.labels


class VolumeStore:
    """All volumes below one directory."""

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(parents=True, exist_ok=True, mode=0o711)
        self._volumes: dict[str, Volume] = {}
        for path in sorted(root.iterdir()):
            if (path / "_data").is_dir():
                self._volumes[path.name] = self._read(path)

    def list(self) -> list[Volume]:
        """All volumes, by name."""
        return [self._volumes[name] for name in sorted(self._volumes)]

    def get(self, name: str) -> Volume:
        """By name. Raises NotFound."""
        try:
            return self._volumes[name]
        except KeyError:
            raise no_such_volume(name) from None

    def __contains__(self, name: str) -> bool:
        return name in self._volumes

    def create(
        self,
        name: str = "",
        labels: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None,
        driver: str = "local",
    ) -> tuple[Volume, bool]:
        """The volume of this name and whether it is new; one that exists is returned as it is.

        Raises BadRequest for a name, driver or option that is not possible.
        """
        if driver not in ("", "local", "default"):
            raise BadRequest(f"error looking up volume plugin {driver}: plugin {driver!r} not found")
        if options:
            raise BadRequest(f"invalid option: {sorted(options)[0]!r}: the local driver takes none here")
        labels = dict(labels or {})
        if not name:
            name = secrets.token_hex(32)
            labels.setdefault(ANONYMOUS, "")
        if not _NAME.match(name) or len(name) > 255:
            raise BadRequest(
                f'create {name}: "{name}" includes invalid characters for a local volume name, only '
                '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use '
                "absolute path"
            )
        if name in self._volumes:
            return self._volumes[name], False
        path = self._root / name
        path.mkdir(mode=0o701, exist_ok=True)
        write_atomically(
            path / "opts.json", orjson.dumps({"created_ns": time.time_ns(), "labels": labels}), durable=True
        )
        (path / "_data").mkdir(mode=0o755, exist_ok=True)
        self._volumes[name] = self._read(path)
        return self._volumes[name], True

    def remove(self, name: str) -> None:
        """Delete a volume with its data. Raises NotFound."""
        volume = self.get(name)
        doomed = self._root / f".removing-{name}"
        volume.mountpoint.parent.rename(doomed)
        del self._volumes[name]
        shutil.rmtree(doomed)

    def _read(self, path: Path) -> Volume:
        facts: dict[str, Any] = {}
        if (path / "opts.json").exists():
            facts = orjson.loads((path / "opts.json").read_bytes())
        created = int(facts.get("created_ns") or path.stat().st_mtime_ns)
        return Volume(path.name, path / "_data", created, facts.get("labels") or {})
