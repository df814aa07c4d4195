"""``docker exec``: further processes in running containers, from their creation to their exit code.

An exec instance lives in the engine's memory only, as Docker's does; the process itself is its shim's.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runtime.errors import BadRequest, Conflict, no_such_exec
from runtime.fields import Fields

if TYPE_CHECKING:
    from runtime.container import Container

__all__ = ["Exec", "ExecConfig", "Execs"]

KEPT = 100  #: finished instances kept per engine for ``exec inspect``


@dataclass(frozen=True, slots=True)
class ExecConfig:
    """The body of ``POST /containers/{name}/exec``."""

    command: tuple[str, ...]
    tty: bool = False
    stdin: bool = False
    stdout: bool = False
    stderr: bool = False
    detach_keys: str = ""
    env: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    privileged: bool = False

    @classmethod
    def from_api(cls, body: Mapping[str, Any]) -> ExecConfig:
        """Read and check it. Raises FieldError, BadRequest."""
        f = Fields(body)
        command = f.words("Cmd")
        if not command:
            raise BadRequest("No exec command specified")
        return cls(
            command=command,
            tty=f.boolean("Tty"),
            stdin=f.boolean("AttachStdin"),
            stdout=f.boolean("AttachStdout"),
            stderr=f.boolean("AttachStderr"),
            detach_keys=f.string("DetachKeys"),
            env=f.strings("Env"),
            working_dir=f.string("WorkingDir"),
            user=f.string("User"),
            privileged=f.boolean("Privileged"),
        )


@dataclass(slots=True)
class Exec:
    """One instance."""

    id: str
    container: Container
    config: ExecConfig
    pid: int = 0
    running: bool = False
    exit_code: int | None = None

    def emit(self, what: str) -> None:
        """Tell ``exec_create`` or ``exec_start``, the command behind it as Docker writes it."""
        program, *arguments = self.config.command
        self.container.emit(f"{what}: {program} {' '.join(arguments)}", execID=self.id)

    def failed(self, code: int) -> None:
        """It could not be started; as with Docker no event tells of that."""
        self.running = False
        self.exit_code = code

    def finished(self, code: int | None) -> None:
        """It has ended; the first call counts. None: its shim died, and the code with it."""
        if self.exit_code is None:
            self.running = False
            self.exit_code = 255 if code is None else code
            self.container.emit("exec_die", execID=self.id, exitCode=str(self.exit_code))

    def render(self) -> dict[str, Any]:
        """The answer of ``GET /exec/{id}/json``."""
        config = self.config
        return {
            "ID": self.id,
            "Running": self.running,
            "ExitCode": self.exit_code,
            "ProcessConfig": {
                "tty": config.tty,
                "entrypoint": config.command[0],
                "arguments": list(config.command[1:]),
                "privileged": config.privileged,
                "user": config.user,
            },
            "OpenStdin": config.stdin,
            "OpenStderr": config.stderr,
            "OpenStdout": config.stdout,
            "CanRemove": not self.running and self.exit_code is not None,
            "ContainerID": self.container.id,
            "DetachKeys": config.detach_keys,
            "Pid": self.pid,
        }


class Execs:
    """All exec instances of the engine."""

    def __init__(self) -> None:
        self._instances: dict[str, Exec] = {}

    def create(self, container: Container, config: ExecConfig) -> Exec:
        """A new instance. Raises Conflict if the container does not run or is paused."""
        container.running_handle()
        if container.state.status.value == "paused":
            raise Conflict(
                f"container {container.name.removeprefix('/')} is paused, unpause the container before exec"
            )
        instance = Exec(secrets.token_hex(32), container, config)
        self._instances[instance.id] = instance
        self._forget_oldest()
        instance.emit("exec_create")
        return instance

    def get(self, reference: str) -> Exec:
        """By id or unique prefix. Raises NotFound."""
        found = self._instances.get(reference)
        if found is None and len(reference) >= 12:
            matches = [item for id_, item in self._instances.items() if id_.startswith(reference)]
            found = matches[0] if len(matches) == 1 else None
        if found is None:
            raise no_such_exec(reference)
        return found

    def forget(self, instance: Exec) -> None:
        """Nobody will ask for it: a health check's, of which there are too many to keep among users' own."""
        self._instances.pop(instance.id, None)

    def ids_of(self, container_id: str) -> list[str]:
        """The container's instances that have not ended."""
        return [
            i.id for i in self._instances.values() if i.container.id == container_id and i.exit_code is None
        ]

    def _forget_oldest(self) -> None:
        ended = [i.id for i in self._instances.values() if i.exit_code is not None or not i.container.exists]
        for id_ in ended[: max(0, len(ended) - KEPT)]:
            del self._instances[id_]
