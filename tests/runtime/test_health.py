"""What follows from a probe's result, and the words of it, without a container."""

from __future__ import annotations

import json
from typing import Any

import pytest

from runtime.config import ContainerConfig
from runtime.errors import BadRequest
from runtime.health import HEALTHY, STARTING, UNHEALTHY, Check, Health, Result, check_durations, duration_text

SECOND = 1_000_000_000
STARTED = 1_000 * SECOND


def config(**check: Any) -> ContainerConfig:
    return ContainerConfig.from_api({"Image": "x", "Healthcheck": check})


def check(**more: Any) -> Check:
    found = Check.of(config(Test=["CMD", "true"], **more))
    assert found is not None
    return found


def result(code: int, after_s: float = 100) -> Result:
    at = STARTED + int(after_s * SECOND)
    return Result(at, at + 5, code, f"{after_s:g}")


def test_defaults_are_dockers() -> None:
    found = check()
    assert found == Check(("true",), 30 * SECOND, 30 * SECOND, 0, 5 * SECOND, 3)


@pytest.mark.parametrize(
    ("test", "command"),
    [
        (["CMD", "wget", "-q", "x"], ("wget", "-q", "x")),
        (["CMD-SHELL", "a | b"], ("/bin/sh", "-c", "a | b")),
        (["CMD"], ()),
    ],
)
def test_command(test: list[str], command: tuple[str, ...]) -> None:
    found = Check.of(config(Test=test))
    assert found is not None
    assert found.command == command


@pytest.mark.parametrize("test", [["NONE"], [], ["WHAT", "x"]])
def test_no_check(test: list[str]) -> None:
    assert Check.of(config(Test=test, Interval=SECOND)) is None


def test_the_shell_is_the_containers() -> None:
    body = {"Image": "x", "Shell": ["/bin/ash", "-ec"], "Healthcheck": {"Test": ["CMD-SHELL", "a"]}}
    found = Check.of(ContainerConfig.from_api(body))
    assert found is not None
    assert found.command == ("/bin/ash", "-ec", "a")


@pytest.mark.parametrize("name", ["Interval", "Timeout", "StartPeriod", "StartInterval"])
@pytest.mark.parametrize("value", [1, 999_999, -SECOND])
def test_durations_below_a_millisecond_are_refused(name: str, value: int) -> None:
    with pytest.raises(BadRequest, match=f"^{name} in Healthcheck cannot be less than 1ms$"):
        check_durations(config(Test=["CMD", "true"], **{name: value}).healthcheck)
    check_durations(config(Test=["CMD", "true"], **{name: 1_000_000}).healthcheck)


def test_negative_retries_are_refused() -> None:
    with pytest.raises(BadRequest, match=r"^Retries in Healthcheck cannot be negative$"):
        check_durations(config(Test=["CMD", "true"], Retries=-1).healthcheck)


def test_unhealthy_after_as_many_failures_as_retries_and_healthy_after_one_success() -> None:
    health, seen = Health(), []
    for code in (1, 1, 0, 1, -1, 137, 1, 0):
        health = health.after(result(code), check(), STARTED)
        seen.append((health.status, health.failing_streak))
    assert seen == [
        (STARTING, 1), (STARTING, 2), (HEALTHY, 0), (HEALTHY, 1), (HEALTHY, 2), (UNHEALTHY, 3), (UNHEALTHY, 4),
        (HEALTHY, 0),
    ]  # fmt: skip


def test_failures_in_the_start_period_do_not_count_until_a_success() -> None:
    own = check(StartPeriod=10 * SECOND, Retries=1)
    health = Health().after(result(1, 9.9), own, STARTED)
    assert (health.status, health.failing_streak, len(health.log)) == (STARTING, 0, 1)
    assert health.after(result(1, 10), own, STARTED).status == UNHEALTHY
    assert health.after(result(0, 5), own, STARTED).after(result(1, 6), own, STARTED).status == UNHEALTHY


def test_the_start_interval_holds_in_the_start_period_of_a_starting_container() -> None:
    own = check(StartPeriod=10 * SECOND, StartInterval=SECOND)
    assert own.wait_ns(STARTING, 9 * SECOND) == SECOND
    assert own.wait_ns(STARTING, 10 * SECOND) == own.wait_ns(HEALTHY, SECOND) == 30 * SECOND


def test_the_log_keeps_five_and_outlives_a_restart() -> None:
    health = Health()
    for n in range(8):
        health = health.after(result(1, n), check(), STARTED)
    assert [item.output for item in health.log] == list("34567")
    assert health.begun() == Health(STARTING, 0, health.log)
    assert health.stopped() == Health(UNHEALTHY, 8, health.log)


def test_it_is_read_from_disk_as_it_was_written() -> None:
    health = Health().after(result(1), check(), STARTED)
    assert Health.from_json(json.loads(json.dumps(health.to_json()))) == health


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.001, "1ms"), (0.0015, "1.5ms"), (0.5, "500ms"), (1, "1s"), (1.25, "1.25s"), (30, "30s"), (60, "1m0s"),
        (90.5, "1m30.5s"), (3600, "1h0m0s"), (7322.000001, "2h2m2.000001s"),
    ],
)  # fmt: skip
def test_durations_as_go_prints_them(seconds: float, text: str) -> None:
    assert duration_text(round(seconds * SECOND)) == text
