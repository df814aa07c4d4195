"""What a container was created as: the request with the image merged in, and what the engine decided.

This is ``config.json``. It changes only by rename and by connecting and disconnecting networks; what became
of the container is in ``runtime/state.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from runtime.config import ContainerConfig
from runtime.merge import command_line

__all__ = ["Definition", "MountPoint", "merged_body"]


@dataclass(frozen=True, slots=True)
class MountPoint:
    """One volume, bind or tmpfs of a container, as inspect shows it."""

    kind: str  #: ``bind``, ``volume``, ``tmpfs``
    source: str  #: path on the host ("" for tmpfs)
    destination: str
    read_write: bool = True
    name: str = ""  #: the volume's name
    mode: str = ""  #: as typed behind the second colon
    propagation: str = ""

    def render(self) -> dict[str, Any]:
        """The Engine API's ``MountPoint``."""
        body: dict[str, Any] = {"Type": self.kind}
        if self.kind == "volume":
            body["Name"] = self.name
        body |= {"Source": self.source, "Destination": self.destination}
        if self.kind == "volume":
            body["Driver"] = "local"
        return body | {"Mode": self.mode, "RW": self.read_write, "Propagation": self.propagation}


@dataclass(frozen=True, slots=True)
class Definition:
    """One container's fixed part."""

    id: str
    name: str  #: with the leading ``/``
    created_ns: int
    image_id: str
    body: Mapping[str, Any]  #: the create request, what the image adds merged in, networks kept up to date
    config: ContainerConfig  #: the same, parsed
    log_driver: str
    log_options: Mapping[str, str]
    mounts: tuple[MountPoint, ...] = ()
    platform: str = "linux"

    @property
    def path(self) -> str:
        """The program."""
        return command_line(self.config)[0]

    @property
    def args(self) -> tuple[str, ...]:
        """Its arguments."""
        return command_line(self.config)[1:]

    @property
    def labels(self) -> Mapping[str, str]:
        """The image's labels, the container's on top."""
        return self.config.labels

    @property
    def hostname(self) -> str:
        """The short id unless the container was given one."""
        return self.config.hostname or self.id[:12]

    @property
    def stop_signal(self) -> str:
        """What ``docker stop`` sends first."""
        return self.config.stop_signal or "SIGTERM"

    def to_json(self) -> dict[str, Any]:
        """The body of ``config.json``."""
        return {
            "id": self.id,
            "name": self.name,
            "created_ns": self.created_ns,
            "image_id": self.image_id,
            "body": self.body,
            "log_driver": self.log_driver,
            "log_options": self.log_options,
            "mounts": [asdict(mount) for mount in self.mounts],
            "platform": self.platform,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Definition:
        """Read ``config.json``. Raises ValueError, TypeError or KeyError for a file that is none."""
        return cls(
            id=values["id"],
            name=values["name"],
            created_ns=values["created_ns"],
            image_id=values["image_id"],
            body=values["body"],
            config=ContainerConfig.from_api(values["body"]),
            log_driver=values["log_driver"],
            log_options=values["log_options"],
            mounts=tuple(MountPoint(**mount) for mount in values["mounts"]),
            platform=values["platform"],
        )


def merged_body(merged: ContainerConfig) -> dict[str, Any]:
    """The create request with the image's defaults in it, so that reading it again gives ``merged``."""
    check = merged.healthcheck
    body = dict(merged.raw) | {
        "Cmd": None if merged.cmd is None else list(merged.cmd),
        "Entrypoint": None if merged.entrypoint is None else list(merged.entrypoint),
        "Env": list(merged.env),
        "Labels": dict(merged.labels),
        "WorkingDir": merged.working_dir,
        "User": merged.user,
        "StopSignal": merged.stop_signal,
        "ExposedPorts": {port: {} for port in merged.exposed_ports},
        "Volumes": {path: {} for path in merged.volumes} or None,
    }
    if check is not None:
        body["Healthcheck"] = {
            "Test": list(check.test),
            "Interval": check.interval_ns,
            "Timeout": check.timeout_ns,
            "StartPeriod": check.start_period_ns,
            "StartInterval": check.start_interval_ns,
            "Retries": check.retries,
        }
    for name in ("ExposedPorts", "StopSignal"):
        if not body[name]:
            del body[name]
    return body
