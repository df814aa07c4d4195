"""The contract between a container and what starts it: one start, what it gives, what a failed one means.

``runtime/launch.py`` keeps it; a container (``runtime/container.py``) knows no more of its parts than this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from runtime.shim.shims import ShimHandle

if TYPE_CHECKING:
    from runtime.container import Container

__all__ = ["Launch", "Launched", "failed_start_code"]


class Launched:
    """A container that was just started."""

    __slots__ = ("cgroup", "handle")

    def __init__(self, handle: ShimHandle, cgroup: str) -> None:
        self.handle = handle
        self.cgroup = cgroup  #: path below each hierarchy's root


class Launch(Protocol):
    """Starts containers and clears away after them."""

    async def start(self, container: Container) -> Launched:
        """Put all parts together and run; EngineError with everything cleared away again."""

    async def clear(self, container: Container) -> None:
        """Network and mounts of a container that has ended. Never raises; failures are logged."""

    async def deliver_remainder(self, container: Container) -> None:
        """Have what its log driver's sink has not taken delivered."""


def failed_start_code(message: str) -> int:
    """The exit code Docker gives a container that could not be started."""
    if "executable file not found" in message or "no such file or directory" in message:
        return 127
    if "permission denied" in message or "is a directory" in message:
        return 126
    return 128
