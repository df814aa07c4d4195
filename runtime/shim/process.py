"""The process beside one container: runs it, writes down what it writes, records how it ended.

Single-threaded but for the delivery of a driver's sink. Everything it knows is in the run directory or the
journal, so that after kill -9 a successor goes on. How the template's child becomes it is in ``entry``; it
leaves pipe reading to ``pump``, the socket to ``control``, sessions in the container to ``exec_session``.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

from logdrivers.block import Stream
from logdrivers.registry import get as get_driver
from runtime.shim.attached import Attached
from runtime.shim.container_process import ContainerProcess, StartFailed, StartInterrupted
from runtime.shim.control import Connection, ControlServer
from runtime.shim.copying import open_copier
from runtime.shim.delivery import ShimDelivery
from runtime.shim.exec_session import ExecSessions
from runtime.shim.exit_status import ExitStatus
from runtime.shim.gap import mark_gap
from runtime.shim.heap import HeapTrim
from runtime.shim.linux import dead_children, tells_exits
from runtime.shim.parking import MOST_CONNECTIONS, Parked, leave, let_go, longer
from runtime.shim.pump import Pump
from runtime.shim.reactor import READ, Reactor
from runtime.shim.spec import ShimSpec
from runtime.shim.stdin import ContainerStdin
from runtime.shim.template_link import TemplateLink
from runtime.shim.tty import resize

__all__ = ["Shim"]

log = logging.getLogger(__name__)

#: After its last process has gone, somebody may still hold the container's output open, but not for longer.
_DRAIN_SECONDS = 3.0
#: How long a journal that refuses (disk full) may hold back the report that the container has ended.
_JOURNAL_SECONDS = 30.0
#: After a delivery could not be started (disk full): it is tried again with a line that comes so much later.
_DELIVERY_SECONDS = 2.0
#: Whose journals count their lines on disk, and send nothing anywhere.
_PARKED_DRIVERS = ("", "json-file", "local")
_FLUSH_SECONDS = 2.0


class Shim:
    """One container's life."""

    def __init__(
        self,
        spec: ShimSpec,
        control: socket.socket | None,
        tty: int | None,
        template_dir: Path,
        parked: Parked | None = None,
    ) -> None:
        self._spec = spec
        self._template_dir = template_dir
        self._template = TemplateLink(spec, template_dir)
        self._reactor = Reactor()
        self._park_seconds = spec.park_seconds
        self.lock = -1
        if parked is None:
            self._server = ControlServer(self._reactor, self._handle)
        else:
            self.lock, self._park_seconds = parked.lock, parked.wake()
            self._server = ControlServer(self._reactor, self._handle, socket.socket(fileno=parked.listener))
            for fd, watching in zip(parked.connections, parked.watching, strict=True):
                self._server.add(socket.socket(fileno=fd)).watching = watching
        if control is not None:
            self._server.add(control).watching = True
        self._attached = Attached()
        self._process = ContainerProcess(spec, tty, -1 if parked is None else parked.pidfd)
        self._parked_outputs = () if parked is None else parked.outputs
        self._sessions = ExecSessions(spec, self._process.runc, self._reactor)
        self._exit: ExitStatus | None = None
        self._stdin = ContainerStdin(spec, self._reactor, self._template)
        self._copier = open_copier(spec)
        self._delivery = ShimDelivery(spec, get_driver(spec.driver))
        self._pump: Pump | None = None

    # --- the stages of a life

    def live(self, mode: str) -> None:
        """Start or take over, serve until the end, record it, deliver, leave."""
        try:
            if mode == "run":
                self._start()
            else:
                self._take_over()
        except StartFailed as error:
            log.error("container %s: %s", self._spec.container_id[:12], error)
            interrupted = isinstance(error, StartInterrupted)
            self._server.tell({"event": "failed", "message": str(error), "interrupted": interrupted})
            self._template.release()
            self._leave()
            return
        self._watch_children()
        self._server.tell(self._started_event())
        self._serve()
        self._finish()
        self._deliver()
        self._leave()

    def _start(self) -> None:
        try:
            self._copier.begin_life(time.time_ns())
        except OSError as error:  # what the last life left finds no room, nor would what this one writes
            raise StartFailed(f"open the container's log: {error}") from error
        self._open_pump()
        self._stdin.open()
        self._process.start()
        if self._process.tty is not None:
            self._pump_tty(self._process.tty)
        if self._spec.await_attach:
            self._attached.await_client()
        self._start_delivery()

    def _take_over(self) -> None:
        self._process.adopt()
        self._open_pump()
        let_go(self._parked_outputs)
        if self._process.tty is not None:
            self._pump_tty(self._process.tty)
        self._stdin.open()
        self._mark_gap()
        for stream in (Stream.STDOUT, Stream.STDERR):
            self._copier.pump(stream, time.time_ns())
        self._start_delivery()

    def _mark_gap(self) -> None:
        """If everybody who held the streams was killed: say so in the log."""
        try:
            mark_gap(self._spec, self._copier.spools[Stream.STDOUT if self._spec.tty else Stream.STDERR])
        except (OSError, ValueError, KeyError) as error:
            log.error("mark a gap in the log of %s: %s", self._spec.container_id[:12], error)

    def _start_delivery(self) -> None:
        """After the container has started: a sink that hangs or refuses costs its delivery, nothing else."""
        try:
            if self._delivery.start():
                self._copier.on_append = self._delivery.offer
        except (OSError, ValueError) as error:
            log.error("start the %s delivery: %s; its lines are kept", self._spec.driver, error)
            again_at = time.monotonic() + _DELIVERY_SECONDS
            self._copier.on_append = lambda _entry: self._retry_delivery(again_at)

    def _retry_delivery(self, again_at: float) -> None:
        if time.monotonic() >= again_at:
            self._copier.on_append = None
            self._start_delivery()

    def _open_pump(self) -> None:
        pump = self._pump = Pump(self._spec, self._copier, self._reactor)
        pump.paused = self._attached.hold_back

    def _pump_tty(self, master: int) -> None:
        assert self._pump is not None
        self._pump.set_tty(master)
        self._stdin.use_terminal(master)
        self._template.hold(master)

    def _watch_children(self) -> None:
        read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        self._reactor.watch(read, READ, lambda _events: self._on_child(read))
        if self._process.pidfd >= 0:
            self._reactor.watch(self._process.pidfd, READ, lambda _events: self._process.collect())
        self._reap()

    def _serve(self) -> None:
        assert self._pump is not None
        pump = self._pump
        heap = HeapTrim(self._delivery.behind)
        while self._process.waited is None:
            moved = pump.round()
            self._delivery.push()
            seconds = heap.seconds(moved, pump.wait_seconds(moved))
            if seconds is None and self._may_park():
                if not self._reactor.poll(self._park_seconds) and self._process.waited is None:
                    self._park()
            else:
                self._reactor.poll(seconds)

    def _may_park(self) -> bool:
        """Whether the run directory and the journal know all that we know, and the kernel how it will have ended.

        The container becomes the template's child; without that, a killed template would cost its exit code.
        """
        connections = self._server.connections
        return (
            self._park_seconds > 0
            and tells_exits()
            and self._spec.driver in _PARKED_DRIVERS
            and not (self._spec.tty or self._spec.open_stdin or self._attached.awaited)
            and self._copier.on_append is None
            and not self._copier.limited
            and self._process.pidfd >= 0
            and self._pump is not None
            and not (self._pump.failures or self._pump.behind)
            and not (self._sessions or self._attached or self._attached.cut_off)
            and len(connections) <= MOST_CONNECTIONS
            and all(connection.at_rest for connection in connections)
        )

    def _park(self) -> None:
        """Leave our place to a process that waits in it; nothing happens to us if that fails."""
        assert self._pump is not None
        connections = list(self._server.connections)
        parked = Parked(
            -1,
            self.lock,
            self._server.fileno(),
            self._process.pidfd,
            self._pump.descriptors,
            tuple(connection.fileno() for connection in connections),
            tuple(connection.watching for connection in connections),
            self._park_seconds,
        )
        leave(self._spec, self._template_dir, self._server, parked, self._started_event())
        self._park_seconds = longer(self._park_seconds)

    def _finish(self) -> None:
        """Drain both streams to their end, then write the record of the end."""
        assert self._pump is not None
        assert self._process.waited is not None
        self._reactor.forget(self._process.pidfd)  # it stays readable
        oom_killed = self._process.oom_killed()
        self._process.delete()
        self._drain(self._pump)
        self._exit = self._process.waited.exit_status(oom_killed)
        self._exit.write(self._spec.run_dir)
        self._delivery.end()
        self._attached.end({"exit_code": self._exit.code})
        self._server.tell(self._exited_event())
        self._template.release()

    def _drain(self, pump: Pump) -> None:
        """Have everything that was written before the end in the journal, as far as it takes it."""
        pump.input_ended()
        now = time.monotonic()
        last_moved, give_up = now, now + _JOURNAL_SECONDS
        while not pump.drained and time.monotonic() < give_up:
            if pump.round() or self._attached.hold_back() or pump.refused:
                last_moved = time.monotonic()
            elif not pump.behind and time.monotonic() - last_moved > _DRAIN_SECONDS:
                log.warning("a stray process holds the output of %s open", self._spec.container_id[:12])
                break
            self._delivery.push()
            if not pump.drained:
                self._reactor.poll(pump.wait_seconds(0))
        pump.flush()
        if pump.behind:
            log.error(
                "container %s ended with %d bytes that the journal did not take; they wait in the run directory",
                self._spec.container_id[:12],
                pump.behind,
            )
        if pump.refused and pump.unread:
            log.error("container %s ended with %d bytes in its pipes that no disk took: they are lost",
                      self._spec.container_id[:12], pump.unread)  # fmt: skip

    def _deliver(self) -> None:
        """Stay until the sink has everything, or the wait for it is over, or the engine takes it over."""
        while self._delivery.busy():
            self._reactor.poll(0.05)

    def _leave(self) -> None:
        self._delivery.close()
        self._server.close()
        deadline = time.monotonic() + _FLUSH_SECONDS
        while any(c.queued for c in self._server.connections) and time.monotonic() < deadline:
            self._reactor.poll(0.05)
        self._copier.close()

    # --- children

    def _on_child(self, wake_fd: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(wake_fd, 4096)
        self._reap()

    def _reap(self) -> None:
        """Reap every dead child: the container's first process, sessions' processes, orphans of them."""
        for child in dead_children():
            if child.si_pid == self._process.pid:
                self._process.collect()
            else:
                pid, status = os.waitpid(child.si_pid, 0)
                self._sessions.on_child(pid, status)

    # --- requests

    def _handle(self, connection: Connection, request: dict[str, Any]) -> dict[str, Any] | None:
        match request["op"]:
            case "watch":
                connection.watching = True
                if self._process.pid:
                    connection.answer(self._started_event())
                if self._exit is not None:
                    connection.answer(self._exited_event())
                return self._counters()
            case "counters":
                return self._counters()
            case "signal":
                self._process.signal(int(request["signal"]))
            case "resize":
                resize(self._terminal(), int(request["height"]), int(request["width"]))
            case "close_stdin":
                self._stdin.close()
            case "tty":
                connection.answer({"id": request.get("id")}, [self._terminal()])
                return None
            case "attach":
                self._attach(connection, request)
                return None
            case "exec":
                self._sessions.start(connection, request)
                return None
            case "exec_resize":
                self._sessions.resize(str(request["session"]), int(request["height"]), int(request["width"]))
            case "stop_delivery":
                self._delivery.close()
            case "finish_delivery":
                if self._exit is None:
                    raise ValueError("the container has not ended")
                self._delivery.finish()
            case op:
                raise ValueError(f"unknown op {op!r}")
        return {}

    def _terminal(self) -> int:
        if self._process.tty is None:
            raise ValueError("the container has no terminal")
        return self._process.tty

    def _attach(self, connection: Connection, request: dict[str, Any]) -> None:
        wanted = frozenset(s for s in (Stream.STDOUT, Stream.STDERR) if request.get(s.text))
        connection.answer({"id": request.get("id")})
        if request.get("stdin"):
            connection.on_data = lambda data: self._stdin.take(connection, data)
        else:
            connection.on_data = lambda _data: None
        connection.on_close = lambda: self._attached.remove(connection)
        if self._exit is None:
            self._attached.add(connection, wanted)
        else:
            connection.finish()
        if self._pump is not None:
            self._pump.tap = self._attached.output

    def _counters(self) -> dict[str, Any]:
        lines, size = self._copier.journal.written()
        pump = self._pump
        return {
            "shim_pid": os.getpid(),
            "lines": lines,
            "bytes": size,
            "behind_bytes": pump.behind if pump is not None else 0,
            "write_failures": pump.failures if pump is not None else 0,
            "attached": len(self._attached),
            "attach_cut_off": self._attached.cut_off,
            "attach_cut_off_bytes": self._attached.cut_off_bytes,
            **self._delivery.counters(),
        }

    def _started_event(self) -> dict[str, Any]:
        init = self._process.init
        assert init is not None
        return {"event": "started", "pid": init.pid, "started_ns": init.started_ns, "shim_pid": os.getpid()}

    def _exited_event(self) -> dict[str, Any]:
        assert self._exit is not None
        return {"event": "exited", **self._exit.to_json()}
