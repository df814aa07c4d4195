"""What the plugin remembers of a container across its own restarts: its description and the FIFO being read."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

__all__ = ["REMOVED_MARK", "ContainerRecord"]

_NAME = "container.json"
#: A file of this name stands in the directory of a container that its engine has removed.
REMOVED_MARK = "removed"


@dataclass(frozen=True, slots=True)
class ContainerRecord:
    """One container. ``fifo`` is "" when the engine has stopped logging for it."""

    info: dict[str, Any]  #: as StartLogging had it
    fifo: str
    engine: str = ""  #: the ID of the Docker Engine that has said the container is its own; "" if none has

    def save(self, directory: Path) -> None:
        """Replace the record in the container's directory. Raises OSError."""
        new = directory / f"{_NAME}.new"
        new.write_bytes(orjson.dumps({"file": self.fifo, "info": self.info, "engine": self.engine}))
        os.chmod(new, 0o600)  # noqa: PTH101 environment variables are in it
        new.replace(directory / _NAME)

    @classmethod
    def load(cls, directory: Path) -> ContainerRecord | None:
        """The record in a container's directory, None if there is none. Raises OSError, ValueError."""
        try:
            value = orjson.loads((directory / _NAME).read_bytes())
        except FileNotFoundError:
            return None
        if not isinstance(value, dict) or not isinstance(value.get("info"), dict):
            raise ValueError(f"{directory / _NAME}: not a container's record")
        return cls(value["info"], str(value.get("file", "")), str(value.get("engine", "")))

    @staticmethod
    def saved_at(directory: Path) -> float:
        """When the record in a directory was last replaced, in seconds since the epoch; 0 if there is none."""
        try:
            return (directory / _NAME).stat().st_mtime
        except FileNotFoundError:
            return 0.0
