"""Every root the product reads or writes, in one object; nothing else spells them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Paths"]


@dataclass(frozen=True, slots=True)
class Paths:
    """Roots of the host's trees and of our own.

    ``run`` is for sockets, FIFOs and what a reboot may forget; ``state`` for what it may not.
    """

    run: Path = Path("/run/taffrail")
    state: Path = Path("/var/lib/taffrail")
    proc: Path = Path("/proc")
    sys: Path = Path("/sys")

    @property
    def engine_socket(self) -> Path:
        """The Docker Engine API of our engine."""
        return self.run / "engine.sock"

    @property
    def agent_socket(self) -> Path:
        """The collector's own API, for the command line."""
        return self.run / "agent.sock"

    @property
    def engine_run(self) -> Path:
        """Volatile engine state: shim sockets, FIFOs, network namespaces."""
        return self.run / "engine"

    @property
    def engine_state(self) -> Path:
        """Durable engine state: containers, images, networks."""
        return self.state / "engine"

    @property
    def collector_state(self) -> Path:
        """Durable collector state: the store, cursors, history."""
        return self.state / "collector"
