from dataclasses import replace

import pytest

from collector.container import Container
from collector.discovery.registry import Containers

A, B = "a" * 64, "ab" * 32
SECOND = 10**9


class Clock:
    now = 1000 * SECOND

    def __call__(self) -> int:
        return self.now


def make(identity: str = A, name: str = "web", state: str = "running", **more: object) -> Container:
    return Container(id=identity, name=name, engine="docker", state=state, **more)  # type: ignore[arg-type]


def registry() -> tuple[Containers, Clock, list[tuple[str, str, str]]]:
    clock = Clock()
    containers = Containers(300, clock)
    heard: list[tuple[str, str, str]] = []
    containers.subscribe(lambda event, container: heard.append((event, container.name, container.state)))
    return containers, clock, heard


def test_found_by_id_name_and_unambiguous_prefix() -> None:
    containers, _, _ = registry()
    first, second = make(), make(B, "db")
    containers.update(first)
    containers.update(second)
    for key, found in ((A, first), ("web", first), ("/db", second), ("aa", first), ("abab", second)):
        assert containers.get(key) is found
    assert containers.get("a") is None  # of both
    assert containers.get("") is None
    assert containers.get("other") is None


def test_a_name_of_one_that_ended_goes_before_the_beginning_of_an_id() -> None:
    containers, _, _ = registry()
    containers.update(make(A, "web"))
    containers.update(make(B, "aaa"))
    containers.remove(B, "docker")
    found = containers.get("aaa")
    assert found is not None
    assert found.id == B
    assert containers.exact("aaaa") is None
    assert containers.by_prefix("aaaa") == make(A, "web")


def test_events_tell_of_each_change_once() -> None:
    containers, _, heard = registry()
    containers.update(make())
    containers.update(make())
    containers.update(make(name="web2"))
    containers.remove(A, "podman")  # not podman's to remove
    containers.remove(A, "docker")
    containers.remove(A, "docker")
    assert heard == [
        ("added", "web", "running"),
        ("changed", "web2", "running"),
        ("removed", "web2", "exited"),
    ]
    assert containers.all() == ()


def test_a_renamed_container_leaves_its_name() -> None:
    containers, _, _ = registry()
    containers.update(make())
    containers.update(make(name="web2"))
    assert containers.get("web") is None
    containers.update(make(B, "web"))
    found = containers.get("web")
    assert found is not None
    assert found.id == B


def test_a_tombstone_lasts_five_minutes_and_keeps_the_exit_code() -> None:
    containers, clock, _ = registry()
    containers.update(make(pid=5))
    containers.update(make(state="exited", exit_code=7))
    (stone,) = containers.tombstones()
    assert (stone.ended_ns, stone.removed, stone.container.exit_code) == (1000 * SECOND, False, 7)
    clock.now += 10 * SECOND
    containers.remove(A, "docker")
    (stone,) = containers.tombstones()
    assert (stone.ended_ns, stone.removed) == (1000 * SECOND, True)
    found = containers.get("web")
    assert found is not None
    assert found.exit_code == 7
    clock.now += 291 * SECOND
    assert containers.tombstones() == ()
    assert containers.get("web") is None


def test_an_exited_container_stays_known_after_its_tombstone() -> None:
    containers, clock, _ = registry()
    containers.update(make())
    containers.update(make(state="exited", exit_code=1))
    clock.now += 301 * SECOND
    assert containers.tombstones() == ()
    assert [container.state for container in containers.all()] == ["exited"]


def test_one_that_starts_again_has_no_tombstone() -> None:
    containers, _, _ = registry()
    containers.update(make())
    containers.update(make(state="exited", exit_code=1))
    containers.update(make(restarts=1))
    assert containers.tombstones() == ()


def test_one_removed_while_running_is_told_as_exited() -> None:
    containers, _, heard = registry()
    containers.update(make(pid=5))
    containers.remove(A, "docker")
    assert heard[-1] == ("removed", "web", "exited")
    assert containers.tombstones()[0].container.pid == 0


def test_one_never_started_leaves_nothing() -> None:
    containers, _, _ = registry()
    containers.update(make(state="created"))
    containers.remove(A, "docker")
    assert containers.tombstones() == ()


@pytest.mark.parametrize(("ago", "stones"), [(10, 1), (400, 0)])
def test_one_first_seen_exited_is_a_tombstone_only_if_it_ended_lately(ago: int, stones: int) -> None:
    containers, clock, _ = registry()
    containers.update(make(state="exited", exit_code=0, finished_ns=clock.now - ago * SECOND))
    assert len(containers.tombstones()) == stones


def test_a_failing_subscriber_does_not_silence_the_others(caplog: pytest.LogCaptureFixture) -> None:
    containers, _, _ = registry()

    def fail(event: str, container: Container) -> None:
        raise RuntimeError("broken")

    later: list[str] = []
    containers.subscribe(fail)
    end = containers.subscribe(lambda event, container: later.append(event))
    containers.update(make())
    end()
    containers.update(replace(make(), pid=3))
    assert later == ["added"]
    assert "a subscriber failed on added of container web" in caplog.text


def test_an_offer_does_not_change_what_an_api_told() -> None:
    containers = Containers()
    heard: list[tuple[str, str]] = []
    containers.subscribe(lambda event, c: heard.append((event, c.name)))
    assert containers.offer(Container("1" * 64, "guess", engine="docker"))
    assert containers.offered("1" * 64)
    containers.update(Container("1" * 64, "told", engine="docker"))
    assert not containers.offered("1" * 64)
    assert not containers.offer(Container("1" * 64, "guess", engine="docker"))
    assert heard == [("added", "guess"), ("changed", "told")]
    containers.remove("1" * 64, "docker")
    assert containers.offer(Container("1" * 64, "again", engine="docker"))


def test_bare_cgroups_are_apart() -> None:
    containers = Containers()
    heard: list[str] = []
    every: list[tuple[str, str]] = []
    containers.subscribe(lambda event, c: heard.append(c.id))
    end = containers.subscribe(lambda event, c: every.append((event, c.id)), cgroups=True)
    ssh = Container("/system.slice/ssh.service", "", cgroup="/system.slice/ssh.service")
    assert containers.offer(ssh)
    assert containers.offer(ssh)
    assert (containers.all(), containers.cgroups()) == ((), (ssh,))
    assert containers.get(ssh.id) is ssh
    assert containers.get("") is None
    containers.remove(ssh.id, "")
    assert (containers.cgroups(), containers.tombstones(), heard) == ((), (), [])
    assert every == [("added", ssh.id), ("removed", ssh.id)]
    end()
    containers.offer(ssh)
    assert len(every) == 2
