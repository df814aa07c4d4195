"""From what an input knows of a container to the source its lines are stored under.

Names, image, engine and labels come from discovery where it knows the container, else from the message.
Labels are handed on only when the allow-list names them, and never when their name looks like a secret's;
environment variables are not handed on at all.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from typing import Protocol

from collector.container import Container
from collector.enrich.services import SERVICE_LABELS
from collector.sink import Source

__all__ = ["Known", "Sources", "looks_secret"]

_SECRET = re.compile(
    r"passw(or)?d|passphrase|([^a-z]|^)pass([^a-z]|$)|secret|token|credential|api[-_.]?key|private[-_.]?key"
    r"|access[-_.]?key|([^a-z]|^)auth([^a-z]|$)|([^a-z]|^)pwd([^a-z]|$)",
    re.IGNORECASE,
)
_MOST_CACHED = 10_000


class Known(Protocol):
    """What is needed of the containers' registry."""

    def get(self, key: str) -> Container | None:
        """The container of this id or name."""


def looks_secret(name: str) -> bool:
    """Whether a label or variable of this name should be taken for a secret."""
    return _SECRET.search(name) is not None


class Sources:
    """Makes sources and remembers them, so that a container's lines share one object.

    ``labels`` are names or patterns (``org.example.*``) of container labels to hand on, beside those of
    Compose and Swarm; ``("*",)`` hands on all that do not look like secrets.
    """

    def __init__(self, containers: Known, host: str, labels: Sequence[str] = ()) -> None:
        self._containers = containers
        self._host = host
        self._patterns = tuple(labels)
        self._cache: dict[tuple[str, str, str, str], tuple[Container | None, Source]] = {}

    def __call__(self, container_id: str, container_name: str, image: str, input: str) -> Source:
        """The source of a message that says it is from this container; any of the first three may be "".

        A container that discovery does not know (or no longer) keeps what the message says.
        """
        container = (
            self._containers.get(container_id or container_name) if container_id or container_name else None
        )
        if container is not None and not (
            container.id.startswith(container_id)
            if container_id
            else container.name == container_name.removeprefix("/")
        ):
            container = None  # found by a name that looks like an id, or the other way round
        key = (container_id, container_name, image, input)
        known = self._cache.get(key)
        if known is not None and known[0] is container:
            return known[1]
        source = self._make(container, container_id, container_name, image, input)
        if known is not None and known[1] == source:
            source = known[1]
        if len(self._cache) >= _MOST_CACHED:
            self._cache.clear()
        self._cache[key] = (container, source)
        return source

    def _make(
        self, container: Container | None, container_id: str, container_name: str, image: str, input: str
    ) -> Source:
        if container is None:
            name = container_name.removeprefix("/")
            return Source(container_id, name, image, self._host, input)
        return Source(
            container_id=container.id,
            container_name=container.name,
            image=container.image or image,
            host=self._host,
            input=input,
            engine=container.engine,
            labels=self._allowed(container.labels),
        )

    def _allowed(self, labels: Mapping[str, str]) -> dict[str, str]:
        return {
            name: value
            for name, value in labels.items()
            if name in SERVICE_LABELS
            or (not looks_secret(name) and any(fnmatch.fnmatchcase(name, p) for p in self._patterns))
        }
