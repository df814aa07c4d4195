"""Who waits for something to happen to a container: its next exit, its removal, its start.

Only futures; a container tells, clients of ``wait``, ``attach`` and ``logs`` wait, and none of them holds the
container's lock.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from runtime.errors import BadRequest

if TYPE_CHECKING:
    from runtime.container import Container

__all__ = ["Waiters", "wait_for", "within"]


class Waiters:
    """The waiters of one container."""

    def __init__(self) -> None:
        self._exits: set[asyncio.Future[int]] = set()
        self._attaching: set[asyncio.Future[bool]] = set()
        self.removed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def next_exit(self) -> asyncio.Future[int]:
        """The exit code of the run that ends next."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._exits.add(future)
        future.add_done_callback(self._exits.discard)
        return future

    def tell_exit(self, code: int) -> None:
        """A run has ended, or will not come."""
        for future in list(self._exits):
            if not future.done():
                future.set_result(code)

    @property
    def awaits_attach(self) -> bool:
        """Whether clients have attached before the start; the launch tells the shim to wait for them."""
        return any(not future.done() for future in self._attaching)

    def expect_attach(self, running: bool) -> asyncio.Future[bool]:
        """A client is about to attach: true at the next start (or now), false if there will be none."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        if running:
            future.set_result(True)
        else:
            self._attaching.add(future)
            future.add_done_callback(self._attaching.discard)
        return future

    def tell_attaching(self, started: bool) -> None:
        """It has started, or will not."""
        for future in list(self._attaching):
            if not future.done():
                future.set_result(started)

    def tell_removed(self, code: int) -> None:
        """It is gone: nobody waits any longer."""
        self.tell_attaching(False)
        self.tell_exit(code)
        if not self.removed.done():
            self.removed.set_result(None)


async def within(future: asyncio.Future[int], timeout_s: float | None) -> bool:
    """Whether the future was done in time; it is not cancelled."""
    done, _ = await asyncio.wait([future], timeout=timeout_s)
    return bool(done)


def wait_for(container: Container, condition: str) -> asyncio.Future[int]:
    """The exit code once a condition of ``docker wait`` holds: ``not-running``, ``next-exit`` or ``removed``.

    Raises BadRequest for another one.
    """
    if condition in ("", "not-running"):
        if not container.active:
            done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            done.set_result(container.state.exit_code)
            return done
        return asyncio.ensure_future(_until_inactive(container))
    if condition == "next-exit":
        return container.waiters.next_exit()
    if condition == "removed":
        return asyncio.ensure_future(_until_removed(container))
    raise BadRequest(f'invalid condition: "{condition}"')


async def _until_inactive(container: Container) -> int:
    while container.active:
        await container.waiters.next_exit()
    return container.state.exit_code


async def _until_removed(container: Container) -> int:
    await asyncio.shield(container.waiters.removed)
    return container.state.exit_code
