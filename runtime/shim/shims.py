"""The engine's side of the shims: start one, find a running one again, talk to it, replace a dead one.

``Shims`` keeps the template alive and hands out a ``ShimHandle`` per container; a handle's ``wait`` outlives
any shim. Closing both leaves containers and shims as they are. What to run is the engine's business.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from pathlib import Path

from runtime.shim.client import AttachSession, ExecSession, ShimHandle, StartError, StartInterrupted
from runtime.shim.exit_status import EXIT_FILE, INIT_FILE, ExitStatus
from runtime.shim.linux import set_child_subreaper
from runtime.shim.messages import SHIM_SOCKET, connect, encode_line
from runtime.shim.orphans import Orphans
from runtime.shim.spec import ShimSpec
from runtime.shim.template_client import TemplateClient, TemplateError

__all__ = [
    "AttachSession",
    "ExecSession",
    "ExitStatus",
    "ShimHandle",
    "ShimSpec",
    "Shims",
    "StartError",
    "TemplateError",
    "end_last_shim",
    "finish_last_shim",
    "finishing_shim",
]

log = logging.getLogger(__name__)

_LAST_SHIM_SECONDS = 15.0
#: A start that is cut short by the death of a process of ours is tried again, so often in all.
_START_ATTEMPTS = 3


class Shims:
    """All shims of one engine. ``run_dir`` holds the template's socket and must not be shared."""

    def __init__(self, run_dir: Path) -> None:
        self._template = TemplateClient(run_dir)
        self._orphans = Orphans()
        self._handles: set[ShimHandle] = set()

    async def start(self) -> None:
        """Find the template that runs, or start one. Raises TemplateError."""
        # If the template is killed, its shims become ours, and through them the containers they lose.
        set_child_subreaper()
        self._template.on_restart = self._hold_again
        await self._template.ensure()

    async def run(self, spec: ShimSpec) -> ShimHandle:
        """Start the container. Raises StartError with the OCI runtime's words.

        A life of the same container whose end is not recorded yet is brought to its end first, so that
        none of its output is lost; ValueError if it still runs.
        """
        await self._end_last_life(spec)
        await asyncio.to_thread(end_last_shim, spec.run_dir, spec.container_id)
        attempt = 1
        while True:
            handle = ShimHandle(spec, self._template, self._orphans)
            try:
                await handle.fork("run")
                return self._keep(handle)
            except StartInterrupted as error:
                if attempt == _START_ATTEMPTS:
                    raise
                attempt += 1
                log.warning("container %s: %s; starting it again", spec.container_id[:12], error)

    async def adopt(self, spec: ShimSpec) -> ShimHandle:
        """Take over a container that an engine before this one started.

        Its shim may be alive, dead, or done; in the last case ``wait`` returns at once. Raises StartError
        if the container was never started.
        """
        handle = ShimHandle(spec, self._template, self._orphans)
        status = ExitStatus.read(spec.run_dir)
        if status is not None:
            handle.finished(status)
            return handle
        try:
            sock = await asyncio.to_thread(connect, spec.run_dir, SHIM_SOCKET)
        except (FileNotFoundError, ConnectionRefusedError):
            await handle.fork("adopt")
        else:
            await handle.watch(sock)
            # The template may be a later one than the shim's, and the engine before may not have told it.
            await handle.hold_again()
        return self._keep(handle)

    async def close(self) -> None:
        """Let go; the template, the shims and the containers stay."""
        self._template.close()
        self._orphans.close()
        await asyncio.gather(*(handle.close() for handle in list(self._handles)))

    async def shutdown(self) -> None:
        """Let go and end the template. Shims and containers that run are not ended."""
        await self.close()
        await self._template.shutdown()

    def _keep(self, handle: ShimHandle) -> ShimHandle:
        self._handles.add(handle)
        handle.on_end(lambda: self._handles.discard(handle))
        return handle

    async def _hold_again(self) -> None:
        """A new template has to keep the streams of what runs, as the one before it did."""
        for handle in list(self._handles):
            await handle.hold_again()

    async def _end_last_life(self, spec: ShimSpec) -> None:
        run_dir = spec.run_dir
        if (run_dir / EXIT_FILE).exists() or not (run_dir / INIT_FILE).exists():
            return
        handle = await self.adopt(spec)
        try:
            await asyncio.wait_for(asyncio.shield(handle.wait()), timeout=0.2 if handle.running else 60.0)
        except TimeoutError:
            raise ValueError(f"container {spec.container_id} is running already, pid {handle.pid}") from None


async def finish_last_shim(run_dir: Path, container_id: str) -> None:
    """Wait until the shim of a container that has ended is gone; it ends with the batch its sink is taking.

    Cut off, that batch would be sent again and be there twice. One that runs again is left alone.
    """
    try:
        sock = connect(run_dir, SHIM_SOCKET)
        sock.setblocking(False)
        reader, writer = await asyncio.open_unix_connection(sock=sock)
        try:
            writer.write(encode_line({"op": "finish_delivery", "id": 0}))
            async with asyncio.timeout(_LAST_SHIM_SECONDS):
                answer = json.loads(await reader.readline() or b"{}")
                if "error" not in answer:
                    await reader.read()
        finally:
            writer.close()
    except OSError as error:
        if not isinstance(error, FileNotFoundError | ConnectionError):
            log.warning("container %s: let the last shim finish: %s", container_id[:12], error)


def finishing_shim(run_dir: Path, container_id: str) -> socket.socket | None:
    """Have the shim of a container that has ended begin no further batch; the connection ends with the shim.

    None where there is no such shim any more, or it would not: that one is ended.
    """
    try:
        sock = connect(run_dir, SHIM_SOCKET)
    except OSError as error:
        if not isinstance(error, FileNotFoundError | ConnectionError):
            log.warning("container %s: find the last shim: %s", container_id[:12], error)
        return None
    try:
        sock.settimeout(_LAST_SHIM_SECONDS)
        sock.sendall(encode_line({"op": "finish_delivery", "id": 0}))
        answer = b""
        while not answer.endswith(b"\n") and (data := sock.recv(4096)):
            answer += data
        if answer and "error" not in json.loads(answer):
            sock.setblocking(False)
            return sock
    except (OSError, ValueError) as error:
        log.warning("container %s: let the last shim finish: %s", container_id[:12], error)
    sock.close()
    end_last_shim(run_dir, container_id)
    return None


def end_last_shim(run_dir: Path, container_id: str) -> None:
    """The shim of the last life may still deliver; the next one goes on with that."""
    try:
        with connect(run_dir, SHIM_SOCKET) as sock:
            sock.settimeout(_LAST_SHIM_SECONDS)
            sock.sendall(encode_line({"op": "stop_delivery"}))
            while sock.recv(4096):
                pass
    except OSError as error:
        if not isinstance(error, FileNotFoundError | ConnectionError):
            log.warning("container %s: end the last shim: %s", container_id[:12], error)
