"""A container's OCI bundle as runtimes leave it on disk: ``config.json`` with annotations, limits, namespaces.

Source of the format: the OCI runtime specification. Which bundle is whose is found by ``keeper.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

__all__ = ["annotations_of", "cpu_shares", "memory_limit", "mounted_from", "network_mode", "read_bundle"]

_LARGEST = 16 << 20


def read_bundle(directory: Path) -> Mapping[str, Any]:
    """The bundle's ``config.json``. Raises OSError, or ValueError where it is no JSON object."""
    path = directory / "config.json"
    with path.open("rb") as file:
        found = orjson.loads(file.read(_LARGEST))
    if not isinstance(found, dict):
        raise ValueError(f"{path}: expected a JSON object")
    return found


def annotations_of(spec: Mapping[str, Any]) -> dict[str, str]:
    """Its annotations."""
    return {str(key): str(value) for key, value in (spec.get("annotations") or {}).items()}


def memory_limit(spec: Mapping[str, Any]) -> int:
    """Bytes; 0 = unlimited."""
    resources = (spec.get("linux") or {}).get("resources") or {}
    return max(int((resources.get("memory") or {}).get("limit") or 0), 0)


def cpu_shares(spec: Mapping[str, Any]) -> int:
    """CPU shares on v1's scale; the kernel's 1024 where the specification asks for none, 0 where it is empty."""
    if not spec:
        return 0
    resources = (spec.get("linux") or {}).get("resources") or {}
    return max(int((resources.get("cpu") or {}).get("shares") or 1024), 0)


def network_mode(spec: Mapping[str, Any]) -> str:
    """``host`` where it has no network namespace of its own, else "" (the specification does not say more)."""
    namespaces = (spec.get("linux") or {}).get("namespaces")
    if namespaces is None:
        return ""
    return "" if any(entry.get("type") == "network" for entry in namespaces) else "host"


def mounted_from(spec: Mapping[str, Any], destination: str) -> str:
    """What is mounted at a path inside; "" for nothing."""
    for mount in spec.get("mounts") or ():
        if mount.get("destination") == destination:
            return str(mount.get("source") or "")
    return ""
