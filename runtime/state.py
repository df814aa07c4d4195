"""What the engine keeps on disk about its containers, and the lock that makes it the only engine there.

A directory per container: ``config.json`` (what was asked for; changes on rename and connect) and
``state.json`` (what became of it; replaced at every transition). Both are written beside and renamed, so
kill -9 leaves the old or the new one. What the directories mean is left to ``runtime/container.py``.
"""

from __future__ import annotations

import enum
import fcntl
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import orjson

__all__ = ["ContainerDirectories", "EngineLock", "Locked", "State", "Status", "read_json", "write_json"]

log = logging.getLogger(__name__)


class Status(enum.StrEnum):
    """``State.Status`` of the Engine API."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    EXITED = "exited"
    REMOVING = "removing"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class State:
    """What became of a container. Times are nanoseconds since the epoch, 0 for never."""

    status: Status = Status.CREATED
    pid: int = 0
    exit_code: int = 0
    oom_killed: bool = False
    error: str = ""
    started_ns: int = 0
    finished_ns: int = 0
    restarts: int = 0  #: by the restart policy; a start by the user sets it to 0
    stopped_by_user: bool = False  #: ``stop`` or ``kill`` asked for the end: no restart
    cgroup: str = ""  #: path below each controller's root, from the OCI spec of the last start
    ever_started: bool = False

    @property
    def running(self) -> bool:
        """Whether a process of the container exists (Docker counts paused as running)."""
        return self.status in (Status.RUNNING, Status.PAUSED)

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> State:
        """Read ``state.json``; keys of a later version are passed over."""
        known = {f.name for f in fields(cls)}
        values = {key: value for key, value in body.items() if key in known}
        values["status"] = Status(values.get("status", "created"))
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        """The body of ``state.json``."""
        return asdict(self)


class Locked(Exception):
    """Another engine has this state directory."""


class EngineLock:
    """Held for the life of the process; the kernel lets go of it when the process ends."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "engine.lock"
        self._fd = -1

    def acquire(self) -> None:
        """Take the lock; Locked, naming the other engine's pid, if it is taken."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(fd)
            raise Locked(
                f"another engine (pid {owner}) is using the state directory {self._path.parent}; "
                "stop it, or give this one its own directory"
            ) from error
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._fd = fd

    def release(self) -> None:
        """Let go; safe to call twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class ContainerDirectories:
    """The directories of all containers, below ``<state>/containers``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True, mode=0o710)

    def path(self, container_id: str) -> Path:
        """The container's directory."""
        return self.root / container_id

    def create(self, container_id: str, config: Mapping[str, Any]) -> Path:
        """Make the directory with ``config.json``: from now on the container exists."""
        path = self.path(container_id)
        path.mkdir(mode=0o710)
        write_json(path / "config.json", config, durable=True)
        return path

    def save_config(self, container_id: str, config: Mapping[str, Any]) -> None:
        """Replace ``config.json``."""
        write_json(self.path(container_id) / "config.json", config, durable=True)

    def save_state(self, container_id: str, state: State) -> None:
        """Replace ``state.json``. Not synced: after a power cut no container runs, whatever it says."""
        write_json(self.path(container_id) / "state.json", state.to_json(), durable=False)

    def save_health(self, container_id: str, health: Mapping[str, Any]) -> None:
        """Replace ``health.json``: what the health check has found."""
        write_json(self.path(container_id) / "health.json", health, durable=False)

    def load_health(self, container_id: str) -> dict[str, Any] | None:
        """Read it; None if there is none, or none that can be read (logged)."""
        try:
            return read_json(self.path(container_id) / "health.json")
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            log.error("cannot read the health of container %s: %s", container_id[:12], error)
            return None

    def load(self) -> Iterator[tuple[str, Mapping[str, Any], State]]:
        """All containers on disk; a directory that cannot be read is logged and left alone."""
        for path in sorted(self.root.iterdir()):
            if not (path / "config.json").exists():
                log.warning("%s has no config.json (killed while it was made): removing it", path)
                shutil.rmtree(path, ignore_errors=True)
                continue
            try:
                config = read_json(path / "config.json")
                state_path = path / "state.json"
                state = State.from_json(read_json(state_path)) if state_path.exists() else State()
            except (OSError, ValueError, TypeError) as error:
                log.error("cannot read the container in %s, leaving it alone: %s", path, error)
                continue
            yield path.name, config, state

    def remove(self, container_id: str) -> None:
        """Delete the directory and all in it; OSError names what could not be deleted."""
        path = self.path(container_id)
        # config.json first: what is left of a removal cut short is swept by load().
        (path / "config.json").unlink(missing_ok=True)
        shutil.rmtree(path)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file; ValueError names the file if it is not one."""
    body = orjson.loads(path.read_bytes())
    if not isinstance(body, dict):
        raise ValueError(f"{path}: expected a JSON object, found {type(body).__name__}")
    return body


def write_json(path: Path, body: Mapping[str, Any], *, durable: bool) -> None:
    """Replace a file at once; ``durable`` waits for the disk too."""
    beside = path.with_name(f".{path.name}.new")
    data = orjson.dumps(body)
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        if durable:
            os.fdatasync(fd)
    finally:
        os.close(fd)
    beside.replace(path)
