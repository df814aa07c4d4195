"""Starting, finding and asking the template process, from the engine."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from runtime.messages import TEMPLATE_SOCKET, connect, receive, send

__all__ = ["TemplateClient", "TemplateError"]

log = logging.getLogger(__name__)

_START_SECONDS = 30.0
_ANSWER_SECONDS = 15.0


class TemplateError(Exception):
    """The template cannot be started or refuses a request."""


class TemplateClient:
    """One template, started when there is none, and started again when it is gone."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._lock = asyncio.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self.pid = 0
        self.on_restart: Callable[[], Awaitable[None]] | None = None

    async def ensure(self) -> None:
        """Make sure that a template answers. Raises TemplateError."""
        async with self._lock:
            started = await asyncio.to_thread(self._ensure)
        if started and self.on_restart is not None:
            await self.on_restart()

    async def ask(self, message: dict[str, Any], fds: Sequence[int] = ()) -> dict[str, Any]:
        """One request and its answer; a template that is gone is replaced first. Raises TemplateError."""
        try:
            answer = await asyncio.to_thread(self._ask, message, fds)
        except OSError:
            await self.ensure()
            try:
                answer = await asyncio.to_thread(self._ask, message, fds)
            except OSError as error:
                raise TemplateError(f"ask the template to {message['op']}: {error}") from error
        if "error" in answer:
            raise TemplateError(f"the template refused to {message['op']}: {answer['error']}")
        return answer

    async def shutdown(self) -> None:
        """End the template, if there is one, and wait until it has ended."""
        try:
            await asyncio.to_thread(self._ask, {"op": "shutdown"}, ())
        except OSError:
            return
        finally:
            if self._process is not None:
                await asyncio.to_thread(self._process.wait)
                self._process = None

    def _ensure(self) -> bool:
        """Whether a new one had to be started."""
        self._run_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
        try:
            self.pid = int(self._ask({"op": "hello"}, ())["pid"])
        except OSError:
            self._start()
            return True
        return False

    def _start(self) -> None:
        if self._process is not None:
            self._process.poll()  # reap the one before
        # The package's own place, so that it is found however the engine was started.
        place = str(Path(__file__).resolve().parent.parent)
        path = os.pathsep.join(filter(None, (place, os.environ.get("PYTHONPATH"))))
        with (self._run_dir / "template.log").open("ab") as output:
            process = self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "runtime.template", str(self._run_dir)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": path},
            )
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                self.pid = int(self._ask({"op": "hello"}, ())["pid"])
                log.info("template %d serves %s", self.pid, self._run_dir)
                return
            if process.poll() is not None:
                break
            time.sleep(0.005)
        raise TemplateError(
            f"the template process did not start (exit code {process.poll()}); "
            f"see {self._run_dir / 'template.log'}"
        )

    def _ask(self, message: dict[str, Any], fds: Sequence[int]) -> dict[str, Any]:
        with connect(self._run_dir, TEMPLATE_SOCKET) as sock:
            sock.settimeout(_ANSWER_SECONDS)
            send(sock, message, fds)
            answer, received = receive(sock)
            for fd in received:
                os.close(fd)
            return answer
