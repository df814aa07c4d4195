"""One container: its states, and what moves it from one to the next.

A lock per container orders the transitions; nothing waits for the container's own process, a log sink or a
client while it holds it. Getting a container's parts together (root file system, network, OCI bundle, shim)
is ``runtime/launch.py``'s trade, names and removal from the table are ``runtime/engine.py``'s, and who waits
for a transition is ``runtime/waiters.py``'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from runtime.background import BackgroundTasks
from runtime.config import ContainerConfig
from runtime.definition import Definition
from runtime.errors import Conflict, EngineError, NotModified, ServerError
from runtime.events import EventBus
from runtime.health_monitor import HealthMonitor, Probing
from runtime.launched import Launch, failed_start_code
from runtime.restart import RestartPolicy, next_delay
from runtime.shim.shims import ExitStatus, ShimHandle
from runtime.signals import parse_signal
from runtime.state import ContainerDirectories, State, Status
from runtime.waiters import Waiters, within

__all__ = ["Container"]

log = logging.getLogger(__name__)

KILL_WAIT_S = 10.0  #: after SIGKILL; a process that is still there then hangs in the kernel


class Container:
    """A container from its creation to its removal."""

    def __init__(
        self,
        definition: Definition,
        state: State,
        directories: ContainerDirectories,
        events: EventBus,
        launch: Launch,
        on_auto_remove: Callable[[Container], Awaitable[None]],
        probing: Probing,
    ) -> None:
        self.definition = definition
        self.state = state
        self.handle: ShimHandle | None = None
        self.exists = True
        self.lock = asyncio.Lock()
        self.policy = RestartPolicy.of(definition.config.host.restart_policy)
        self._directories = directories
        self._events = events
        self._launch = launch
        self._on_auto_remove = on_auto_remove
        self.waiters = Waiters()
        self._background = BackgroundTasks(f"container {definition.id[:12]}")
        self._restart_task: asyncio.Task[None] | None = None
        self._delay_s = 0.0
        self._kept_by_restart = False
        self.health = HealthMonitor(self, probing, directories)

    # --- what it is --------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """64 hexadecimal digits."""
        return self.definition.id

    @property
    def name(self) -> str:
        """With the leading ``/``."""
        return self.definition.name

    @property
    def image_id(self) -> str:
        """``sha256:…``."""
        return self.definition.image_id

    @property
    def auto_remove(self) -> bool:
        """``--rm``."""
        return self.definition.config.host.auto_remove

    @property
    def active(self) -> bool:
        """Running, paused, or between two runs of its restart policy."""
        return self.state.running or self.state.status is Status.RESTARTING

    def emit(self, action: str, **attributes: str) -> None:
        """Publish an event of this container, with Docker's attributes: labels, image, name."""
        own = {"image": self.definition.config.image, "name": self.name.removeprefix("/")}
        self._events.publish("container", action, self.id, {**self.definition.labels, **own, **attributes})

    def set_state(self, **changes: Any) -> None:
        """Change the state, on disk first."""
        state = replace(self.state, **changes)
        if self.exists:
            self._directories.save_state(self.id, state)
        self.state = state

    def redefine(self, **changes: Any) -> None:
        """Change the definition, on disk first."""
        definition = replace(self.definition, **changes)
        self._directories.save_config(self.id, definition.to_json())
        self.definition = definition

    def remember_network(self, name: str, settings: Mapping[str, Any]) -> None:
        """Connect to this network at the next start too."""
        self._set_networks({**self._networks(), name: dict(settings)})

    def forget_network(self, name: str, network_id: str) -> None:
        """Do not connect to this network at the next start."""
        left = {key: value for key, value in self._networks().items() if key not in (name, network_id)}
        self._set_networks(left)

    def _networks(self) -> dict[str, Any]:
        return dict((self.definition.body.get("NetworkingConfig") or {}).get("EndpointsConfig") or {})

    def _set_networks(self, endpoints: Mapping[str, Any]) -> None:
        body = {**self.definition.body, "NetworkingConfig": {"EndpointsConfig": dict(endpoints)}}
        self.redefine(body=body, config=ContainerConfig.from_api(body))

    # --- start -------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """``docker start``. Raises NotModified, Conflict, or what the start failed with."""
        async with self.lock:
            if self.state.status is Status.PAUSED:
                raise Conflict("cannot start a paused container, try unpause instead")
            if self.state.running:
                raise NotModified("container already running")
            if not self.exists or self.state.status in (Status.REMOVING, Status.DEAD):
                raise Conflict("container is marked for removal and cannot be started")
            self._cancel_restart()
            self._delay_s = 0.0
            self.set_state(restarts=0, stopped_by_user=False)
            try:
                await self._start()
            except EngineError as error:
                await self._failed_to_start(error)
                raise

    async def _start(self) -> None:
        """Run it; the lock is held."""
        launched = await self._launch.start(self)
        self._took_off(launched.handle)
        self.set_state(
            status=Status.RUNNING,
            pid=launched.handle.pid,
            started_ns=launched.handle.started_ns,
            finished_ns=self.state.finished_ns,
            exit_code=0,
            oom_killed=False,
            error="",
            cgroup=launched.cgroup,
            ever_started=True,
        )
        self.emit("start")
        self.health.begin()

    def adopt(self, handle: ShimHandle) -> None:
        """Take over a container that went on running while no engine was there."""
        self._took_off(handle)
        if self.state.status is Status.RUNNING:
            self.health.adopt()

    def _took_off(self, handle: ShimHandle) -> None:
        self.handle = handle
        self.waiters.tell_attaching(True)
        self._background.start(self._watch(handle))

    async def _failed_to_start(self, error: EngineError) -> None:
        code = failed_start_code(error.message)
        self.set_state(
            status=Status.EXITED if self.state.ever_started else Status.CREATED,
            pid=0,
            exit_code=code,
            error=error.message,
        )
        self.waiters.tell_exit(code)
        self.waiters.tell_attaching(False)
        if self.auto_remove:
            self._background.start(self._on_auto_remove(self))

    # --- end ---------------------------------------------------------------------------------------------

    async def _watch(self, handle: ShimHandle) -> None:
        status = await handle.wait()
        async with self.lock:
            if self.handle is handle:
                await self.ended(status)

    async def ended(self, status: ExitStatus) -> None:
        """Record the end of the container's process and what follows from it; the lock is held."""
        self.handle = None
        self.health.stop()
        if status.oom_killed:
            self.emit("oom")
        # Cleared first: who waits for the exit may start or remove it right away.
        await self._launch.clear(self)
        state = self.state
        again = self.exists and self.policy.again(status.code, state.restarts, state.stopped_by_user)
        self.set_state(
            status=Status.RESTARTING if again else Status.EXITED,
            pid=0,
            exit_code=status.code,
            oom_killed=status.oom_killed,
            finished_ns=status.finished_ns,
            restarts=state.restarts + 1 if again else state.restarts,
        )
        ran_ns = max(0, status.finished_ns - state.started_ns)
        self.emit("die", exitCode=str(status.code), execDuration=str(ran_ns // 1_000_000_000))
        self.waiters.tell_exit(status.code)
        self.deliver_remainder()
        if again:
            self._delay_s = next_delay(self._delay_s, ran_ns)
            self._restart_task = self._background.start(self._restart_after(self._delay_s))
        elif self.auto_remove and not self._kept_by_restart:
            self._background.start(self._on_auto_remove(self))

    def deliver_remainder(self) -> None:
        """In the background, have delivered what its log driver's sink has not taken."""
        self._background.start(self._launch.deliver_remainder(self))

    async def _restart_after(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        async with self.lock:
            if self.state.status is not Status.RESTARTING or not self.exists:
                return
            self._restart_task = None
            try:
                await self._start()
            except EngineError as error:
                log.warning("restart of container %s failed: %s", self.name, error.message)
                self.set_state(
                    status=Status.EXITED, exit_code=failed_start_code(error.message), error=error.message
                )
                self.waiters.tell_exit(self.state.exit_code)

    def restart_now(self) -> None:
        """Start by policy, when the engine comes up."""
        self.set_state(status=Status.RESTARTING)
        self._restart_task = self._background.start(self._restart_after(0.0))

    def _cancel_restart(self) -> None:
        if self._restart_task is not None:
            self._restart_task.cancel()
            self._restart_task = None

    # --- signals -----------------------------------------------------------------------------------------

    async def stop(self, timeout_s: float | None = None, signal_name: str = "") -> None:
        """``docker stop``: the stop signal, then SIGKILL after the grace time (negative: never).

        Raises NotModified if it is not running.
        """
        config = self.definition.config
        number = parse_signal(signal_name or self.definition.stop_signal)
        if timeout_s is None:
            timeout_s = 10.0 if config.stop_timeout is None else float(config.stop_timeout)
        async with self.lock:
            if self.state.status is Status.RESTARTING:
                self._cancel_restart()
                self.set_state(status=Status.EXITED, stopped_by_user=True)
                self.waiters.tell_exit(self.state.exit_code)
                self.emit("stop")
                return
            if not self.state.running or self.handle is None:
                raise NotModified("container already stopped")
            self.set_state(stopped_by_user=True)
            exited = self.waiters.next_exit()
            await self._signal(number)
        if not await within(exited, None if timeout_s < 0 else timeout_s):
            log.info("container %s did not stop in %g s: killing it", self.name, timeout_s)
            await self._kill_and_wait(exited)
        self.emit("stop")

    async def _kill_and_wait(self, exited: asyncio.Future[int]) -> None:
        async with self.lock:
            if self.handle is not None and not exited.done():
                await self._signal(signal.SIGKILL)
        if not await within(exited, KILL_WAIT_S):
            raise ServerError(
                f"tried to kill container {self.id}, but did not receive an exit event in {KILL_WAIT_S:g} s"
            )

    async def kill(self, signal_name: str = "") -> None:
        """``docker kill``. After SIGKILL it returns when the container has ended."""
        number = parse_signal(signal_name or "KILL")
        async with self.lock:
            if self.handle is None or not self.state.running:
                raise Conflict(
                    f"cannot kill container: {self.name.removeprefix('/')}: container {self.id} is not running"
                )
            # As Docker: without a stop signal of its own, any signal by hand ends the restart policy.
            own = self.definition.config.stop_signal
            if not own or number in (signal.SIGKILL, parse_signal(own)):
                self.set_state(stopped_by_user=True)
            exited = self.waiters.next_exit()
            await self._signal(number)
        if number == signal.SIGKILL:
            await within(exited, KILL_WAIT_S)

    async def _signal(self, number: int) -> None:
        """Send a signal; a paused container is let go, or a deadly signal would wait with it."""
        if self.handle is None:
            return
        await self.handle.signal(number)
        self.emit("kill", signal=str(number))
        if self.state.status is Status.PAUSED:
            await self.handle.resume()
            self.set_state(status=Status.RUNNING)
            self.health.resume()

    async def restart(self, timeout_s: float | None = None, signal_name: str = "") -> None:
        """``docker restart``: stop if it runs, and start."""
        self._kept_by_restart = True
        try:
            with contextlib.suppress(NotModified):
                await self.stop(timeout_s, signal_name)
        finally:
            self._kept_by_restart = False
        with contextlib.suppress(NotModified):
            await self.start()
        self.emit("restart")

    async def pause(self) -> None:
        """``docker pause``."""
        async with self.lock:
            if self.state.status is Status.PAUSED:
                raise Conflict(f"container {self.id} is already paused")
            handle = self.running_handle()
            await handle.pause()
            self.set_state(status=Status.PAUSED)
            self.health.stop()
            self.emit("pause")

    async def unpause(self) -> None:
        """``docker unpause``."""
        async with self.lock:
            if self.state.status is not Status.PAUSED or self.handle is None:
                raise Conflict(f"container {self.id} is not paused")
            await self.handle.resume()
            self.set_state(status=Status.RUNNING)
            self.health.resume()
            self.emit("unpause")

    def running_handle(self) -> ShimHandle:
        """The shim of a running container; Conflict, in Docker's words, if it is not running."""
        if self.state.status is Status.RESTARTING:
            raise Conflict(f"container {self.id} is restarting, wait until the container is running")
        if self.handle is None or not self.state.running:
            raise Conflict(f"container {self.id} is not running")
        return self.handle

    # --- removal -----------------------------------------------------------------------------------------

    async def gone_or(self, timeout_s: float) -> None:
        """Return after a time, at once if the container is removed."""
        await asyncio.wait([self.waiters.removed], timeout=timeout_s)

    def removed(self) -> None:
        """Called once it is gone from disk and table."""
        self.exists = False
        self._cancel_restart()
        self.waiters.tell_removed(self.state.exit_code)

    async def leave(self) -> None:
        """The engine stops: let go of the container without touching it."""
        await self.health.leave()
        await self._background.cancel()
