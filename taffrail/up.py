"""``taffrail up``: starts engine and agent as processes of their own, stays in front of them, stops them cleanly.

Two processes, because either may be restarted without the other. One that dies is started again; containers
live on through all of it, since their shims belong to neither.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from taffrail.agent_client import AgentClient
from taffrail.config import Config
from taffrail.errors import CommandError
from taffrail.paths import Paths
from taffrail.wiring import make_paths

__all__ = ["PARTS", "Supervisor"]

log = logging.getLogger(__name__)

#: What runs, in the order it is started; it is stopped in the opposite one.
PARTS = ("engine", "agent")

READY_SECONDS = 60.0
STOP_SECONDS = 20.0
#: A part that lived shorter than this is not started again at once.
CRASH_SECONDS = 5.0


@dataclass
class _Part:
    """One child process and when it was started."""

    name: str
    process: subprocess.Popen[bytes]
    started: float = field(default_factory=time.monotonic)


class Supervisor:
    """Runs the parts until told to stop.

    ``arguments`` are the options before the command (``--config``, ``--set``) that every part gets too.
    """

    def __init__(self, config: Config, arguments: Sequence[str]) -> None:
        self._paths: Paths = make_paths(config)
        self._arguments = list(arguments)
        self._parts: list[_Part] = []
        self._wake, self._waker = os.pipe()
        os.set_blocking(self._waker, False)

    def run(self, ready: Callable[[], None]) -> None:
        """Start everything, call ``ready`` once both parts answer, and stay until SIGINT or SIGTERM.

        Raises CommandError if a part does not come up.
        """
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        stopped: list[int] = []
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda signum, _frame: stopped.append(signum))
        signal.signal(signal.SIGCHLD, lambda *_: None)
        try:
            for name in PARTS:
                self._parts.append(self._start(name))
                self._wait_ready(self._parts[-1], stopped)
                if stopped:
                    return
            ready()
            while not stopped:
                self._revive()
                self._pause(1.0)
        finally:
            self._stop()

    def _start(self, name: str) -> _Part:
        command = [sys.executable, "-P", "-m", "taffrail", *self._arguments, name]
        return _Part(name, subprocess.Popen(command, start_new_session=True, stdin=subprocess.DEVNULL))

    def _wait_ready(self, part: _Part, stopped: Sequence[int]) -> None:
        socket = self._paths.engine_socket if part.name == "engine" else self._paths.agent_socket
        path = "/_ping" if part.name == "engine" else "/api/v1/health"
        deadline = time.monotonic() + READY_SECONDS
        while not stopped:
            if part.process.poll() is not None:
                raise CommandError(
                    f"the {part.name} ended with status {part.process.returncode}; its log is above"
                )
            try:
                AgentClient(socket, timeout=2.0).get(path)
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise CommandError(
                        f"the {part.name} did not answer on {socket} in {READY_SECONDS:.0f} s"
                    ) from None
            self._pause(0.05)

    def _pause(self, seconds: float) -> None:
        """Wait, but not past a signal."""
        if select.select([self._wake], [], [], seconds)[0]:
            os.read(self._wake, 4096)

    def _revive(self) -> None:
        for index, part in enumerate(self._parts):
            status = part.process.poll()
            if status is None or time.monotonic() - part.started < CRASH_SECONDS:
                continue
            log.error("the %s ended with status %d: starting it again", part.name, status)
            self._parts[index] = self._start(part.name)

    def _stop(self) -> None:
        for part in reversed(self._parts):
            if part.process.poll() is None:
                part.process.terminate()
            try:
                part.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                log.error("the %s did not stop in %.0f s: killing it", part.name, STOP_SECONDS)
                part.process.kill()
                part.process.wait()
