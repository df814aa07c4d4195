"""How a container's end is recorded: the raw wait status by whoever reaps it, then the finished record.

Two small files in the container's run directory, each written whole by a rename. ``wait.json`` is written
before the process is reaped, by its parent of the moment; ``exit.json`` once all output is in the journal.
Out-of-memory kills are read from the cgroup while it still exists, on cgroup v1, hybrid and v2.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = [
    "EXIT_FILE",
    "INIT_FILE",
    "PID_FILE",
    "UNKNOWN_CODE",
    "WAIT_FILE",
    "ExitStatus",
    "Init",
    "Waited",
    "memory_cgroup",
    "oom_kills",
    "wait_status",
    "write_json",
]

EXIT_FILE = "exit.json"
INIT_FILE = "init.json"
PID_FILE = "init.pid"
WAIT_FILE = "wait.json"

#: What Docker reports for an exit that nobody saw.
UNKNOWN_CODE = 255


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Replace the file in one step."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(value))
    temporary.replace(path)


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        text = path.read_text()
    except FileNotFoundError:
        return None
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError(f"{path}: expected a JSON object, found {text[:80]!r}")
    return value


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a container ended."""

    code: int  #: exit code; 128 plus the signal's number if a signal ended it; 255 if nobody saw
    finished_ns: int  #: when, in nanoseconds since the epoch
    oom_killed: bool = False  #: the kernel killed a process of the container for want of memory
    signal: int = 0  #: the signal that ended it, 0 for none

    @classmethod
    def read(cls, run_dir: Path) -> ExitStatus | None:
        """The finished record of a container, None if it is not finished."""
        value = _read_json(run_dir / EXIT_FILE)
        return None if value is None else cls.from_json(value)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ExitStatus:
        """The inverse of ``to_json``; other keys are passed over."""
        return cls(value["code"], value["finished_ns"], value["oom_killed"], value["signal"])

    def to_json(self) -> dict[str, Any]:
        """The record's JSON."""
        return {
            "code": self.code,
            "signal": self.signal,
            "finished_ns": self.finished_ns,
            "oom_killed": self.oom_killed,
        }

    def write(self, run_dir: Path) -> None:
        """Write the finished record."""
        write_json(run_dir / EXIT_FILE, self.to_json())


@dataclass(frozen=True, slots=True)
class Init:
    """A container's first process, as the shim that started it recorded it."""

    pid: int
    start_ticks: int  #: start time since boot: with the pid it names the process for good
    started_ns: int
    memory_cgroup: str  #: absolute path of its memory cgroup's directory, empty if it has none

    @classmethod
    def read(cls, run_dir: Path) -> Init | None:
        """The record, or None if the start never got that far."""
        value = _read_json(run_dir / INIT_FILE)
        if value is None:
            return None
        return cls(value["pid"], value["start_ticks"], value["started_ns"], value["memory_cgroup"])

    def write(self, run_dir: Path) -> None:
        """Write the record."""
        record = {
            "pid": self.pid,
            "start_ticks": self.start_ticks,
            "started_ns": self.started_ns,
            "memory_cgroup": self.memory_cgroup,
        }
        write_json(run_dir / INIT_FILE, record)


@dataclass(frozen=True, slots=True)
class Waited:
    """The raw end of a container's first process."""

    pid: int
    status: int  #: as ``os.waitpid`` gives it
    finished_ns: int

    @classmethod
    def read(cls, run_dir: Path) -> Waited | None:
        """The record, or None if nobody has reaped the process yet."""
        value = _read_json(run_dir / WAIT_FILE)
        return None if value is None else cls(value["pid"], value["status"], value["finished_ns"])

    def write(self, run_dir: Path) -> None:
        """Write the record unless one for this process is there: the first to see the end is right."""
        there = Waited.read(run_dir)
        if there is None or there.pid != self.pid:
            record = {"pid": self.pid, "status": self.status, "finished_ns": self.finished_ns}
            write_json(run_dir / WAIT_FILE, record)

    def exit_status(self, oom_killed: bool) -> ExitStatus:
        """The finished record it makes."""
        if os.WIFSIGNALED(self.status):
            number = os.WTERMSIG(self.status)
            return ExitStatus(128 + number, self.finished_ns, oom_killed, number)
        return ExitStatus(os.WEXITSTATUS(self.status), self.finished_ns, oom_killed)


def wait_status(result: os.waitid_result) -> int:
    """``os.waitpid``'s form of what ``os.waitid`` says of a process that has ended."""
    return result.si_status << 8 if result.si_code == os.CLD_EXITED else result.si_status


def memory_cgroup(text: str, sys: Path = Path("/sys")) -> str:
    """Directory of the memory cgroup from the text of ``/proc/PID/cgroup``; empty if there is none.

    A v1 memory controller wins over the unified hierarchy, as the kernel has it (cgroups(7)).
    """
    unified = ""
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return f"{sys}/fs/cgroup/memory{path}"
        if not controllers:
            unified = f"{sys}/fs/cgroup{path}"
    return unified


def oom_kills(directory: str) -> int:
    """How many processes the kernel killed in the cgroup for want of memory; 0 if the cgroup is gone.

    v1: ``memory.oom_control`` (``oom_kill`` since 4.13); v2: ``memory.events``.
    """
    if not directory:
        return 0
    for name in ("memory.events", "memory.oom_control"):
        try:
            text = (Path(directory) / name).read_text()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            if error.errno == 19:  # ENODEV: the cgroup went while the file was open
                continue
            raise
        for line in text.splitlines():
            key, _, value = line.partition(" ")
            if key == "oom_kill":
                return int(value)
    return 0
