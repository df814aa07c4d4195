from typing import Any

import orjson
import pytest

from collector.container import LogSource
from collector.discovery.inspection import (
    container_of_event,
    engine_name,
    parse_event,
    parse_inspect,
    parse_time,
)

ID = "4f" * 32


def answer(**state: Any) -> dict[str, Any]:
    return {
        "Id": ID,
        "Name": "/web",
        "Created": "2026-01-02T03:04:05.5Z",
        "Image": "sha256:12",
        "RestartCount": 2,
        "LogPath": "/var/lib/docker/containers/x/x-json.log",
        "State": {
            "Status": "running",
            "Pid": 77,
            "ExitCode": 0,
            "OOMKilled": False,
            "StartedAt": "2026-01-02T03:04:06Z",
            "FinishedAt": "0001-01-01T00:00:00Z",
            **state,
        },
        "Config": {"Image": "nginx:1", "Labels": {"a": "b"}},
        "HostConfig": {
            "NetworkMode": "default",
            "Memory": 1024,
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}},
        },
        "NetworkSettings": {"Networks": {"bridge": {}, "n2": {}}},
    }


def test_a_privileged_container() -> None:
    told = answer()
    told["HostConfig"]["Privileged"] = True
    assert parse_inspect(told, "docker", "/docker/x").privileged


def test_a_running_container() -> None:
    container = parse_inspect(answer(Health={"Status": "starting"}), "docker", "/docker/x")
    assert (container.id, container.name, container.image, container.image_id) == (
        ID,
        "web",
        "nginx:1",
        "sha256:12",
    )
    assert (container.state, container.pid, container.exit_code) == ("running", 77, None)
    assert (container.created_ns, container.started_ns) == (1767323045_500000000, 1767323046_000000000)
    assert container.finished_ns == 0
    assert (container.network_mode, container.networks) == ("default", ("bridge", "n2"))
    assert (container.restarts, container.health, container.memory_limit_bytes) == (2, "starting", 1024)
    assert not container.privileged
    assert container.log == LogSource(
        "json-file", "/var/lib/docker/containers/x/x-json.log", "", {"max-size": "1m"}
    )


def test_health_is_that_of_a_container_that_runs() -> None:
    """Docker calls every container with a check unhealthy once it has ended."""
    for status, health in (
        ("running", "unhealthy"),
        ("paused", "unhealthy"),
        ("exited", ""),
        ("restarting", ""),
    ):
        body = answer(Status=status, Health={"Status": "unhealthy", "FailingStreak": 0, "Log": []})
        assert parse_inspect(body, "docker").health == health


def test_an_exited_one_has_a_code_and_no_pid() -> None:
    container = parse_inspect(
        answer(Status="exited", Pid=0, ExitCode=137, OOMKilled=True, FinishedAt="2026-01-02T03:05:06Z"),
        "docker",
    )
    assert (container.state, container.pid, container.exit_code) == ("exited", 0, 137)
    assert container.oom_killed
    assert container.finished_ns == 1767323106_000000000


def test_our_engine_tells_its_log_directory() -> None:
    data = answer() | {"Taffrail": {"LogDirectory": "/var/lib/taffrail/x"}}
    assert parse_inspect(data, "taffrail").log.directory == "/var/lib/taffrail/x"


def test_our_engine_tells_the_cgroup_of_one_that_runs() -> None:
    """It is there for a while after the first process has ended."""
    ours = {"Taffrail": {"LogDirectory": "/x", "CgroupPath": "/taffrail/abc"}}
    assert parse_inspect(answer() | ours, "taffrail").cgroup == "/taffrail/abc"
    assert parse_inspect(answer(Status="exited", Pid=0) | ours, "taffrail").cgroup == ""
    assert parse_inspect(answer(), "docker").cgroup == ""


@pytest.mark.parametrize(
    ("state", "word"),
    [
        ({"Status": "configured"}, "created"),
        ({"Status": "stopped"}, "exited"),
        ({"Status": "", "Running": True}, "running"),
        ({"Status": "", "Running": True, "Paused": True}, "paused"),
        ({"Status": ""}, "exited"),
    ],
)
def test_words_of_podman_and_old_engines(state: dict[str, Any], word: str) -> None:
    assert parse_inspect(answer(**state), "podman").state == word


def test_an_answer_without_a_state_is_named() -> None:
    with pytest.raises(ValueError, match=r"inspect answer for 4f4f4f4f4f4f: expected Docker's fields.*State"):
        parse_inspect({"Id": ID}, "docker")


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("", 0),
        ("0001-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:01.000000001Z", 1_000_000_001),
        ("2026-01-02T04:04:05.5+01:00", 1767323045_500000000),
        ("2026-01-01T22:04:05-05:00", 1767323045_000000000),
    ],
)
def test_times(text: str, ns: int) -> None:
    assert parse_time(text) == ns


def test_no_time_is_refused() -> None:
    with pytest.raises(ValueError, match="'yesterday': expected RFC 3339"):
        parse_time("yesterday")


@pytest.mark.parametrize(
    ("version", "name"),
    [
        ({"Platform": {"Name": ""}, "Components": [{"Name": "Engine"}, {"Name": "containerd"}]}, "docker"),
        ({"Platform": {"Name": "Docker Engine - Community"}}, "docker"),
        ({"Components": [{"Name": "Podman Engine"}]}, "podman"),
        ({"Platform": {"Name": "Taffrail"}, "Components": None}, "taffrail"),
    ],
)
def test_which_engine(version: dict[str, Any], name: str) -> None:
    assert engine_name(version) == name


def event(**more: Any) -> bytes:
    return orjson.dumps({"Type": "container", "timeNano": 5, **more})


def test_a_death_has_its_exit_code_and_labels() -> None:
    attributes = {"exitCode": "7", "image": "bb:1", "name": "shorty", "a.b": "c"}
    found = parse_event(event(Action="die", Actor={"ID": ID, "Attributes": attributes}))
    assert found is not None
    assert (found.action, found.container_id, found.exit_code, found.time_ns) == ("die", ID, 7, 5)
    container = container_of_event(found, "docker")
    assert (container.name, container.image, container.labels) == ("shorty", "bb:1", {"a.b": "c"})


def test_health_and_network_events_name_their_container() -> None:
    healthy = parse_event(
        event(Action="health_status: healthy", Actor={"ID": ID, "Attributes": {"name": "w"}})
    )
    assert healthy is not None
    assert healthy.action == "health_status"
    joined = parse_event(
        event(
            Type="network",
            Action="connect",
            Actor={"ID": "net", "Attributes": {"container": ID, "name": "n"}},
        )
    )
    assert joined is not None
    assert (joined.action, joined.container_id, joined.name) == ("connect", ID, "")
    assert parse_event(event(Type="network", Action="create", Actor={"ID": "net"})) is None
    assert parse_event(event(Type="image", Action="pull", Actor={"ID": "x"})) is None


def test_other_text_is_refused() -> None:
    for line in (b"[]", b"{"):
        with pytest.raises(ValueError, match=r"expected a JSON object|unexpected"):
            parse_event(line)
