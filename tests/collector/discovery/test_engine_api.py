"""Discovery on a real Docker Engine, and on a socket that answers badly."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web

from collector.container import Container
from collector.discovery.engine_api import EngineDiscovery
from collector.discovery.registry import Containers
from collector.sampler import Sampler


class Following:
    """A registry that follows an engine, and the events it told."""

    def __init__(self, socket: Path) -> None:
        self.containers = Containers()
        self.discovery = EngineDiscovery(socket, self.containers, max_wait=0.2)
        self.heard: list[tuple[str, str, str]] = []
        self.containers.subscribe(lambda event, c: self.heard.append((event, c.name, c.state)))

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(200):
            while not condition():
                await asyncio.sleep(0.01)

    def named(self, name: str) -> Container:
        found = self.containers.get(name)
        assert found is not None
        return found


@contextlib.asynccontextmanager
async def following(socket: Path) -> AsyncIterator[Following]:
    follow = Following(socket)
    task = asyncio.create_task(follow.discovery.run())
    try:
        # One that hangs up is connected for a moment only.
        await follow.until(lambda: follow.discovery.connections)
        yield follow
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def run(dockerd: Any, name: str, *more: str) -> str:
    return str(dockerd.docker("run", "-d", "--network", "none", "--name", name, *more).stdout.strip())


def test_the_life_of_a_container(dockerd: Any) -> None:
    async def scenario() -> None:
        run(
            dockerd, "before", "-l", "a.b=c", "-m", "64m", "--log-opt", "max-size=1m", "bb:1", "sleep", "1000"
        )
        async with following(dockerd.socket) as follow:
            assert follow.discovery.engine == "docker"
            before = follow.named("before")
            assert (before.state, before.image, before.network_mode) == ("running", "bb:1", "none")
            assert before.cgroup == f"/docker/{before.id}"
            comm = Path(f"/proc/{before.pid}/comm")  # for a moment its runtime's
            await follow.until(lambda: comm.read_text() == "sleep\n")
            assert (before.labels, before.memory_limit_bytes) == ({"a.b": "c"}, 64 << 20)
            assert before.log.driver == "json-file"
            assert before.log.options == {"max-size": "1m"}
            assert Path(before.log.path).exists()
            identity = await asyncio.to_thread(run, dockerd, "later", "bb:1", "sleep", "1000")
            await follow.until(lambda: follow.containers.get(identity))
            await follow.until(lambda: follow.named("later").state == "running")
            for command, state in (("pause", "paused"), ("unpause", "running"), ("kill", "exited")):
                await asyncio.to_thread(dockerd.docker, command, "later")
                await follow.until(lambda state=state: follow.named("later").state == state)
            assert (follow.named("later").exit_code, follow.named("later").pid) == (137, 0)
            await asyncio.to_thread(dockerd.docker, "start", "later")
            await follow.until(lambda: follow.named("later").state == "running")
            assert follow.named("later").exit_code is None
            await asyncio.to_thread(dockerd.docker, "rename", "later", "renamed")
            await follow.until(lambda: follow.named(identity).name == "renamed")
            await asyncio.to_thread(dockerd.docker, "rm", "-f", "renamed")
            await follow.until(lambda: ("removed", "renamed", "exited") in follow.heard)
            assert [container.name for container in follow.containers.all()] == ["before"]

    asyncio.run(scenario())


def test_a_container_of_a_moment_is_known_with_its_exit_code_and_its_cpu(
    dockerd: Any, tmp_path: Path
) -> None:
    """Its moment is after it was heard of, which on a busy host takes longer."""

    async def scenario() -> None:
        async with following(dockerd.socket) as follow:
            sampler = Sampler(follow.containers, interval=3600)
            sampling = asyncio.create_task(sampler.run())
            loop = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"
            burn = f"until [ -e /go/now ]; do sleep 0.02; done; {loop}; exit 7"
            options = ("run", "--rm", "--network", "none", "--name", "brief", "-v", f"{tmp_path}:/go")
            running = asyncio.create_task(
                asyncio.to_thread(dockerd.docker, *options, "bb:1", "sh", "-c", burn, check=False)
            )
            try:
                await follow.until(
                    lambda: (found := follow.containers.get("brief")) and sampler.latest(found.id)
                )
            finally:
                (tmp_path / "now").touch()
                await running
            await follow.until(lambda: ("removed", "brief", "exited") in follow.heard)
            brief = follow.named("brief")
            assert (brief.exit_code, brief.state, brief.image) == (7, "exited", "bb:1")
            assert brief.started_ns < brief.finished_ns
            sample = sampler.latest(brief.id)
            assert sample is not None
            assert sample.cpu is not None
            assert sample.cpu.usage_seconds > 0.01
            sampling.cancel()
            await asyncio.gather(sampling, return_exceptions=True)
            sampler.close()

    asyncio.run(scenario())


def test_restarts_and_health(dockerd: Any) -> None:
    async def scenario() -> None:
        async with following(dockerd.socket) as follow:
            await asyncio.to_thread(
                run, dockerd, "again", "--restart", "on-failure:2", "bb:1", "sh", "-c", "exit 1"
            )
            await follow.until(
                lambda: (
                    (found := follow.containers.get("again"))
                    and (found.restarts, found.state) == (2, "exited")
                )
            )
            health = ("--health-cmd", "true", "--health-interval", "200ms")
            await asyncio.to_thread(run, dockerd, "well", *health, "bb:1", "sleep", "1000")
            await follow.until(
                lambda: (found := follow.containers.get("well")) is not None and found.health == "healthy"
            )

    asyncio.run(scenario())


def test_an_oom_kill_is_known_by_engine_and_kernel(dockerd: Any) -> None:
    async def scenario() -> None:
        async with following(dockerd.socket) as follow:
            sampler = Sampler(follow.containers)
            sampling = asyncio.create_task(sampler.run())
            eat = "a=x; while true; do a=$a$a; done"
            await asyncio.to_thread(
                run, dockerd, "eater", "-m", "20m", "--memory-swap", "20m", "bb:1", "sh", "-c", eat
            )
            await follow.until(
                lambda: (
                    (found := follow.containers.get("eater")) is not None
                    and found.oom_killed
                    and not found.pid
                )
            )
            sample = sampler.latest(follow.named("eater").id)
            assert sample is not None
            assert sample.memory is not None
            assert (sample.memory.oom_kills, follow.named("eater").exit_code) == (1, 137)
            sampling.cancel()
            await asyncio.gather(sampling, return_exceptions=True)
            sampler.close()

    asyncio.run(scenario())


def test_what_happens_while_the_engine_is_away_is_made_up_for(dockerd: Any) -> None:
    async def scenario() -> None:
        run(dockerd, "stays", "bb:1", "sleep", "1000")
        async with following(dockerd.socket) as follow:
            pid = follow.named("stays").pid
            await asyncio.to_thread(dockerd.stop)
            await follow.until(lambda: not follow.discovery.connected)
            assert follow.named("stays").pid == pid  # it runs on, and is known on
            await asyncio.to_thread(dockerd.start)
            await asyncio.to_thread(dockerd.docker, "rm", "-f", "stays")
            await follow.until(lambda: not follow.containers.all())
            await follow.until(lambda: follow.discovery.connections >= 2)
            assert follow.discovery.failures["connect"] >= 1

    asyncio.run(scenario())


@contextlib.asynccontextmanager
async def pretended(**answers: Any) -> AsyncIterator[Path]:
    """A socket with an engine of ours to make mistakes a real one cannot be made to make."""
    app = web.Application()

    async def version(request: web.Request) -> web.Response:
        return web.json_response({"Platform": {"Name": "Taffrail"}})

    async def listed(request: web.Request) -> web.Response:
        return web.json_response(answers.get("list", []))

    async def inspect(request: web.Request) -> web.Response:
        answer = answers["inspect"].get(request.match_info["id"])
        return web.json_response(answer) if answer else web.json_response({"message": "no"}, status=404)

    async def events(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for piece in answers.get("events", ()):
            await response.write(piece)
        await asyncio.sleep(0 if answers.get("hang_up") else 3600)
        return response

    app.router.add_get("/version", version)
    app.router.add_get("/containers/json", listed)
    app.router.add_get("/containers/{id}/json", inspect)
    app.router.add_get("/events", events)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="tfe") as directory:
        socket = Path(directory) / "s"
        await web.UnixSite(runner, str(socket)).start()
        try:
            yield socket
        finally:
            await runner.cleanup()


def test_bad_answers_are_counted_and_cost_the_others_nothing() -> None:
    good = {"Id": "1" * 64, "Name": "/good", "State": {"Status": "exited", "ExitCode": 1}}
    die = b'{"Type":"container","Action":"die","Actor":{"ID":"%s","Attributes":{"name":"gone","exitCode":"9"}}}\n'

    async def scenario() -> None:
        answers = {
            "list": [{"Id": "0" * 64}, {"Id": "1" * 64}, {"Id": "2" * 64}],
            "inspect": {"0" * 64: {"Id": "0" * 64}, "1" * 64: good},
            "events": [b"nonsense\n", die[:30], die[30:] % (b"3" * 64)],  # one event in two pieces
        }
        async with pretended(**answers) as socket, following(socket) as follow:
            await follow.until(lambda: follow.containers.get("gone"))
            assert follow.discovery.engine == "taffrail"
            assert (follow.named("gone").exit_code, follow.named("good").exit_code) == (9, 1)
            assert follow.discovery.failures == {"inspect": 1, "event": 1}

    asyncio.run(scenario())


def event(action: str, second: float, **attributes: str) -> bytes:
    actor = {"ID": "5" * 64, "Attributes": {"name": "web", "image": "i", **attributes}}
    return (
        orjson.dumps({"Type": "container", "Action": action, "timeNano": int(second * 1e9), "Actor": actor})
        + b"\n"
    )


def test_the_end_of_a_run_is_that_runs_though_the_engine_answers_of_a_later_one() -> None:
    """By the time of the first inspect the container is in its third run."""
    state = {"Status": "running", "Running": True, "Pid": 99_999_999, "StartedAt": "1970-01-01T00:00:30Z"}
    third = {"Id": "5" * 64, "Name": "/web", "RestartCount": 2, "State": state}
    told = [
        event("start", 10.1),
        event("oom", 11),
        event("die", 12, exitCode="137"),
        event("start", 20.1),
        event("die", 22, exitCode="3"),
        event("start", 30.1),
        event("oom", 31),
        event("die", 32, exitCode="137"),
        event("destroy", 33),
    ]

    async def scenario() -> None:
        async with pretended(inspect={"5" * 64: third}, events=told) as socket:
            containers = Containers()
            ends: list[Container] = []
            containers.subscribe(lambda _, one: ends.append(one) if one.state == "exited" else None)
            discovery = EngineDiscovery(socket, containers)
            task = asyncio.create_task(discovery.run())
            async with asyncio.timeout(200):
                while discovery.events < len(told) or not ends or containers.all():
                    await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert [(one.started_ns, one.finished_ns, one.exit_code, one.oom_killed) for one in ends[:3]] == [
                (10_100_000_000, 12_000_000_000, 137, True),
                (20_100_000_000, 22_000_000_000, 3, False),
                (30_000_000_000, 32_000_000_000, 137, True),
            ]

    asyncio.run(scenario())


def test_an_end_before_its_own_start_is_that_runs() -> None:
    """The clock was set back while it ran."""
    begun = 4_102_444_800
    state = {"Status": "running", "Running": True, "Pid": 99_999_999, "StartedAt": "2100-01-01T00:00:00Z"}
    first = {"Id": "5" * 64, "Name": "/web", "State": state}
    told = [event("start", begun + 0.1), event("oom", 11), event("die", 12, exitCode="137")]

    async def scenario() -> None:
        async with pretended(inspect={"5" * 64: first}, events=told) as socket:
            containers = Containers()
            ends: list[Container] = []
            containers.subscribe(lambda _, one: ends.append(one) if one.state == "exited" else None)
            discovery = EngineDiscovery(socket, containers)
            task = asyncio.create_task(discovery.run())
            async with asyncio.timeout(200):
                while not ends:
                    await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert [(one.started_ns, one.finished_ns, one.exit_code, one.oom_killed) for one in ends[:1]] == [
                (begun * 10**9, 12 * 10**9, 137, True)
            ]

    asyncio.run(scenario())


def test_the_last_event_that_is_told_again_after_a_break_is_no_other_end() -> None:
    """``since`` brings it, and by then the container is in its next run."""
    state = {"Status": "running", "Running": True, "Pid": 99_999_999, "StartedAt": "1970-01-01T00:00:30Z"}
    following_run = {"Id": "5" * 64, "Name": "/web", "State": state}
    died = event("die", 12, exitCode="137")
    told = [event("start", 10.1), died, died, event("die", 32, exitCode="3"), event("destroy", 33)]

    async def scenario() -> None:
        async with pretended(inspect={"5" * 64: following_run}, events=told) as socket:
            containers = Containers()
            ends: list[Container] = []
            containers.subscribe(lambda _, one: ends.append(one) if one.state == "exited" else None)
            discovery = EngineDiscovery(socket, containers)
            task = asyncio.create_task(discovery.run())
            async with asyncio.timeout(200):
                while not ends or containers.all():
                    await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert [one.exit_code for one in ends if one.finished_ns == 12 * 10**9] == [137]

    asyncio.run(scenario())


def test_an_engine_that_hangs_up_is_followed_again() -> None:
    async def scenario() -> None:
        async with pretended(inspect={}, hang_up=True) as socket, following(socket) as follow:
            await follow.until(lambda: follow.discovery.connections >= 3)

    asyncio.run(scenario())


def test_an_engine_that_is_not_there_yet_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        with tempfile.TemporaryDirectory(dir="/tmp", prefix="tfe") as directory:
            wanted = Path(directory) / "run" / "s"
            follow = Following(wanted)
            task = asyncio.create_task(follow.discovery.run())
            await follow.until(lambda: follow.discovery.failures.get("connect") == 1)
            assert follow.discovery.absent
            async with pretended(inspect={}) as socket:
                wanted.parent.mkdir()
                await asyncio.sleep(0)
                wanted.symlink_to(socket)
                await follow.until(lambda: follow.discovery.connected)
            assert not follow.discovery.absent
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    caplog.set_level("INFO")
    asyncio.run(scenario())
    assert caplog.text.count("no engine at") == 1  # nobody tries where there is no socket


def test_two_engines_of_a_kind_leave_each_others_containers_alone() -> None:
    known = [
        {"Id": digit * 64, "Name": f"/{digit}", "State": {"Status": "exited", "ExitCode": 0}}
        for digit in "12"
    ]

    async def scenario() -> None:
        async with (
            pretended(list=known[:1], inspect={"1" * 64: known[0]}) as one,
            pretended(list=known[1:], inspect={"2" * 64: known[1]}, hang_up=True) as other,
            following(one) as follow,
        ):
            second = EngineDiscovery(other, follow.containers, max_wait=0.2)
            task = asyncio.create_task(second.run())
            await follow.until(lambda: second.connections >= 3)
            assert {container.name for container in follow.containers.all()} == {"1", "2"}
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scenario())
