"""Further processes in a running container (``docker exec``), each with its own streams.

Their output goes to the client that asked and nowhere else, so nothing of it is kept; a session ends with
its shim. The process is runc's ``exec --detach``, reaped by the shim. A bound session (a health check's) has
no stdin; it is killed when its client closes its sending side or leaves, and ends with its first process.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runtime.oci.runc import Runc, failure
from runtime.shim.control import Connection
from runtime.shim.exit_status import write_json
from runtime.shim.messages import CONTROL_FRAME, frame
from runtime.shim.reactor import READ, Reactor
from runtime.shim.spec import ShimSpec
from runtime.shim.stdin import StdinWriter
from runtime.shim.tty import ConsoleSocket, resize

__all__ = ["ExecSessions"]

log = logging.getLogger(__name__)

_CHUNK = 1 << 16
_ATTACH_BYTES = 1 << 20
_DRAIN_BYTES = 1 << 16  #: what a pipe holds
_SIGNALS_TO_RESET = (1, 2, 13, 15, 17, 25)  # HUP INT PIPE TERM CHLD XFSZ


@dataclass(slots=True)
class _Session:
    name: str
    client: Connection
    request_id: object
    runc_pid: int
    pid_file: Path
    console: ConsoleSocket | None
    outputs: dict[int, int]  #: our descriptor, and the stream it is
    stdin_fd: int | None
    bound: bool
    stdin: StdinWriter | None = None
    tty: int | None = None
    pid: int = 0
    doomed: bool = False  #: to be killed as soon as it runs
    code: int | None = None
    held_back: set[int] = field(default_factory=set)  #: outputs not read because the client is behind
    waiting_input: list[bytes] = field(default_factory=list)


class ExecSessions:
    """All sessions of one container."""

    def __init__(self, spec: ShimSpec, runc: Runc, reactor: Reactor) -> None:
        self._spec = spec
        self._runc = runc
        self._reactor = reactor
        self._sessions: dict[str, _Session] = {}
        self._early: dict[int, int] = {}  #: processes that ended before runc did
        self._count = 0

    def start(self, client: Connection, request: dict[str, Any]) -> None:
        """Start the OCI ``process`` of a request; the answer comes when it runs or could not."""
        self._count += 1
        name = str(request.get("session") or f"{os.getpid()}-{self._count}")
        process = dict(request["process"])
        terminal = bool(process.get("terminal"))
        process_file = self._spec.run_dir / f"exec-{os.getpid()}-{self._count}.json"
        pid_file = process_file.with_suffix(".pid")
        pid_file.unlink(missing_ok=True)
        write_json(process_file, process)
        console = ConsoleSocket(self._spec.run_dir, f"exec-{self._count}.sock") if terminal else None
        child, ours = _pipes(terminal, bool(request.get("stdin")))
        argv = self._runc.exec_argv(
            self._spec.container_id, process_file, pid_file, console.path if console else None
        )
        try:
            pid = os.posix_spawnp(
                argv[0],
                argv,
                os.environ,
                file_actions=[(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(child)],
                setsigdef=_SIGNALS_TO_RESET,
            )
        finally:
            for fd in child:
                os.close(fd)
        outputs = {} if terminal else {ours[1]: 1, ours[2]: 2}
        stdin = ours[0] if ours and ours[0] >= 0 else None
        session = _Session(name, client, request.get("id"), pid, pid_file, console, outputs, stdin,
                           bool(request.get("bound")))  # fmt: skip
        self._sessions[name] = session
        self._connect(session)

    def __len__(self) -> int:
        return len(self._sessions)

    def resize(self, name: str, height: int, width: int) -> None:
        """Set the size of a session's terminal. Raises ValueError if it has none."""
        session = self._sessions.get(name)
        if session is None or session.tty is None:
            raise ValueError(f"no exec session {name!r} with a terminal")
        resize(session.tty, height, width)

    def on_child(self, pid: int, status: int) -> None:
        """The shim reaped a process."""
        for session in list(self._sessions.values()):
            if session.runc_pid == pid:
                self._runc_done(session, status)
                return
            if session.pid == pid:
                self._ended(session, status)
                return
        if self._sessions:
            self._early[pid] = status

    def _connect(self, session: _Session) -> None:
        client = session.client
        if session.stdin_fd is not None:
            session.stdin = StdinWriter(session.stdin_fd, self._reactor)
        client.on_data = lambda data: self._on_input(session, data)
        client.on_close = lambda: self._client_left(session)
        client.on_drained = lambda: self._listen(session)

    def _forwarder(self, session: _Session, fd: int, stream: int) -> Callable[[int], None]:
        def forward(_events: int) -> None:
            self._forward(session, fd, stream)

        return forward

    def _forward(self, session: _Session, fd: int, stream: int) -> None:
        if session.client.open and session.client.queued > _ATTACH_BYTES:
            self._reactor.forget(fd)
            session.held_back.add(fd)
            return
        try:
            data = os.read(fd, _CHUNK)
        except BlockingIOError:
            return
        except OSError:  # EIO: the last process left the terminal
            data = b""
        if data:
            session.client.send(frame(stream, data))
            return
        self._reactor.forget(fd)
        session.outputs.pop(fd, None)
        if fd != session.tty:
            os.close(fd)
        self._maybe_finish(session)

    def _listen(self, session: _Session) -> None:
        """Read the outputs again after the client was behind."""
        while session.held_back:
            fd = session.held_back.pop()
            self._reactor.watch(fd, READ, self._forwarder(session, fd, session.outputs[fd]))

    def _on_input(self, session: _Session, data: bytes) -> None:
        if session.bound:
            if not data:
                self._kill(session)
            return
        if session.stdin is None:
            if data and session.console is not None:
                session.waiting_input.append(data)
            return
        if data:
            session.stdin.write(session.client, data)
        elif session.tty is None:
            session.stdin.close()

    def _client_left(self, session: _Session) -> None:
        if session.bound:
            self._kill(session)
        if session.stdin is not None and session.tty is None:
            session.stdin.close()

    def _kill(self, session: _Session) -> None:
        """Kill a bound session's process with all of its process group, which nobody else has reaped."""
        session.doomed = True
        if session.pid:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(session.pid, signal.SIGKILL)  # runc makes it the leader of a session

    def _runc_done(self, session: _Session, status: int) -> None:
        """runc has started the process, or failed to."""
        session.runc_pid = 0
        if status != 0:
            message = failure(self._runc.log)
            session.client.answer({"id": session.request_id, "error": message})
            self._close(session)
            return
        session.pid = int(session.pid_file.read_text())
        session.client.answer({"id": session.request_id, "pid": session.pid})
        if session.console is not None:
            self._take_terminal(session, session.console)
        for fd, stream in session.outputs.items():
            self._reactor.watch(fd, READ, self._forwarder(session, fd, stream))
        early = self._early.pop(session.pid, None)
        if early is not None:
            self._ended(session, early)
        elif session.doomed:
            self._kill(session)

    def _take_terminal(self, session: _Session, console: ConsoleSocket) -> None:
        session.tty = console.receive()
        console.close()
        session.console = None
        session.outputs[session.tty] = 1
        session.stdin = StdinWriter(os.dup(session.tty), self._reactor)
        for data in session.waiting_input:
            session.stdin.write(session.client, data)

    def _ended(self, session: _Session, status: int) -> None:
        session.pid = 0
        session.code = os.waitstatus_to_exitcode(status)
        if session.code < 0:
            session.code = 128 - session.code
        if session.bound:
            self._drain(session)
        self._maybe_finish(session)

    def _drain(self, session: _Session) -> None:
        """Send what a bound session's process wrote and look no further: others may hold its streams open."""
        for fd, stream in list(session.outputs.items()):
            self._reactor.forget(fd)
            session.held_back.discard(fd)
            with contextlib.suppress(BlockingIOError):
                data = os.read(fd, _DRAIN_BYTES)
                if data:
                    session.client.send(frame(stream, data))
            del session.outputs[fd]
            os.close(fd)

    def _maybe_finish(self, session: _Session) -> None:
        """Once the process has ended and its streams too, tell the client its exit code."""
        if session.code is None or session.outputs:
            return
        session.client.send(frame(CONTROL_FRAME, json.dumps({"exit_code": session.code}).encode()))
        self._close(session)

    def _close(self, session: _Session) -> None:
        self._sessions.pop(session.name, None)
        if not self._sessions:
            self._early.clear()
        if session.console is not None:
            session.console.close()
        if session.stdin is not None:
            session.stdin.close()
        for fd in session.outputs:
            self._reactor.forget(fd)
            if fd != session.tty:
                os.close(fd)
        if session.tty is not None:
            self._reactor.forget(session.tty)
            os.close(session.tty)
        session.pid_file.unlink(missing_ok=True)
        session.pid_file.with_suffix(".json").unlink(missing_ok=True)
        session.client.finish()


def _pipes(terminal: bool, stdin: bool) -> tuple[list[int], list[int]]:
    """The process's three descriptors, and our ends of them (stdin -1 if it has none)."""
    if terminal:
        return [os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC) for _ in range(3)], []
    out_read, out_write = os.pipe2(os.O_CLOEXEC)
    err_read, err_write = os.pipe2(os.O_CLOEXEC)
    in_read, in_write = (
        os.pipe2(os.O_CLOEXEC) if stdin else (os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), -1)
    )
    for fd in (out_read, err_read, in_write):
        if fd >= 0:
            os.set_blocking(fd, False)
    return [in_read, out_write, err_write], [in_write, out_read, err_read]
