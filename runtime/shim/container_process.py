"""A container's first process as its shim sees it: started through runc or taken over, signalled, reaped.

Processes are held by pidfd, and a taken-over one is known by its start time, so a pid that was given out
again is never mistaken for the container.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import time
from pathlib import Path

from runtime.oci.runc import Runc, RuncError, RuncKilled
from runtime.shim import streams, tty
from runtime.shim.exit_status import (
    EXIT_FILE,
    INIT_FILE,
    PID_FILE,
    UNKNOWN_CODE,
    WAIT_FILE,
    Init,
    Waited,
    memory_cgroup,
    oom_kills,
    wait_status,
)
from runtime.shim.leftovers import remove_cgroups
from runtime.shim.linux import exit_status_of, process_start, zombie_status
from runtime.shim.spec import ShimSpec

__all__ = ["ContainerProcess", "StartFailed", "StartInterrupted"]

log = logging.getLogger(__name__)

_START_SECONDS = 120.0
#: runc writes the pid file under this name first, and refuses to start if it is there.
_HALF_PID_FILE = f".{PID_FILE}"
#: How long the one who reaped the process may take to say how it ended.
_RECORD_SECONDS = 5.0


class StartFailed(Exception):
    """The container did not start. The text is the OCI runtime's."""


class StartInterrupted(StartFailed):
    """Nothing of the container ran, so it may be started again."""


class ContainerProcess:
    """The container's first process; ``waited`` is set once it has ended.

    ``pidfd`` is its own if it is known: with that an end is told that others have reaped.
    """

    def __init__(self, spec: ShimSpec, master: int | None, pidfd: int = -1) -> None:
        self._spec = spec
        self.runc = Runc(spec.runtime, spec.runtime_root, spec.run_dir / "runc.log")
        self.tty = master  #: the terminal's master, if the container has one
        self.init: Init | None = None
        self.pidfd = pidfd
        self.waited: Waited | None = None

    @property
    def pid(self) -> int:
        """Its pid, 0 before it is known."""
        return self.init.pid if self.init is not None else 0

    def start(self) -> None:
        """Create and start the container in one call of the runtime. Raises StartFailed."""
        for name in (EXIT_FILE, WAIT_FILE, INIT_FILE, PID_FILE, _HALF_PID_FILE, "runc.log"):
            (self._spec.run_dir / name).unlink(missing_ok=True)
        self._clear_last()
        if self._spec.tty:
            with tty.ConsoleSocket(self._spec.run_dir) as console:
                self._run(console.path)
                try:
                    self.tty = console.receive()
                except OSError as error:
                    self.delete()
                    raise StartFailed(f"receive the terminal from {self._spec.runtime}: {error}") from error
        else:
            self._run(None)
        if self.init is None:
            self._know(int(self._pid_file.read_text()), time.time_ns())

    def adopt(self) -> None:
        """Take over from a predecessor. Raises StartFailed if it had not got the container started."""
        run_dir = self._spec.run_dir
        self.init = Init.read(run_dir)
        if self.init is None:
            self._finish_start()
            return
        self.waited = Waited.read(run_dir)
        if self.waited is None and self.pidfd < 0:
            try:
                self.pidfd = os.pidfd_open(self.init.pid)
            except ProcessLookupError:
                self.waited = self._unseen()
                return
            if process_start(self.init.pid) != self.init.start_ticks:
                os.close(self.pidfd)
                self.pidfd = -1
                self.waited = self._unseen()

    def collect(self) -> None:
        """The process has ended: learn how, record it, reap it if it is ours."""
        if self.waited is not None:
            return
        assert self.init is not None
        try:
            result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            self.waited = self._recorded()
            return
        if result is None:
            return
        waited = Waited(self.init.pid, wait_status(result), time.time_ns())
        waited.write(self._spec.run_dir)
        os.waitpid(self.init.pid, 0)
        self.waited = Waited.read(self._spec.run_dir) or waited

    def signal(self, number: int) -> None:
        """Send a signal to it. Raises ProcessLookupError if it has ended."""
        if self.pidfd < 0:
            raise ProcessLookupError(errno.ESRCH, "the container has ended")
        signal.pidfd_send_signal(self.pidfd, number)

    def oom_killed(self) -> bool:
        """Whether the kernel killed for want of memory in its cgroup; ask before ``delete``."""
        return self.init is not None and oom_kills(self.init.memory_cgroup) > 0

    def delete(self) -> None:
        """End what is left of the container and remove its cgroups and the runtime's state."""
        try:
            self.runc.call(self.runc.delete_argv(self._spec.container_id))
        except RuncError as error:
            log.error("delete container %s: %s", self._spec.container_id[:12], error)

    @property
    def _pid_file(self) -> Path:
        return self._spec.run_dir / PID_FILE

    def _clear_last(self) -> None:
        """Remove what a life that was cut short left in the runtime's state, unless it is alive."""
        container_id = self._spec.container_id
        if (self._spec.runtime_root / container_id).exists():
            status = self.runc.status(container_id)
            if status in ("created", "running", "paused"):
                raise StartFailed(f"container {container_id} is {status} already")
            self.delete()

    def _run(self, console: Path | None) -> None:
        """Run the runtime to its end; the container's streams are ours, so its own words go to its log."""
        spec = self._spec
        argv = self.runc.run_argv(spec.container_id, spec.bundle, self._pid_file, console)
        opened = self._open_streams()
        try:
            self.runc.run_bound(argv, opened, _START_SECONDS)
        except RuncKilled as error:
            log.warning("container %s: %s while it started it", spec.container_id[:12], error)
            self._finish_start()
        except RuncError as error:
            self.delete()
            raise StartFailed(str(error)) from error
        finally:
            for fd in set(opened):
                os.close(fd)

    def _open_streams(self) -> list[int]:
        spec = self._spec
        if spec.tty:
            return [os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)] * 3
        if spec.open_stdin:
            stdin = streams.open_child_end(spec, "stdin")
        else:
            stdin = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        return [stdin, streams.open_child_end(spec, "stdout"), streams.open_child_end(spec, "stderr")]

    def _know(self, pid: int, started_ns: int) -> None:
        """Record the process before anything can happen to it: nobody but we can reap it."""
        self.pidfd = os.pidfd_open(pid)
        ticks = process_start(pid)
        if ticks is None:
            raise StartFailed(f"process {pid} of the container is gone")
        try:
            cgroup = memory_cgroup(Path(f"/proc/{pid}/cgroup").read_text())
        except (FileNotFoundError, ProcessLookupError):
            cgroup = ""
        self.init = Init(pid, ticks, started_ns, cgroup)
        self.init.write(self._spec.run_dir)

    def _finish_start(self) -> None:
        """Predecessor or runtime died while starting the container: it ran, or it is cleared away."""
        container_id = self._spec.container_id
        status = self.runc.status(container_id)
        try:
            pid = int(self._pid_file.read_text())
        except (FileNotFoundError, ValueError):
            pid = 0
        # The process waits on this FIFO until it is told to become the container's.
        waiting = (self._spec.runtime_root / container_id / "exec.fifo").exists()
        if not pid or status not in ("running", "stopped") or waiting:
            self.delete()
            remove_cgroups(self._spec.bundle)
            raise StartInterrupted("shim or runtime was killed while it started the container")
        try:
            self._know(pid, time.time_ns())
        except (StartFailed, ProcessLookupError):
            self.init = Init(pid, 0, time.time_ns(), "")
            self.init.write(self._spec.run_dir)
            self.waited = self._recorded()

    def _recorded(self) -> Waited:
        """How a process ended that somebody else was the parent of: the template, or whoever reaped it."""
        assert self.init is not None
        deadline = time.monotonic() + _RECORD_SECONDS
        while time.monotonic() < deadline:
            waited = Waited.read(self._spec.run_dir)
            if waited is not None:
                return waited
            status = exit_status_of(self.pidfd)
            if status is None:
                status = zombie_status(self.init.pid, self.init.start_ticks)
            if status is not None:
                waited = Waited(self.init.pid, status, time.time_ns())
                waited.write(self._spec.run_dir)
                return waited
            time.sleep(0.005)
        return self._unseen()

    def _unseen(self) -> Waited:
        """The end of a process that nobody of ours saw: its template died before or with its shim."""
        assert self.init is not None
        waited = Waited.read(self._spec.run_dir)
        if waited is None:
            log.error("container %s: nobody saw how it ended", self._spec.container_id[:12])
            waited = Waited(self.init.pid, UNKNOWN_CODE << 8, time.time_ns())
            waited.write(self._spec.run_dir)
        return waited
