"""Probes of many containers take turns at being started, and one that hangs keeps nobody waiting for long."""

from __future__ import annotations

import asyncio

import pytest

from runtime import health_monitor
from runtime.execs import Execs
from runtime.health_monitor import AT_ONCE, Probing


def test_only_so_many_start_at_once() -> None:
    async def run() -> int:
        probing, now, most = Probing(Execs()), 0, 0

        async def start() -> None:
            nonlocal now, most
            async with probing.turn():
                now += 1
                most = max(most, now)
                await asyncio.sleep(0)
                now -= 1

        await asyncio.gather(*(start() for _ in range(50)))
        return most

    assert asyncio.run(run()) == AT_ONCE


def test_starts_that_hang_give_their_turn_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_monitor, "TURN_S", 0.01)

    async def run() -> int:
        probing, inside = Probing(Execs()), 0
        end = asyncio.Event()

        async def hang() -> None:
            nonlocal inside
            async with probing.turn():
                inside += 1
                if inside == 3 * AT_ONCE:
                    end.set()
                await end.wait()

        async with asyncio.timeout(100):
            await asyncio.gather(*(hang() for _ in range(3 * AT_ONCE)))
        return inside

    assert asyncio.run(run()) == 3 * AT_ONCE
