"""The command line of an OCI runtime (runc, or another that takes the same words): calls and their errors.

Builds argument lists and reads the runtime's JSON log for the reason of a failure. The callers decide
whether to wait in a thread, in asyncio or in the shim's loop.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from runtime.shim.linux import die_with_parent

__all__ = ["Runc", "RuncError", "RuncKilled", "failure"]


class RuncError(Exception):
    """The runtime refused or failed. The text is its own last error message."""


class RuncKilled(RuncError):
    """A signal ended the runtime in the middle of a call: what it had done by then has to be looked at."""


@dataclass(frozen=True, slots=True)
class Runc:
    """One runtime with its state directory."""

    command: str  #: a name on the PATH or an absolute path
    root: Path  #: its ``--root``: where it keeps the state of its containers
    log: Path  #: its ``--log``, JSON lines

    def argv(self, *words: str) -> list[str]:
        """The whole argument list of a call."""
        return [
            self.command,
            "--root",
            str(self.root),
            "--log",
            str(self.log),
            "--log-format",
            "json",
            *words,
        ]

    def run_argv(
        self, container_id: str, bundle: Path, pid_file: Path, console: Path | None = None
    ) -> list[str]:
        """``run --detach``: create and start in one call."""
        words = ["run", "--detach", "--bundle", str(bundle), "--pid-file", str(pid_file)]
        if console is not None:
            words += ["--console-socket", str(console)]
        return self.argv(*words, container_id)

    def exec_argv(
        self, container_id: str, process: Path, pid_file: Path, console: Path | None = None
    ) -> list[str]:
        """``exec --detach`` of the OCI process in a file."""
        words = ["exec", "--detach", "--process", str(process), "--pid-file", str(pid_file)]
        if console is not None:
            words += ["--console-socket", str(console)]
        return self.argv(*words, container_id)

    def delete_argv(self, container_id: str) -> list[str]:
        """``delete --force``: end what is left of it and remove its cgroups; fine if there is nothing."""
        return self.argv("delete", "--force", container_id)

    def status(self, container_id: str) -> str:
        """``created``, ``running``, ``paused`` or ``stopped``; empty if the runtime does not know it."""
        done = subprocess.run(
            self.argv("state", container_id), stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        return str(json.loads(done.stdout)["status"]) if done.returncode == 0 else ""

    def run_bound(self, argv: Sequence[str], streams: Sequence[int], seconds: float) -> None:
        """Run a call to its end, with its three standard streams; the kernel kills it if the caller dies.

        Forks by hand, which costs a shim less memory than ``subprocess``. Raises RuncError, RuncKilled.
        """
        pid = _spawn_bound(argv, streams)
        pidfd = os.pidfd_open(pid)
        try:
            ended = select.poll()
            ended.register(pidfd, select.POLLIN)
            if not ended.poll(seconds * 1000):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                raise RuncError(f"{self.command}: no answer within {seconds:g} s")
        finally:
            os.close(pidfd)
        _, status = os.waitpid(pid, 0)
        if os.WIFSIGNALED(status):
            raise RuncKilled(f"{self.command} was killed by signal {os.WTERMSIG(status)}")
        if status != 0:
            raise RuncError(failure(self.log))

    def call(self, argv: Sequence[str], seconds: float = 60.0) -> None:
        """Run a short call to its end. Raises RuncError."""
        try:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise RuncError(f"{' '.join(argv)}: no answer within {seconds:g} s") from error
        except OSError as error:
            raise RuncError(f"{self.command}: {error.strerror}") from error
        if done.returncode != 0:
            raise RuncError(failure(self.log, done.stderr.decode(errors="replace")))


def _spawn_bound(argv: Sequence[str], streams: Sequence[int]) -> int:
    """Fork and exec; the pid. Raises RuncError if there is nothing to execute."""
    read, write = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _exec(argv, streams, write)
    os.close(write)
    complaint = os.read(read, 1024)
    os.close(read)
    if complaint:
        os.waitpid(pid, 0)
        raise RuncError(f"{argv[0]}: {complaint.decode(errors='replace')}")
    return pid


def _exec(argv: Sequence[str], streams: Sequence[int], complaints: int) -> NoReturn:
    try:
        die_with_parent()
        for number, fd in enumerate(streams):
            os.dup2(fd, number)
        for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # by Python; the container is not to inherit it
            signal.signal(ignored, signal.SIG_DFL)
        os.execvp(argv[0], list(argv))
    except OSError as error:
        os.write(complaints, str(error.strerror).encode())
    finally:
        os._exit(127)


def failure(log: Path, stderr: str = "") -> str:
    """Why the last call failed: the last error in the runtime's log, else what it printed."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        lines = []
    for line in reversed(lines):
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and entry.get("level") in ("error", "fatal"):
            return str(entry.get("msg", "")).strip()
    return stderr.strip() or "the runtime gave no reason"
