"""The protocol as a Docker Engine speaks it, repeated and broken requests included."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from logdrivers.block import Stream
from logdrivers.plugin.frames import decode, encode
from logdrivers.plugin.server import PluginServer
from logdrivers.plugin.service import InUse, PluginService

T = 1_795_203_851_793_123_456
ID = "cd" * 32


class Engine:
    """What dockerd does for one container."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.socket = root / "p.sock"
        self.sent = 0
        self.server = self.make()

    def make(self) -> PluginServer:
        return PluginServer(PluginService(self.root / "state", self.root / "run"), self.socket)

    def open(self, name: str) -> int:
        os.mkfifo(self.root / name)
        return os.open(self.root / name, os.O_RDWR | os.O_NONBLOCK)

    def write(self, writer: int, count: int = 1) -> None:
        for n in range(self.sent, self.sent + count):
            os.write(writer, encode(Stream.STDOUT, T + n, b"line %d" % n))
        self.sent += count

    async def ask(self, method: str, body: dict[str, Any] | None = None) -> tuple[int, bytes]:
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self.socket))) as session,
            session.post(
                f"http://plugin/{method}", data=json.dumps(body) if body is not None else b""
            ) as answer,
        ):
            return answer.status, await answer.read()

    async def start(self, fifo: str, **options: str) -> Any:
        body = {"File": str(self.root / fifo), "Info": {"ContainerID": ID, "Config": options}}
        return json.loads((await self.ask("LogDriver.StartLogging", body))[1])["Err"]

    async def stop(self, fifo: str) -> Any:
        return json.loads((await self.ask("LogDriver.StopLogging", {"File": str(self.root / fifo)}))[1])[
            "Err"
        ]

    async def logs(self, **config: Any) -> list[bytes]:
        body = {"Info": {"ContainerID": ID, "Config": {}}, "Config": config}
        return decode((await self.ask("LogDriver.ReadLogs", body))[1]).lines

    def lines(self) -> list[bytes]:
        return [b"line %d\n" % n for n in range(self.sent)]


@asynccontextmanager
async def serving() -> AsyncIterator[Engine]:
    root = Path(tempfile.mkdtemp(dir="/tmp"))
    engine = Engine(root)
    await engine.server.start()
    try:
        yield engine
    finally:
        await engine.server.stop()
        shutil.rmtree(root)


def run(test: Callable[[Engine], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with asyncio.timeout(100), serving() as engine:
            await test(engine)

    asyncio.run(whole())


def test_what_the_plugin_is_and_can() -> None:
    async def test(engine: Engine) -> None:
        assert await engine.ask("Plugin.Activate") == (200, b'{"Implements":["LogDriver"]}')
        assert await engine.ask("LogDriver.Capabilities") == (200, b'{"Cap":{"ReadLogs":true}}')

    run(test)


def test_a_repeated_start_changes_nothing_and_one_with_another_fifo_goes_on_there() -> None:
    async def test(engine: Engine) -> None:
        first = engine.open("a")
        assert await engine.start("a") == ""
        engine.write(first, 3)
        assert await engine.start("a") == ""
        engine.write(first, 3)
        second = engine.open("b")
        assert await engine.start("b") == ""
        engine.write(second, 3)
        assert await engine.logs() == engine.lines()
        assert await engine.stop("a") == ""  # long over
        engine.write(second, 3)
        assert await engine.stop("b") == ""
        assert await engine.logs() == engine.lines()
        assert await engine.logs(Tail=2) == engine.lines()[-2:]
        os.close(first)
        os.close(second)

    run(test)


def test_a_stop_that_is_repeated_without_its_body_is_answered_when_all_is_on_disk() -> None:
    async def test(engine: Engine) -> None:
        writer = engine.open("a")
        assert await engine.start("a") == ""
        engine.write(writer, 100)
        assert await engine.ask("LogDriver.StopLogging") == (200, b'{"Err":""}')
        os.close(writer)
        (engine.root / "a").unlink()
        assert await engine.logs(Follow=True) == engine.lines()  # ends, for the FIFO has ended

    run(test)


def test_a_start_without_its_body_is_refused_in_words() -> None:
    async def test(engine: Engine) -> None:
        status, answer = await engine.ask("LogDriver.StartLogging")
        assert (status, b"try again" in answer) == (200, True)
        assert (
            "expected the path of a FIFO"
            in json.loads((await engine.ask("LogDriver.StartLogging", {"Info": {}}))[1])["Err"]
        )
        assert "No such file" in await engine.start("missing")

    run(test)


def test_a_fifo_is_taken_up_again_by_the_next_plugin() -> None:
    async def test(engine: Engine) -> None:
        writer = engine.open("a")
        assert await engine.start("a", sink="local") == ""
        engine.write(writer, 10)
        await engine.server.stop()
        engine.write(writer, 10)
        engine.server = engine.make()
        await engine.server.start()
        engine.write(writer, 10)
        assert await engine.stop("a") == ""
        assert await engine.logs() == engine.lines()
        os.close(writer)

    run(test)


def test_nothing_can_be_read_of_the_sink_none() -> None:
    async def test(engine: Engine) -> None:
        writer = engine.open("a")
        assert await engine.start("a", sink="none") == ""
        engine.write(writer, 10)
        assert await engine.stop("a") == ""
        body = {"Info": {"ContainerID": ID, "Config": {"sink": "none"}}, "Config": {}}
        status, answer = await engine.ask("LogDriver.ReadLogs", body)
        assert (status, answer) == (500, b'{"Err":"configured logging driver does not support reading"}')
        os.close(writer)

    run(test)


def test_two_plugins_do_not_share_a_socket_or_a_state() -> None:
    async def test(engine: Engine) -> None:
        with pytest.raises(InUse, match=r"listens on .*p\.sock"):
            await engine.make().start()
        other = PluginServer(
            PluginService(engine.root / "state", engine.root / "run"), engine.root / "q.sock"
        )
        with pytest.raises(InUse, match=r"uses .*state"):
            await other.start()

    run(test)
