"""What the collector knows of a container, whichever engine runs it.

Discovery (``collector/discovery/``) makes these from Engine API answers and from cgroup paths; sampling,
enrichment, exposition and the page only read them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Container", "LogSource"]


@dataclass(frozen=True, slots=True)
class LogSource:
    """How the container's engine keeps its log."""

    driver: str = ""  #: ``json-file``, ``gelf``, ``k8s-file``, ``cri``, … ("" where the engine does not say)
    path: str = ""  #: the current file of json-file, k8s-file or cri, "" for drivers without one
    directory: str = ""  #: our engine only: the journal's directory
    options: Mapping[str, str] = field(default_factory=dict)
    user: int = 0  #: whose word it is that this is the log; not root's: only files of theirs are read


@dataclass(frozen=True, slots=True)
class Container:
    """One container, at one moment. A change of state makes a new object with the same ``id``."""

    id: str  #: 64 hexadecimal digits, or the cgroup path for a bare cgroup
    name: str  #: without the leading ``/``
    image: str = ""  #: as the user typed it
    image_id: str = ""
    engine: str = ""  #: ``taffrail``, ``docker``, ``podman``, ``containerd``, ``cri-o``; "" for a bare cgroup
    state: str = "running"  #: Docker's words: created running paused restarting exited dead
    pid: int = 0  #: of the init process in the host's namespace; 0 when not running
    cgroup: str = ""  #: path of the cgroup below its hierarchy's root, ``/docker/<id>``; cAdvisor's ``id``
    network_mode: str = ""  #: ``bridge``, ``host``, ``none``, ``container:<id>``, or a network's name
    privileged: bool = False  #: with every right of the host's root, as far as anybody told
    created_ns: int = 0
    started_ns: int = 0
    finished_ns: int = 0
    exit_code: int | None = None
    oom_killed: bool = False
    restarts: int = 0
    health: str = ""  #: ``healthy``, ``unhealthy``, ``starting`` or ""
    labels: Mapping[str, str] = field(default_factory=dict)
    networks: tuple[str, ...] = ()
    memory_limit_bytes: int = 0  #: 0 = unlimited
    cpu_shares: int = 0  #: on v1's scale, as it was asked for; 0 = not known
    log: LogSource = field(default_factory=LogSource)

    @property
    def bare(self) -> bool:
        """Whether it is a cgroup that no engine made: a service, a slice, a pod; ``id`` is its path."""
        return self.id.startswith("/")
