"""What the composition root tells the engine: directories, defaults, and the parts it injects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from logdrivers.journals.budget import DEFAULT_MAX_BYTES
from runtime.stats import StatsSource

__all__ = ["EngineOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """One engine's settings. ``run_dir`` holds sockets: keep it short (107 bytes with the socket's name)."""

    state_dir: Path  #: durable: containers, images, volumes, networks
    run_dir: Path  #: volatile: shims, bundles, network namespaces
    version: str = "0.1.0"
    runtime: str = "runc"
    default_log_driver: str = "json-file"
    default_log_options: Mapping[str, str] = field(default_factory=dict)
    journal_max_bytes: int = DEFAULT_MAX_BYTES  #: of all containers' journals together, on disk
    bridge: str = "taffrail0"
    subnet: str = ""  #: of the default bridge; "" for a free private one
    cgroup_parent: str = "/taffrail"
    labels: tuple[str, ...] = ()
    stats: StatsSource | None = None
    proc: Path = Path("/proc")
    sys: Path = Path("/sys")
