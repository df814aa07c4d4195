"""The agent's memory is given back between scrapes."""

from __future__ import annotations

import asyncio

import pytest

from taffrail import heap


def test_the_heap_is_trimmed_again_and_again_until_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    trimmed: list[None] = []
    monkeypatch.setattr(heap, "trim_heap", lambda: trimmed.append(None))
    monkeypatch.setattr(heap, "_EVERY", 0.001)

    async def run() -> None:
        task = asyncio.create_task(heap.keep_trimmed())
        while len(trimmed) < 3:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
