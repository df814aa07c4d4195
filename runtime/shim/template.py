"""The process that shims are forked from, so that a shim costs a fork and shares its memory.

Started once for a run directory (``python -P -m runtime.shim.template DIR``), it imports what shims need, freezes
the heap and forks a shim per request on its socket. It outlives the engine. It is also the parent that a
container falls to when its shim is killed: it records how the container ended, and it keeps the container's
streams open meanwhile. What a shim does is in ``runtime/shim/process.py``.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import logging
import os
import resource
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from runtime.shim import parking, preload, streams
from runtime.shim.build import fingerprint
from runtime.shim.ends import Ends
from runtime.shim.entry import resume_shim, run_shim
from runtime.shim.exit_status import INIT_FILE, PID_FILE, Init, Waited, wait_status
from runtime.shim.gap import forget_gap, note_gap
from runtime.shim.handover import INIT
from runtime.shim.linux import (
    dead_children,
    one_heap,
    process_start,
    set_child_subreaper,
    set_process_name,
    tells_exits,
)
from runtime.shim.messages import TEMPLATE_SOCKET, receive, send
from runtime.shim.parking import Parked
from runtime.shim.rehearsal import rehearse
from runtime.shim.spec import ShimSpec

__all__ = ["LOCK_FILE", "Template", "main"]

log = logging.getLogger(__name__)

LOCK_FILE = "template.lock"
_REQUEST_SECONDS = 10.0
#: So long without a request; a new template is there for containers that lost their shims first of all.
_REHEARSE_MILLISECONDS = 500


class Template:
    """Serves requests one at a time: ``hello``, ``fork``, ``park``, ``hold``, ``keep``, ``release``, ``shutdown``."""

    def __init__(self, run_dir: Path, limits: tuple[int, int], build: str) -> None:
        self._build = build
        self._run_dir = run_dir
        self._limits = limits  # of open files, for what is forked
        self._most_fds = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._holds: dict[str, dict[str, int]] = {}
        self._run_dirs: dict[str, Path] = {}
        self._shims: dict[int, str] = {}
        self._ends = Ends()
        self._stopping = False
        self._listener = socket.socket(socket.AF_UNIX)
        Path(TEMPLATE_SOCKET).unlink(missing_ok=True)
        self._listener.bind(TEMPLATE_SOCKET)
        Path(TEMPLATE_SOCKET).chmod(0o600)
        self._listener.listen(128)
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def serve(self) -> None:
        """Until ``shutdown`` or SIGTERM. Shims and containers stay."""
        self._handle_signals()
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        poll.register(self._ends, select.POLLIN)
        rehearsed = False
        while not self._stopping:
            idle = None if rehearsed else _REHEARSE_MILLISECONDS
            pause = self._ends.wait_milliseconds()
            ready = poll.poll(idle if pause is None else pause)
            if not ready and pause is None and not rehearsed:
                rehearsed = True
                rehearse(self._run_dir / "rehearsal")
                gc.collect()
                gc.freeze()
            for fd, _events in ready:
                if fd == self._wake_read:
                    os.read(self._wake_read, 4096)
                elif fd == self._listener.fileno():
                    self._accept()
            self._reap()
            self._ends.record()
        Path(TEMPLATE_SOCKET).unlink(missing_ok=True)

    def _handle_signals(self) -> None:
        # Handlers, not SIG_IGN: ignored signals would be inherited by runc and by the container.
        for number in (signal.SIGCHLD, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        signal.signal(signal.SIGTERM, self._on_term)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)

    def _on_term(self, *_: object) -> None:
        self._stopping = True

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            connection.settimeout(_REQUEST_SECONDS)
            try:
                request, fds = receive(connection)
            except (OSError, ValueError) as error:
                log.warning("read a request on %s: %s", TEMPLATE_SOCKET, error)
                return
            try:
                answer = self._answer(request, fds)
            except (KeyError, TypeError, ValueError, OSError) as error:
                log.warning("serve %r: %r", request.get("op"), error)
                answer = {"error": f"{type(error).__name__}: {error}"}
            finally:
                for fd in fds:
                    os.close(fd)
            with contextlib.suppress(OSError):
                send(connection, answer)

    def _answer(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        match request.get("op"):
            case "hello":
                return {"pid": os.getpid(), "containers": sorted(self._holds), "build": self._build}
            case "fork":
                return {"pid": self._fork(ShimSpec.from_json(request["spec"]), request["mode"], fds)}
            case "park":
                return {"pid": self._park(request, fds)}
            case "hold":
                self._hold(ShimSpec.from_json(request["spec"]), fds)
                return {}
            case "keep":
                self._keep(str(request["container_id"]), Path(request["run_dir"]), request["names"], fds)
                return {}
            case "release":
                self._release(request["container_id"], request.get("names"))
                return {}
            case "shutdown":
                self._stopping = True
                return {}
        raise ValueError(
            f"unknown op {request.get('op')!r}: expected hello, fork, park, hold, keep, release or shutdown"
        )

    def _fork(self, spec: ShimSpec, mode: str, fds: list[int]) -> int:
        if mode == "run":
            self._release(spec.container_id)
            streams.make(spec)
            forget_gap(spec)
        elif mode == "adopt":
            if spec.container_id not in self._holds:
                note_gap(spec)
        else:
            raise ValueError(f"unknown mode {mode!r}: expected run or adopt")
        self._hold(spec, fds[1:])
        pid = os.fork()
        if pid == 0:
            self._become_shim(spec, mode, fds)
        self._shims[pid] = spec.container_id
        log.info("container %s: forked shim %d to %s it", spec.container_id[:12], pid, mode)
        return pid

    def _become_shim(self, spec: ShimSpec, mode: str, fds: list[int]) -> None:
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            resource.setrlimit(resource.RLIMIT_NOFILE, self._limits)
            control = socket.socket(fileno=os.dup(fds[0]))
            tty = self._holds[spec.container_id].get("tty")
            tty = None if tty is None else os.dup(tty)
            self._close_inherited({control.fileno(), tty})
            run_shim(spec, mode, control, tty, self._run_dir)
            code = 0
        except BaseException:
            log.exception("container %s: shim %d failed", spec.container_id[:12], os.getpid())
        finally:
            os._exit(code)

    def _park(self, request: dict[str, Any], fds: list[int]) -> int:
        """Fork the process that waits in the place of a shim that has nothing to do."""
        container_id = str(request["spec"]["container_id"])
        if container_id not in self._holds:
            raise ValueError(f"the streams of container {container_id} are not kept here")
        if not tells_exits():
            raise ValueError("this kernel does not tell how a process ended that others reaped")
        parked = Parked.of(fds, int(request["outputs"]), request["watching"], float(request["seconds"]))
        pid = parking.fork()
        if pid == 0:
            self._become_parked(container_id, request["spec"], parked)
        self._shims[pid] = container_id
        return pid

    def _become_parked(self, container_id: str, spec: dict[str, Any], parked: Parked) -> None:
        """Be parked, then be the shim. What comes before the wait is little: it is what a parked shim costs."""
        code = 1
        try:
            os.setsid()
            parking.close_all_but(parked.fds, self._most_fds)
            parking.look_like_a_shim(f"shim:{container_id[:10]}")
            if parked.wait():
                parking.after_fork()
                resource.setrlimit(resource.RLIMIT_NOFILE, self._limits)
                resume_shim(ShimSpec.from_json(spec), parked, self._run_dir)
            code = 0
        except BaseException:
            log.exception("container %s: parked shim %d failed", container_id[:12], os.getpid())
        finally:
            os._exit(code)

    def _close_inherited(self, keep: set[int | None]) -> None:
        for path in Path("/proc/self/fd").iterdir():
            fd = int(path.name)
            if fd > 2 and fd not in keep:
                with contextlib.suppress(OSError):
                    os.close(fd)

    def _hold(self, spec: ShimSpec, fds: list[int]) -> None:
        """Keep the container's streams alive, and its terminal if one came with the request."""
        self._run_dirs[spec.container_id] = spec.run_dir
        self._ends.watch(spec.container_id, spec.run_dir)
        held = self._holds.setdefault(spec.container_id, {})
        for name, fd in streams.hold(spec).items():
            old = held.get(name)
            if old is not None:
                os.close(fd)
            else:
                held[name] = fd
        if fds and "tty" not in held:
            held["tty"] = os.dup(fds[0])

    def _keep(self, container_id: str, run_dir: Path, names: list[str], fds: list[int]) -> None:
        """Keep what the template before us kept, as it came: a container without a shim has it from nobody else."""
        self._run_dirs[container_id] = run_dir
        held = self._holds.setdefault(container_id, {})
        for name, fd in zip(names, fds, strict=True):
            if name == INIT:
                self._ends.watch(container_id, run_dir, fd)
            elif name not in held:
                held[name] = os.dup(fd)

    def _release(self, container_id: str, names: list[str] | None = None) -> None:
        held = self._holds.get(container_id, {})
        for name in list(held) if names is None else names:
            fd = held.pop(name, None)
            if fd is not None:
                os.close(fd)
        if names is None:
            self._holds.pop(container_id, None)
            self._run_dirs.pop(container_id, None)
            self._ends.forget(container_id)

    def _reap(self) -> None:
        """Reap every dead child; a container's first process is recorded before it is."""
        for child in dead_children():
            pid = child.si_pid
            status = wait_status(child)
            shim_of = self._shims.pop(pid, None)
            if shim_of is None:
                self._record(pid, status)
            elif status != 0:
                log.warning("container %s: shim %d ended with status %d", shim_of[:12], pid, status)
            os.waitpid(pid, 0)

    def _record(self, pid: int, status: int) -> None:
        for container_id, run_dir in self._run_dirs.items():
            try:
                if _is_init(pid, run_dir):
                    Waited(pid, status, time.time_ns()).write(run_dir)
                    log.info("container %s: ended without its shim, status %d", container_id[:12], status)
            except (OSError, ValueError) as error:
                log.error("container %s: record the end of its process: %s", container_id[:12], error)


def _is_init(pid: int, run_dir: Path) -> bool:
    """Whether a dead child, not reaped yet, is the first process of the container."""
    if (run_dir / INIT_FILE).exists():
        init = Init.read(run_dir)
        return init is not None and init.pid == pid and init.start_ticks == process_start(pid)
    try:
        return int((run_dir / PID_FILE).read_text()) == pid
    except (FileNotFoundError, ValueError):
        return False


def main(argv: list[str]) -> int:
    """Run the template for the directory named in the arguments; 2 if another one has it."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"
    )
    if len(argv) != 2:
        print("usage: python -P -m runtime.shim.template RUN_DIRECTORY", file=sys.stderr)
        return 2
    run_dir = Path(argv[1])
    os.chdir(run_dir)
    build = fingerprint()
    lock = os.open(LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.error("another template serves %s", run_dir)
        return 2
    os.umask(0o022)
    set_child_subreaper()
    set_process_name("taffrail-templ")
    one_heap()
    tells_exits()  # asked here, so that no shim has to
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Two or three descriptors for each container; the containers are not to inherit that.
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))
    preload.load()
    template = Template(run_dir, limits, build)
    gc.collect()
    gc.freeze()
    template.serve()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
