"""A handle on one container's shim: its events, its requests, its successor when it dies.

How the connection to it speaks is in ``runtime/shim/control_connection.py``; attach and exec sessions are
connections of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from runtime.oci.runc import Runc, RuncError, failure
from runtime.shim.control_connection import ControlConnection, ShimError, ShimGone, open_session
from runtime.shim.exit_status import ExitStatus, Waited
from runtime.shim.held_streams import HeldStreams
from runtime.shim.messages import SHIM_SOCKET, connect
from runtime.shim.orphans import Orphans
from runtime.shim.sessions import AttachSession, ExecSession
from runtime.shim.spec import ShimSpec
from runtime.shim.template_client import TemplateClient, TemplateError, TemplateLost

__all__ = [
    "AttachSession",
    "ExecSession",
    "ShimError",
    "ShimGone",
    "ShimHandle",
    "StartError",
    "StartInterrupted",
]

log = logging.getLogger(__name__)

_RETRY_SECONDS = (0.0, 0.1, 0.5, 1.0, 2.0, 5.0)


class StartError(Exception):
    """The container did not start. The text is the OCI runtime's."""


class StartInterrupted(StartError):
    """Nothing of the container ran; it may be started again."""


class ShimHandle:
    """One running (or just ended) container."""

    def __init__(self, spec: ShimSpec, template: TemplateClient, orphans: Orphans) -> None:
        self.spec = spec
        self.pid = 0  #: the container's first process
        self.started_ns = 0
        self.shim_pid = 0
        self.exit_status: ExitStatus | None = None
        self._template = template
        self._orphans = orphans
        self._connection: ControlConnection | None = None
        self._task: asyncio.Task[None] | None = None
        self._finished: asyncio.Future[ExitStatus] = asyncio.get_running_loop().create_future()
        self._started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._held = HeldStreams(spec)
        self._runc = Runc(spec.runtime, spec.runtime_root, spec.run_dir / "engine-runc.log")

    @property
    def running(self) -> bool:
        """Whether the container has not been reported as ended."""
        return self.exit_status is None

    async def wait(self) -> ExitStatus:
        """How the container ended, once it has and all of its output is in the journal."""
        return await asyncio.shield(self._finished)

    async def signal(self, signum: int, all: bool = False) -> None:
        """Signal the first process, or every process of the container. ProcessLookupError if it has ended."""
        if self.exit_status is not None:
            raise ProcessLookupError(f"container {self.spec.container_id} has ended")
        if all:
            await self._call_runc("kill", "--all", self.spec.container_id, str(int(signum)))
            return
        try:
            await self._ask({"op": "signal", "signal": int(signum)})
        except ShimError as error:
            if "ProcessLookupError" in str(error):
                raise ProcessLookupError(str(error)) from None
            raise

    async def pause(self) -> None:
        """Freeze every process of the container."""
        await self._call_runc("pause", self.spec.container_id)

    async def resume(self) -> None:
        """Undo ``pause``."""
        await self._call_runc("resume", self.spec.container_id)

    async def resize(self, height: int, width: int) -> None:
        """Set the size of the container's terminal, in characters."""
        await self._ask({"op": "resize", "height": height, "width": width})

    async def close_stdin(self) -> None:
        """End the container's stdin for good."""
        await self._ask({"op": "close_stdin"})

    async def stop_delivery(self) -> None:
        """Have the shim stop delivering; what is left stays in the journal for the caller to deliver."""
        await self._ask({"op": "stop_delivery"})

    async def counters(self) -> dict[str, int]:
        """What the shim has counted: lines, bytes, failures, and the delivery's counters."""
        answer = await self._ask({"op": "counters"})
        return {key: value for key, value in answer.items() if key != "id"}

    async def attach(self, *, stdin: bool = True, stdout: bool = True, stderr: bool = True) -> AttachSession:
        """The container's output from now on, and its stdin."""
        request = {"op": "attach", "stdin": stdin, "stdout": stdout, "stderr": stderr}
        reader, writer, _ = await open_session(await self._connect_again(), request)
        return AttachSession(reader, writer)

    async def exec(
        self, process: Mapping[str, Any], *, stdin: bool = False, session: str = "", bound: bool = False
    ) -> ExecSession:
        """Run an OCI ``process`` object in the container. Raises ShimError with runc's words.

        A ``bound`` one is killed, with its process group, by ``end_stdin`` or when the session is closed.
        """
        request = {"op": "exec", "process": dict(process), "stdin": stdin, "session": session, "bound": bound}
        reader, writer, answer = await open_session(await self._connect_again(), request)
        return ExecSession(reader, writer, int(answer["pid"]))

    async def exec_resize(self, session: str, height: int, width: int) -> None:
        """Set the size of the terminal of the exec session started under that name."""
        await self._ask({"op": "exec_resize", "session": session, "height": height, "width": width})

    # --- for Shims

    async def fork(self, mode: str) -> None:
        """Have the template fork a shim and wait until the container runs. Raises StartError."""
        await self._fork(mode)
        self._task = asyncio.create_task(self._supervise(), name=f"shim {self.spec.container_id[:12]}")
        await self._until_started()

    async def watch(self, sock: socket.socket) -> None:
        """Follow a shim that is running."""
        await self._connect(sock)
        assert self._connection is not None
        self._connection.watch()
        self._task = asyncio.create_task(self._supervise(), name=f"shim {self.spec.container_id[:12]}")
        await self._until_started()

    def finished(self, status: ExitStatus) -> None:
        """The container has ended."""
        self.exit_status = status
        self._held.close()
        if not self._started.done():
            self._started.set_result(None)
        if not self._finished.done():
            self._finished.set_result(status)

    async def hold_again(self) -> None:
        """The template may be a new one: have it keep the container's streams, unless the container has ended."""
        self._mind_orphans()
        try:
            await self._template.ask({"op": "hold", "spec": self.spec.to_json()}, self._held.terminal)
            if ExitStatus.read(self.spec.run_dir) is not None:
                await self._template.ask({"op": "release", "container_id": self.spec.container_id})
        except TemplateError as error:
            log.error("container %s: have its streams kept: %s", self.spec.container_id[:12], error)

    async def close(self) -> None:
        """Let go of the shim and leave it as it is."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._connection is not None:
            await self._connection.close()
        self._held.close()
        if not self._finished.done():
            self._finished.cancel()

    # --- inside

    def on_end(self, call: Callable[[], object]) -> None:
        """Call back once there is nothing left to close."""
        if self._task is not None:
            self._task.add_done_callback(lambda _task: call())

    async def _until_started(self) -> None:
        try:
            await asyncio.shield(self._started)
        except StartError:
            await self.close()
            raise

    async def _fork(self, mode: str) -> None:
        ours, theirs = socket.socketpair()
        try:
            fds = [theirs.fileno(), *self._held.terminal]
            message = {"op": "fork", "mode": mode, "spec": self.spec.to_json()}
            answer = await self._template.ask(message, fds)
        except TemplateLost:
            # If there is a shim nevertheless, it will say so on our end; if not, that is at its end now.
            answer = {"pid": 0}
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self.shim_pid = int(answer["pid"])
        await self._connect(ours)

    async def _connect(self, sock: socket.socket) -> None:
        self._held.open()
        self._connection = await ControlConnection.open(sock)

    async def _supervise(self) -> None:
        """Follow the shim's events; when it dies before the container's end is recorded, fork another."""
        attempt = 0
        while not self._finished.done():
            connection = self._connection
            if connection is not None:
                async with contextlib.aclosing(connection.events()) as events:
                    async for event in events:
                        if await self._on_event(event):
                            attempt = 0
                        if self._finished.done():
                            break
                await connection.close()
                self._connection = None
            if self._finished.done() or (self._started.done() and self._started.exception()):
                return
            status = ExitStatus.read(self.spec.run_dir)
            if status is not None:
                self.finished(status)
                return
            await asyncio.sleep(_RETRY_SECONDS[min(attempt, len(_RETRY_SECONDS) - 1)])
            attempt += 1
            log.warning(
                "container %s: shim %d died; forking another", self.spec.container_id[:12], self.shim_pid
            )
            try:
                await self._fork("adopt")
            except (TemplateError, OSError) as error:
                log.error("container %s: fork a shim: %s", self.spec.container_id[:12], error)

    async def _on_event(self, event: dict[str, Any]) -> bool:
        """Take one event in; whether it says that all is well."""
        match event["event"]:
            case "started":
                self.pid = event["pid"]
                self.started_ns = event["started_ns"]
                self.shim_pid = event["shim_pid"]
                self._mind_orphans()
                if not self._started.done():
                    self._started.set_result(None)
                await self._held.take_terminal()
            case "exited":
                self.finished(ExitStatus.from_json(event))
            case "failed":
                if not self._started.done():
                    kind = StartInterrupted if event.get("interrupted") else StartError
                    self._started.set_exception(kind(event["message"]))
                elif not self._finished.done():
                    log.error("container %s: %s", self.spec.container_id[:12], event["message"])
                return False
        return True

    def _mind_orphans(self) -> None:
        """Shim and container may have become our children; in time we are asked how they ended."""
        run_dir, pid = self.spec.run_dir, self.pid
        self._orphans.mind(self.shim_pid)
        self._orphans.mind(pid, lambda status: Waited(pid, status, time.time_ns()).write(run_dir))

    async def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """Ask the shim; if it is being replaced, ask its successor."""
        for delay in _RETRY_SECONDS:
            connection = self._connection
            if connection is not None:
                return await connection.ask(message)
            if self.exit_status is not None:
                break
            await asyncio.sleep(delay + 0.01)
        raise ShimGone(f"container {self.spec.container_id} has no shim to ask to {message['op']}")

    async def _connect_again(self) -> socket.socket:
        """Another connection to the shim; while it is being replaced, to its successor."""
        for delay in _RETRY_SECONDS:
            try:
                return await asyncio.to_thread(connect, self.spec.run_dir, SHIM_SOCKET)
            except (FileNotFoundError, ConnectionRefusedError) as error:
                if self.exit_status is not None:
                    break
                log.debug("connect to the shim of %s: %s", self.spec.container_id, error)
            await asyncio.sleep(delay + 0.01)
        raise ShimGone(f"container {self.spec.container_id} has no shim to connect to")

    async def _call_runc(self, *words: str) -> None:
        argv = self._runc.argv(*words)
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            raise RuncError(f"{self.spec.runtime}: {error.strerror}") from error
        _, output = await process.communicate()
        if process.returncode != 0:
            raise RuncError(failure(self._runc.log, output.decode(errors="replace")))
