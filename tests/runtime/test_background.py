"""Tasks behind requests: kept, told of when they fail, cancelled together."""

from __future__ import annotations

import asyncio

import pytest

from runtime.background import BackgroundTasks


def test_a_failure_is_logged_with_the_owners_name(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise ValueError("no disk")

    async def go() -> None:
        task = BackgroundTasks("container c0ffee").start(fail())
        await asyncio.wait([task])

    asyncio.run(go())
    (record,) = caplog.records
    assert record.getMessage() == "background work for container c0ffee failed"
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "no disk"


def test_cancelling_waits_until_everything_has_ended(caplog: pytest.LogCaptureFixture) -> None:
    ended: list[int] = []

    async def work(number: int, begun: asyncio.Event) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(number)

    async def go() -> None:
        tasks = BackgroundTasks("container c0ffee")
        events = [asyncio.Event() for _ in range(3)]
        for number, begun in enumerate(events):
            tasks.start(work(number, begun))
        for begun in events:
            await begun.wait()
        await tasks.cancel()
        assert sorted(ended) == [0, 1, 2]

    asyncio.run(go())
    assert not caplog.records
