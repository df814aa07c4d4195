"""Runs a container's health check: a probe at a time, a timer between them, and what comes of it on disk and as events.

A monitor lives as long as its container's object and probes while the container runs and is not paused. Which
status follows from which result is ``runtime/health.py``'s; the probe's process is its shim's, bound to us: it
is killed when its time is over, when the container is paused, and when the engine dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from runtime.errors import EngineError, Unavailable
from runtime.exec_process import run_exec
from runtime.execs import Exec, ExecConfig, Execs
from runtime.health import Check, Health, Result, duration_text
from runtime.shim.shims import ExecSession
from runtime.state import ContainerDirectories
from runtime.waiters import within

if TYPE_CHECKING:
    from runtime.container import Container

__all__ = ["HealthMonitor", "Probing"]

log = logging.getLogger(__name__)

AT_ONCE = 4  #: probes of all containers that are being started at the same time; running they cost us nothing
TURN_S = 1.0  #: after which a probe still being started keeps no other from it
OUTPUT_BYTES = 4096  #: kept of a probe's output
KILL_WAIT_S = 10.0  #: after SIGKILL; a probe that is still there then hangs in the kernel
_END_WAIT_S = 0.5  #: between the deaths of a probe and of the container it died with
_KILLED = 137
_SECOND = 1_000_000_000


class Probing:
    """What the monitors of one engine share."""

    def __init__(self, execs: Execs) -> None:
        self.execs = execs
        self._starting = asyncio.Semaphore(AT_ONCE)

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """A place among the probes being started; a start that hangs gives it up after a second."""
        await self._starting.acquire()
        given_up = False

        def give_up() -> None:
            nonlocal given_up
            if not given_up:
                given_up = True
                self._starting.release()

        timer = asyncio.get_running_loop().call_later(TURN_S, give_up)
        try:
            yield
        finally:
            timer.cancel()
            give_up()


class HealthMonitor:
    """The health of one container. Without a check it has none, and nothing here does anything."""

    def __init__(
        self,
        container: Container,
        probing: Probing,
        directories: ContainerDirectories,
    ) -> None:
        self.check = Check.of(container.definition.config)
        self.health = _read_health(directories, container.id) if self.check is not None else None
        self._container = container
        self._probing = probing
        self._directories = directories
        self._task: asyncio.Task[None] | None = None

    @property
    def status(self) -> str:
        """``starting``, ``healthy``, ``unhealthy``; ``none`` without a check and before the first start."""
        return "none" if self.health is None else self.health.status

    def begin(self) -> None:
        """The container has been started."""
        self._end()
        if self.check is not None:
            self._set((self.health or Health()).begun())
            self._go(self.check, self._interval_ns(self.check))

    def adopt(self) -> None:
        """It ran while no engine was there: go on with what is known, with what is left of the interval."""
        if self.check is None:
            return
        if self.health is None:
            self._set(Health())
        wait_ns = self._interval_ns(self.check)
        last = self.health.log[-1].end_ns if self.health is not None and self.health.log else 0
        if last >= self._container.state.started_ns:
            wait_ns = min(wait_ns, max(0, last + wait_ns - time.time_ns()))
        self._go(self.check, wait_ns)

    def resume(self) -> None:
        """It is no longer paused."""
        if self.check is not None:
            self._go(self.check, self._interval_ns(self.check))

    def stop(self) -> None:
        """It has ended or is paused; as with Docker its status is unhealthy then, without an event."""
        self._end()
        if self.health is not None:
            self._set(self.health.stopped())

    async def leave(self) -> None:
        """The engine stops: probe no more, change nothing."""
        task = self._end()
        if task is not None:
            await asyncio.gather(task, return_exceptions=True)

    # --- the timer ---------------------------------------------------------------------------------------

    def _go(self, check: Check, wait_ns: int) -> None:
        if self._task is None:
            self._task = asyncio.ensure_future(self._monitor(check, wait_ns))
            self._task.add_done_callback(self._done)

    def _end(self) -> asyncio.Task[None] | None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("the health check of container %s ended", self._container.name, exc_info=error)

    def _interval_ns(self, check: Check) -> int:
        return check.wait_ns(self.status, time.time_ns() - self._container.state.started_ns)

    async def _monitor(self, check: Check, wait_ns: int) -> None:
        while True:
            await asyncio.sleep(wait_ns / _SECOND)
            try:
                await self._probe(check)
            except OSError as error:
                log.warning("cannot probe the health of container %s: %s", self._container.name, error)
            wait_ns = self._interval_ns(check)

    # --- a probe -----------------------------------------------------------------------------------------

    async def _probe(self, check: Check) -> None:
        if not check.command:
            self._take(check, Result(time.time_ns(), time.time_ns(), -1, "No exec command specified"))
            return
        config = ExecConfig(check.command, stdout=True, stderr=True)
        instance: Exec | None = None
        async with contextlib.AsyncExitStack() as undo:
            async with self._probing.turn():
                start_ns = time.time_ns()
                deadline = asyncio.get_running_loop().time() + check.timeout_ns / _SECOND
                try:
                    async with asyncio.timeout_at(deadline):
                        instance = self._probing.execs.create(self._container, config)
                        undo.callback(self._probing.execs.forget, instance)
                        session = await run_exec(instance, stdin=False, bound=True)
                except TimeoutError:
                    self._take(check, _timed_out(check, start_ns))
                    return
                except Unavailable as error:
                    log.info("no health check of container %s: %s", self._container.name, error.message)
                    return
                except EngineError as error:
                    self._take(check, Result(start_ns, time.time_ns(), -1, error.message))
                    return
            undo.push_async_callback(_finish, instance, session)
            await self._follow(check, instance, session, start_ns, deadline)

    async def _follow(
        self, check: Check, instance: Exec, session: ExecSession, start_ns: int, deadline: float
    ) -> None:
        """Take the output until the end, or until the time is over: then kill it and wait for its end."""
        reading = asyncio.ensure_future(_read(session))
        try:
            left = deadline - asyncio.get_running_loop().time()
            done, _ = await asyncio.wait({reading}, timeout=max(left, 0.0))
            if not done:
                self._take(check, _timed_out(check, start_ns))
                session.end_stdin()
                done, _ = await asyncio.wait({reading}, timeout=KILL_WAIT_S)
                if not done:
                    log.error("a health check of container %s does not die", self._container.name)
                return
            if session.exit_code is None:
                # Its shim was killed, or the container ended; neither says anything about its health.
                log.info("a health check of container %s was cut off", self._container.name)
                return
            instance.finished(session.exit_code)
            if session.exit_code == _KILLED and await self._ended_soon():
                return
            self._take(check, Result(start_ns, time.time_ns(), session.exit_code, reading.result()))
        finally:
            reading.cancel()

    async def _ended_soon(self) -> bool:
        """Whether the container is ending: the probe's process died with it, which is no result."""
        return await within(self._container.waiters.next_exit(), _END_WAIT_S)

    def _take(self, check: Check, result: Result) -> None:
        """Count a result, and tell a change of the status."""
        before = self.health or Health()
        after = before.after(result, check, self._container.state.started_ns)
        self._set(after)
        if after.status != before.status:
            self._container.emit(f"health_status: {after.status}")

    def _set(self, health: Health) -> None:
        self.health = health
        if not self._container.exists:
            return
        try:
            self._directories.save_health(self._container.id, health.to_json())
        except OSError as error:
            log.error("cannot keep the health of container %s on disk: %s", self._container.name, error)


def _read_health(directories: ContainerDirectories, container_id: str) -> Health | None:
    body = directories.load_health(container_id)
    try:
        return None if body is None else Health.from_json(body)
    except (KeyError, TypeError) as error:
        log.error("cannot read the health of container %s: %s", container_id[:12], error)
        return None


def _timed_out(check: Check, start_ns: int) -> Result:
    text = f"Health check exceeded timeout ({duration_text(check.timeout_ns)})"
    return Result(start_ns, time.time_ns(), -1, text)


async def _finish(instance: Exec, session: ExecSession) -> None:
    """Let go of the session, with which its process is killed unless it has ended."""
    await session.close()
    instance.finished(_KILLED if session.exit_code is None else session.exit_code)


async def _read(session: ExecSession) -> str:
    """The output to its end, cut as Docker cuts it; the rest is taken too, so the probe never waits for us."""
    kept, cut = bytearray(), False
    async for _stream, data in session:
        room = OUTPUT_BYTES - len(kept)
        kept += data[:room]
        cut = cut or len(data) > room
    return kept.decode("utf-8", "replace") + ("..." if cut else "")
