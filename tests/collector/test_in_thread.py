"""A loop in a thread of its own ends with the task that awaits it, and one that hangs holds nobody."""

from __future__ import annotations

import asyncio
import threading

import pytest

from collector.in_thread import run_in_thread


async def cancelled(work: threading.Event, stop: threading.Event, patience: float | None) -> None:
    started = threading.Event()

    def loop() -> None:
        started.set()
        work.wait(60)

    task = asyncio.create_task(run_in_thread("work", loop, stop.set, patience))
    await asyncio.to_thread(started.wait, 60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_cancelling_stops_the_work_and_waits_for_its_end() -> None:
    stop = threading.Event()
    asyncio.run(cancelled(stop, stop, None))
    assert stop.is_set()
    assert "work" not in {thread.name for thread in threading.enumerate() if thread.is_alive()}


def test_work_that_hangs_is_left_behind(caplog: pytest.LogCaptureFixture) -> None:
    hanging, stop = threading.Event(), threading.Event()
    try:
        asyncio.run(cancelled(hanging, stop, 0.05))
        assert stop.is_set()
        assert "stopping work: it hangs" in caplog.text
    finally:
        thread = next(thread for thread in threading.enumerate() if thread.name == "work")
        hanging.set()
        thread.join(60)  # its loop is closed: it ends without a word


def test_a_failure_is_the_awaiters() -> None:
    def fail() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        asyncio.run(run_in_thread("work", fail, lambda: None))
