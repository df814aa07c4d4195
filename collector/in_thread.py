"""Runs a synchronous loop in a thread of its own, for a task that awaits and cancels it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable

__all__ = ["run_in_thread"]

log = logging.getLogger(__name__)


async def run_in_thread(
    name: str, work: Callable[[], None], stop: Callable[[], None], patience_seconds: float | None = None
) -> None:
    """Run ``work`` until it returns or raises. When cancelled, call ``stop`` and wait for it to end.

    ``stop`` is called from the event loop and must make ``work`` return soon. Work that may hang in the
    kernel is waited for ``patience_seconds`` at most; its thread does not keep the program from ending.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def settle(error: BaseException | None) -> None:
        if ended.cancelled():
            return
        if error is None:
            ended.set_result(None)
        else:
            ended.set_exception(error)

    def run() -> None:
        error: BaseException | None = None
        try:
            work()
        except BaseException as caught:  # noqa: BLE001  # raised again where the result is awaited
            error = caught
        with contextlib.suppress(RuntimeError):  # nobody waits any more, and the loop is closed
            loop.call_soon_threadsafe(settle, error)

    threading.Thread(target=run, name=name, daemon=True).start()
    try:
        await asyncio.shield(ended)
    except asyncio.CancelledError:
        stop()
        await asyncio.wait({ended}, timeout=patience_seconds)
        if not ended.done():
            log.error("stopping %s: it hangs, its thread is left behind", name)
        elif (error := ended.exception()) is not None:
            log.error("stopping %s: it failed: %r", name, error)
        raise
