"""Starting, finding and asking the template process, from the engine."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from runtime.shim import handover
from runtime.shim.build import fingerprint
from runtime.shim.messages import TEMPLATE_SOCKET, connect, receive, send

__all__ = ["TemplateClient", "TemplateError", "TemplateLost"]

log = logging.getLogger(__name__)

_START_SECONDS = 120.0  #: of a host that is busy, as at its own start; one that ends is noticed at once
_ANSWER_SECONDS = 15.0


class TemplateError(Exception):
    """The template cannot be started or refuses a request."""


class TemplateLost(TemplateError):
    """The template went away in the middle of a request."""


class TemplateClient:
    """One template, started when there is none, and started again when it is gone or of another build."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._lock = asyncio.Lock()
        self._build = ""  # ours; read when the first template is looked for
        self._child = 0  # the template, if this process started it
        self.pid = 0
        self.on_restart: Callable[[], Awaitable[None]] | None = None
        self._pidfd = -1
        self._restart: asyncio.Task[None] | None = None

    async def ensure(self) -> None:
        """Make sure that a template answers. Raises TemplateError."""
        async with self._lock:
            started = await asyncio.to_thread(self._ensure)
            self._watch()
        if started and self.on_restart is not None:
            await self.on_restart()

    def close(self) -> None:
        """Stop watching it; it stays."""
        if self._pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        if self._restart is not None:
            self._restart.cancel()
            self._restart = None

    async def ask(self, message: dict[str, Any], fds: Sequence[int] = ()) -> dict[str, Any]:
        """One request and its answer; a template that is gone is replaced first.

        Raises TemplateError; TemplateLost if it cannot be known whether the request was served.
        """
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
        self.close()
        try:
            await asyncio.to_thread(self._ask, {"op": "shutdown"}, ())
        except (OSError, TemplateLost):
            return
        finally:
            await asyncio.to_thread(self._ended, wait=True)

    def _watch(self) -> None:
        """Have the loop tell us when the template ends, so that another takes its place at once."""
        self.close()
        try:
            self._pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        asyncio.get_running_loop().add_reader(self._pidfd, self._on_end)

    def _on_end(self) -> None:
        log.warning("template %d ended; starting another", self.pid)
        self.close()
        self._restart = asyncio.create_task(self._replace(), name="template restart")

    async def _replace(self) -> None:
        try:
            async with self._lock:
                started = await asyncio.to_thread(self._ensure)
                self._restart = None
                self._watch()
        except TemplateError as error:
            log.error("%s; the next start tries again", error)
            return
        if started and self.on_restart is not None:
            await self.on_restart()

    def _ensure(self) -> bool:
        """Whether a new one had to be started."""
        self._run_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
        self._build = self._build or fingerprint()
        try:
            hello = self._ask({"op": "hello"}, ())
        except (OSError, TemplateLost):
            self._start()
            return True
        self.pid = int(hello["pid"])
        # One that we started ourselves is what is installed by now, and would be again.
        if self.pid == self._child or hello.get("build") == self._build:
            return False
        self._supersede(hello)
        return True

    def _supersede(self, hello: dict[str, Any]) -> None:
        """Start another in the place of a template that forks shims of another build than ours.

        What it keeps is ours meanwhile, then the new one's. It is gone afterwards, as if it had been killed.
        """
        try:
            pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            self._start()
            return
        kept: list[handover.Kept] = []
        try:
            kept = handover.take(self.pid, pidfd, hello.get("containers", ()))
            log.warning(
                "template %d is of build %s, this is %s; another takes its place, shims and %d containers go on",
                self.pid,
                hello.get("build", "unknown"),
                self._build,
                len(kept),
            )
            with contextlib.suppress(OSError, TemplateLost):
                self._ask({"op": "shutdown"}, ())
            handover.end(pidfd)
            self._start()
            for one in kept:
                self._have_kept(one)
        finally:
            os.close(pidfd)
            for one in kept:
                one.close()

    def _have_kept(self, kept: handover.Kept) -> None:
        message = {
            "op": "keep",
            "container_id": kept.container_id,
            "run_dir": str(kept.run_dir),
            "names": list(kept.fds),
        }
        try:
            answer = self._ask(message, list(kept.fds.values()))
        except (OSError, TemplateLost) as lost:
            answer = {"error": str(lost)}
        if "error" in answer:
            log.error("container %s: have its streams kept: %s", kept.container_id[:12], answer["error"])

    def _start(self) -> None:
        self._ended(wait=False)
        self._child = self._spawn()
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, TemplateLost):
                self.pid = int(self._ask({"op": "hello"}, ())["pid"])
                log.info("template %d serves %s", self.pid, self._run_dir)
                return
            if self._ended(wait=False):
                break
            time.sleep(0.005)
        raise TemplateError(f"the template process did not start; see {self._run_dir / 'template.log'}")

    def _spawn(self) -> int:
        # The package's own place, so that it is found however the engine was started.
        place = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, (place, os.environ.get("PYTHONPATH"))))
        log_path = str(self._run_dir / "template.log")
        # Not subprocess: the template is to outlive us, and nobody has to wait for it.
        return os.posix_spawn(
            sys.executable,
            [sys.executable, "-P", "-m", "runtime.shim.template", str(self._run_dir)],
            {**os.environ, "PYTHONPATH": path},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
            setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
            setsigmask=[],
        )

    def _ended(self, *, wait: bool) -> bool:
        """Reap the template that this process started, if it has ended; with ``wait`` once it has."""
        if self._child:
            try:
                pid, _ = os.waitpid(self._child, 0 if wait else os.WNOHANG)
            except ChildProcessError:
                pid = self._child
            if pid == 0:
                return False
            self._child = 0
        return True

    def _ask(self, message: dict[str, Any], fds: Sequence[int]) -> dict[str, Any]:
        """Raises OSError if there is no template to ask, TemplateLost if it left before it answered."""
        with connect(self._run_dir, TEMPLATE_SOCKET) as sock:
            sock.settimeout(_ANSWER_SECONDS)
            try:
                send(sock, message, fds)
                answer, received = receive(sock)
            except (OSError, ValueError) as error:
                raise TemplateLost(
                    f"the template left before it answered {message['op']}: {error}"
                ) from error
            for fd in received:
                os.close(fd)
            return answer
