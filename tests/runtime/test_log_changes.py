"""Followers are told of what is written, wherever it is, and ask again and again where nobody tells."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from runtime import log_changes
from runtime.log_changes import Following, LogChanges

LONG = 1000.0


def play(scenario: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with asyncio.timeout(100):
            await scenario()

    asyncio.run(whole())


def never() -> asyncio.Future[int]:
    return asyncio.get_running_loop().create_future()


async def quiet(following: Following) -> None:
    """Have it wait for what is to come, and nothing be pending."""
    await following.wait(never(), 0.0)


def test_every_follower_of_a_file_is_told_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()

    async def scenario() -> None:
        changes = LogChanges()
        ones = [changes.follow([tmp_path / "a"]) for _ in range(3)]
        other = changes.follow([tmp_path / "b"])
        for one in (*ones, other):
            await quiet(one)
        waiting = [asyncio.ensure_future(one.wait(never(), LONG)) for one in (*ones, other)]
        await asyncio.sleep(0)
        (tmp_path / "a" / "x").write_bytes(b"1")
        await asyncio.gather(*waiting[:3])
        assert not waiting[3].done()
        (tmp_path / "b" / "x").write_bytes(b"1")
        await waiting[3]
        for one in (*ones, other):
            one.close()
        assert changes._watch is None

    play(scenario)


def test_what_is_written_between_two_waits_is_not_missed(tmp_path: Path) -> None:
    async def scenario() -> None:
        changes = LogChanges()
        with changes.follow([tmp_path]) as following:
            await quiet(following)
            (tmp_path / "x").write_bytes(b"1")
            await asyncio.sleep(0.01)  # the loop reads the event, nobody waits
            await following.wait(never(), LONG)
            waiting = asyncio.ensure_future(following.wait(never(), LONG))
            done, _ = await asyncio.wait([waiting], timeout=0.2)
            assert not done, "it was told twice of one write"
            with (tmp_path / "x").open("ab", buffering=0) as file:
                file.write(b"2")
            await waiting

    play(scenario)


def test_directories_made_later_are_watched(tmp_path: Path) -> None:
    async def scenario() -> None:
        changes = LogChanges()
        with changes.follow([tmp_path, tmp_path / "journal"]) as following:
            await quiet(following)
            (tmp_path / "journal").mkdir()
            await following.wait(never(), LONG)
            await quiet(following)
            waiting = asyncio.ensure_future(following.wait(never(), LONG))
            await asyncio.sleep(0)
            (tmp_path / "journal" / "x").write_bytes(b"1")
            await waiting

    play(scenario)


def test_the_end_of_the_container_ends_the_wait(tmp_path: Path) -> None:
    async def scenario() -> None:
        with LogChanges().follow([tmp_path]) as following:
            await quiet(following)
            ended = never()
            waiting = asyncio.ensure_future(following.wait(ended, LONG))
            await asyncio.sleep(0)
            ended.set_result(3)
            await waiting

    play(scenario)


@pytest.mark.parametrize("what", ["instances", "watches"])
def test_where_the_host_allows_no_watch_it_looks_again_and_again(
    tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, f"could not watch (fs.inotify.max_user_{what})")

    if what == "instances":
        monkeypatch.setattr(log_changes, "Watch", refuse)
    else:
        monkeypatch.setattr(log_changes.Watch, "add", refuse)

    async def scenario() -> None:
        changes = LogChanges()
        with changes.follow([tmp_path]) as following:
            await quiet(following)
            for _ in range(3):
                await following.wait(never(), LONG)
        assert changes._watch is None

    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208
    play(scenario)
    assert set(os.listdir("/proc/self/fd")) <= before  # noqa: PTH208
    assert caplog.text.count(f"max_user_{what}") == 1


def test_a_directory_that_is_gone_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()

    async def scenario() -> None:
        changes = LogChanges()
        with changes.follow([tmp_path / "a"]) as following:
            (tmp_path / "a").rmdir()
            await quiet(following)
            await following.wait(never(), 0.01)

    play(scenario)
