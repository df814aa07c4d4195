"""The engine's containers by id, name and unique id prefix."""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection

from runtime.container import Container
from runtime.errors import BadRequest, Conflict, no_such_container

__all__ = ["ContainerTable", "check_name", "new_id"]

_NAME = re.compile(r"/?[a-zA-Z0-9][a-zA-Z0-9_.-]*\Z")  # Docker wants two characters; one does no harm
_LEFT = (
    "amber", "brisk", "calm", "deep", "eager", "fair", "grand", "hardy", "keen", "lively", "mild", "noble",
    "prompt", "quiet", "ready", "steady", "trim", "upright", "vivid", "windward",
)  # fmt: skip
_RIGHT = (
    "anchor", "binnacle", "bollard", "capstan", "davit", "ensign", "fairlead", "gaff", "halyard", "jib", "keel",
    "lantern", "mainsail", "oar", "pintle", "rudder", "sextant", "tiller", "windlass", "yard",
)  # fmt: skip


def new_id() -> str:
    """64 hexadecimal digits; never all decimal in the first 12, so that a short id is no number."""
    while True:
        value = secrets.token_hex(32)
        if not value[:12].isdigit():
            return value


def check_name(name: str) -> str:
    """The name with its leading ``/``. Raises BadRequest in Docker's words."""
    if not _NAME.match(name):
        raise BadRequest(f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    return "/" + name.removeprefix("/")


class ContainerTable:
    """All containers. A name is taken from the moment ``reserve`` returns."""

    def __init__(self) -> None:
        self._by_id: dict[str, Container] = {}
        self._names: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def all(self) -> Collection[Container]:
        """All containers, as of now."""
        return list(self._by_id.values())

    def get(self, reference: str) -> Container:
        """By full id, name (with or without ``/``) or unique id prefix, in this order. Raises NotFound."""
        found = self.find(reference)
        if found is None:
            raise no_such_container(reference)
        return found

    def find(self, reference: str) -> Container | None:
        """Like ``get``, None if there is none. Raises BadRequest for a prefix of several ids."""
        if reference in self._by_id:
            return self._by_id[reference]
        named = self._names.get("/" + reference.removeprefix("/"))
        if named is not None:
            return self._by_id.get(named)
        if not reference:
            return None
        matches = [c for id_, c in self._by_id.items() if id_.startswith(reference)]
        if len(matches) > 1:
            raise BadRequest(f"Multiple IDs found with provided prefix: {reference}")
        return matches[0] if matches else None

    def reserve(self, name: str, container_id: str) -> str:
        """Take a name ("" for a made-up one) for an id; returns it with its ``/``. Raises Conflict."""
        if not name:
            name = self._free_name()
        name = check_name(name)
        holder = self._names.setdefault(name, container_id)
        if holder != container_id:
            raise Conflict(
                f'Conflict. The container name "{name}" is already in use by container "{holder}". You have to '
                "remove (or rename) that container to be able to reuse that name."
            )
        return name

    def release(self, name: str, container_id: str) -> None:
        """Give a name back, if it is this container's."""
        if self._names.get(name) == container_id:
            del self._names[name]

    def add(self, container: Container) -> None:
        """Add a container whose name is reserved."""
        self._by_id[container.id] = container
        self._names[container.name] = container.id

    def discard(self, container: Container) -> None:
        """Take a container out, with its name."""
        self._by_id.pop(container.id, None)
        self.release(container.name, container.id)

    def _free_name(self) -> str:
        while True:
            name = f"{secrets.choice(_LEFT)}_{secrets.choice(_RIGHT)}"
            if "/" + name not in self._names:
                return name
            name = f"{name}{secrets.randbelow(100000)}"
            if "/" + name not in self._names:
                return name
