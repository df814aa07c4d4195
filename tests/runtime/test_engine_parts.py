"""The engine's pure parts: restart rules, events, state on disk, signals, times, names, statistics, routes."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from runtime.api.absent import routes as absent_routes
from runtime.api.attach import EscapeKeys
from runtime.api.listing import status_text
from runtime.api.routing import Router
from runtime.api.server import RESOURCES
from runtime.api.times import parse_time, rfc3339
from runtime.config import RestartPolicy as Asked
from runtime.containers import check_name, new_id
from runtime.errors import BadRequest, NotFound
from runtime.events import QUEUE, EventBus, Filters
from runtime.processes import select_rows
from runtime.restart import RestartPolicy, next_delay
from runtime.signals import parse_signal
from runtime.state import ContainerDirectories, EngineLock, Locked, State, Status
from runtime.stats import Block, Interface, Moment, Reading, render, system_cpu_ns

SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("name", "maximum", "code", "restarts", "by_user", "again"),
    [
        ("no", 0, 1, 0, False, False),
        ("always", 0, 0, 99, False, True),
        ("always", 0, 1, 0, True, False),
        ("unless-stopped", 0, 0, 0, False, True),
        ("on-failure", 0, 0, 0, False, False),
        ("on-failure", 0, 1, 99, False, True),
        ("on-failure", 3, 1, 2, False, True),
        ("on-failure", 3, 1, 3, False, False),
    ],
)
def test_restart_rules(name: str, maximum: int, code: int, restarts: int, by_user: bool, again: bool) -> None:
    assert RestartPolicy(name, maximum).again(code, restarts, by_user) is again


def test_restart_delays_double_to_a_minute_and_start_again_after_a_long_run() -> None:
    delay, seen = 0.0, []
    for _ in range(12):
        delay = next_delay(delay, 0)
        seen.append(delay)
    assert seen[:3] == [0.1, 0.2, 0.4]
    assert seen[-1] == 60.0
    assert next_delay(60.0, 10 * SECOND) == 0.1


@pytest.mark.parametrize("asked", [Asked("sometimes"), Asked("always", 3), Asked("on-failure", -1)])
def test_impossible_restart_policies_are_refused(asked: Asked) -> None:
    with pytest.raises(BadRequest, match="invalid restart policy"):
        RestartPolicy.of(asked)


def test_events_reach_those_who_asked_and_a_slow_reader_loses_the_oldest() -> None:
    async def run() -> None:
        bus = EventBus()
        with bus.subscribe(Filters({"event": ["die"], "label": ["tier=web"]})) as wanted:
            bus.publish("container", "start", "a" * 64, {"tier": "web"})
            bus.publish("container", "die", "a" * 64, {"tier": "db"})
            hit = bus.publish("container", "die", "a" * 64, {"tier": "web", "name": "n"})
            assert await wanted.next() == hit
        with bus.subscribe(Filters({})) as slow:
            for _ in range(QUEUE + 5):
                bus.publish("image", "tag", "i", {})
            assert slow.lost == 5
        assert bus.lost == 5
        assert bus.history(hit.time_ns, hit.time_ns, Filters({"container": ["aaaa"]})) == []

    asyncio.run(run())


def test_state_survives_and_leftovers_of_a_killed_engine_are_swept(tmp_path: Path) -> None:
    directories = ContainerDirectories(tmp_path / "c")
    directories.create("one", {"id": "one"})
    state = State(status=Status.RUNNING, pid=5, started_ns=7, restarts=2)
    directories.save_state("one", state)
    (tmp_path / "c" / "half").mkdir()
    assert [(name, body, found) for name, body, found in directories.load()] == [
        ("one", {"id": "one"}, state)
    ]
    assert not (tmp_path / "c" / "half").exists()
    (tmp_path / "c" / "one" / "state.json").write_text('{"status": "running", "of_a_later_version": 1}')
    assert next(iter(directories.load()))[2].status is Status.RUNNING
    directories.remove("one")
    assert list(directories.load()) == []


def test_one_lock_per_directory(tmp_path: Path) -> None:
    first, second = EngineLock(tmp_path), EngineLock(tmp_path)
    first.acquire()
    with pytest.raises(Locked, match=str(tmp_path)):
        second.acquire()
    first.release()
    second.acquire()
    second.release()


@pytest.mark.parametrize(
    ("text", "number"),
    [("9", 9), ("KILL", 9), ("sigterm", 15), ("RTMIN+3", signal.SIGRTMIN + 3)],
)
def test_signals(text: str, number: int) -> None:
    assert parse_signal(text) == number


@pytest.mark.parametrize("text", ["", "0", "65", "NOSUCH", "RTMIN+99"])
def test_wrong_signals_are_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="invalid signal"):
        parse_signal(text)


def test_times() -> None:
    assert parse_time("1700000000.5", "since") == 1_700_000_000_500_000_000
    assert parse_time("2023-11-14T22:13:20.000000001Z", "since") == 1_700_000_000_000_000_001
    assert parse_time("", "since") == 0
    assert rfc3339(1_700_000_000_500_000_000) == "2023-11-14T22:13:20.5Z"
    assert rfc3339(0) == "0001-01-01T00:00:00Z"
    with pytest.raises(BadRequest, match="parameter since"):
        parse_time("yesterday", "since")


@pytest.mark.parametrize("name", ["", "-a", "a b", "a/b", "a\n"])
def test_wrong_names_are_refused(name: str) -> None:
    with pytest.raises(BadRequest, match="Invalid container name"):
        check_name(name)


def test_ids_are_hexadecimal_and_never_a_number() -> None:
    ids = {new_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(len(i) == 64 and not i[:12].isdigit() and int(i, 16) >= 0 for i in ids)


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (State(), "Created"),
        (State(Status.RUNNING, started_ns=95 * SECOND), "Up 5 seconds"),
        (State(Status.PAUSED, started_ns=10 * SECOND), "Up About a minute (Paused)"),
        (State(Status.EXITED, exit_code=137, finished_ns=99 * SECOND), "Exited (137) 1 second ago"),
        (
            State(Status.RESTARTING, exit_code=1, finished_ns=100 * SECOND),
            "Restarting (1) Less than a second ago",
        ),
    ],
)
def test_status_texts(state: State, text: str) -> None:
    assert status_text(state, 100 * SECOND) == text


def test_ps_rows_are_those_of_the_container() -> None:
    output = "UID PID CMD\nroot 1 init\nroot 42 sh -c a b\nroot 43 sleep 1\n"
    assert select_rows(output, {42}) == (["UID", "PID", "CMD"], [["root", "42", "sh -c a b"]])
    with pytest.raises(BadRequest, match="PID"):
        select_rows("UID CMD\n", {1})


def test_detach_keys_are_found_across_reads_and_else_passed_on() -> None:
    keys = EscapeKeys("ctrl-p,ctrl-q")
    assert keys.feed(b"ab\x10") == b"ab"
    assert keys.feed(b"c\x10\x10") == b"\x10c\x10"
    assert not keys.seen
    assert keys.feed(b"\x11rest") == b""
    assert keys.seen
    with pytest.raises(BadRequest, match="nokey"):
        EscapeKeys("nokey")


def moment(cgroup_version: int, total_ns: int, system_ns: int) -> Moment:
    reading = Reading(
        time_ns=1_700_000_000 * SECOND,
        cgroup_version=cgroup_version,
        cpu_total_ns=total_ns,
        memory_usage=50,
        memory_limit=200,
        memory_stat={"inactive_file": 10},
        blocks=(Block(8, 0, 100, 200, 1, 2),),
        pids=3,
        interfaces={"eth0": Interface(rx_bytes=7)},
    )
    return Moment(reading, system_ns, 2)


@pytest.mark.parametrize(("version", "read"), [(1, "Read"), (2, "read")])
def test_stats_have_the_words_of_their_cgroup_version(version: int, read: str) -> None:
    before, now = moment(version, 0, 0), moment(version, SECOND, 2 * SECOND)
    body = render("id", "/n", now, before, 1000)
    table = body["blkio_stats"]["io_service_bytes_recursive"]
    assert table[0] == {"major": 8, "minor": 0, "op": read, "value": 100}
    assert body["networks"]["eth0"]["rx_bytes"] == 7
    assert body["memory_stats"] == {"usage": 50, "stats": {"inactive_file": 10}, "limit": 200}
    used = body["cpu_stats"]["cpu_usage"]["total_usage"] - body["precpu_stats"]["cpu_usage"]["total_usage"]
    host = body["cpu_stats"]["system_cpu_usage"] - body["precpu_stats"]["system_cpu_usage"]
    assert used / host * body["cpu_stats"]["online_cpus"] * 100 == 100


def test_no_limit_shows_the_machine() -> None:
    reading = Reading(time_ns=1, cgroup_version=2, memory_usage=1)
    assert render("id", "/n", Moment(reading, 0, 1), None, 1000)["memory_stats"]["limit"] == 1000


def test_system_cpu_leaves_guest_time_out() -> None:
    assert system_cpu_ns("cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 0\n") == 28 * 10_000_000
    with pytest.raises(ValueError, match="/proc/stat"):
        system_cpu_ns("intr 1\n")


def test_every_route_is_reached_by_its_own_path() -> None:
    """A pattern must not hide a literal path, and an absent operation must not hide a served one."""
    router = Router(module.routes for module in RESOURCES)
    for module in RESOURCES:
        for route in module.routes.routes:
            path = route.path.replace("{name:path}", "a/b").replace("{name}", "a").replace("{id}", "a")
            path = path.replace("{action}", "init")
            found, _, _ = router.resolve(route.method, f"/v1.44{path}")
            assert found is route, (route.path, found.path)
    served = {(r.method, r.path) for m in RESOURCES if m.routes is not absent_routes for r in m.routes.routes}
    assert not served & {(r.method, r.path) for r in absent_routes.routes}
    with pytest.raises(NotFound, match="page not found"):
        router.resolve("GET", "/containers/a/b/c")
