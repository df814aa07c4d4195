from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from collector.container import Container
from collector.discovery.registry import Containers
from collector.oom_kills import OomKills
from collector.sampler import Sampler

WEB = Container(id="1" * 64, name="web", pid=7, started_ns=1)


def test_a_new_run_goes_on_from_the_old_ones_sum() -> None:
    kills = OomKills()
    assert kills.begin(WEB) == 0
    kills.note(WEB, 2)
    assert kills.begin(WEB) == 0  # still the same run
    again = replace(WEB, pid=8, started_ns=2)
    assert kills.begin(again) == 2
    kills.note(again, 3)
    assert kills.begin(again) == 2
    assert kills.begin(replace(again, pid=9)) == 3


def test_another_process_of_ours_knows_as_much(tmp_path: Path) -> None:
    file = tmp_path / "kills.json"
    kills = OomKills(file)
    kills.begin(WEB)
    kills.note(WEB, 2)
    assert OomKills(file).begin(WEB) == 0
    assert OomKills(file).total(WEB.id) == 2
    assert OomKills(file).begin(replace(WEB, pid=8)) == 2


def test_what_is_forgotten_is_gone_from_the_file_too(tmp_path: Path) -> None:
    file = tmp_path / "kills.json"
    kills = OomKills(file)
    for container in (WEB, replace(WEB, id="2" * 64)):
        kills.begin(container)
        kills.note(container, 1)
    kills.forget({"2" * 64})
    assert (OomKills(file).total(WEB.id), OomKills(file).total("2" * 64)) == (1, 0)


@pytest.mark.parametrize("data", [b"", b"[]", b'{"a": 1}', b'{"a": {"run": "x"}}', b"\xff"])
def test_a_file_that_is_no_ledger_is_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, data: bytes
) -> None:
    file = tmp_path / "kills.json"
    file.write_bytes(data)
    kills = OomKills(file)
    assert kills.failures == 1
    assert str(file) in caplog.text
    kills.note(WEB, 1)
    assert OomKills(file).total(WEB.id) == 1


def test_a_file_that_cannot_be_written_costs_no_count(tmp_path: Path) -> None:
    kills = OomKills(tmp_path / "absent" / "kills.json")
    kills.note(WEB, 1)
    assert (kills.total(WEB.id), kills.failures) == (1, 1)


def killed(made: Any, containers: Containers, known: Container, victim: Any) -> Container:
    """Let the victim take more than its cgroup may have; the container as its engine shows it afterwards."""
    running = replace(known, pid=victim.pid, cgroup=made.path, state="running", oom_killed=False)
    containers.update(running)
    victim.stdin.write(b"go\n")
    victim.stdin.close()
    assert victim.wait() == -signal.SIGKILL
    return replace(running, state="exited", pid=0, exit_code=137, oom_killed=True)


def test_kills_add_up_over_restarts_of_the_container_and_of_ours(
    make_cgroup: Callable[[], Any], tmp_path: Path
) -> None:
    file = tmp_path / "kills.json"
    known = Container(id="3" * 64, name="hungry", engine="docker", network_mode="none")
    for run in range(1, 4):
        containers = Containers()
        sampler = Sampler(containers, oom_kills=OomKills(file))  # a process of ours a run
        try:
            made = make_cgroup()
            made.limit_memory(32 << 20)
            victim = made.python("print('ready', flush=True)\ninput()\nx = b'x' * (200 << 20)\n")
            assert victim.stdout.readline() == b"ready\n"
            ended = killed(made, containers, replace(known, started_ns=run), victim)
            sampler.sample_all()
            containers.update(ended)
            sample = sampler.latest(known.id)
            assert sample is not None
            assert sample.memory is not None
            assert sample.memory.oom_kills == run
        finally:
            sampler.close()
    later = Sampler(Containers(), oom_kills=OomKills(file))
    sample = later.latest(known.id)
    later.close()
    assert sample is not None
    assert sample.memory is not None
    assert sample.memory.oom_kills == 3


def test_a_kill_only_the_engine_knows_of_is_one_more(make_cgroup: Callable[[], Any]) -> None:
    """Its cgroup was gone before anybody read the kernel's count."""
    containers = Containers()
    kills = OomKills()
    sampler = Sampler(containers, oom_kills=kills)
    made = make_cgroup()
    process = made.python("input()\n")
    known = Container(id="4" * 64, name="web", engine="docker", network_mode="none")
    for run in (1, 2):
        running = replace(known, pid=process.pid, cgroup=made.path, started_ns=run)
        containers.update(running)
        containers.update(replace(running, state="exited", pid=0, oom_killed=True))
        sample = sampler.latest(known.id)
        assert sample is not None
        assert sample.memory is not None
        assert sample.memory.oom_kills == kills.total(known.id) == run
    sampler.close()


@pytest.fixture
def ran_once(make_cgroup: Callable[[], Any]) -> Iterator[tuple[Sampler, Containers, Container]]:
    """A sampler that has a container open, which nothing was killed in."""
    containers = Containers()
    sampler = Sampler(containers, oom_kills=OomKills())
    made = make_cgroup()
    process = made.python("input()\n")
    running = Container(
        id="6" * 64, name="web", engine="docker", network_mode="none", started_ns=1, pid=process.pid,
        cgroup=made.path,
    )  # fmt: skip
    containers.update(running)
    yield sampler, containers, running
    sampler.close()


def kills_of(sampler: Sampler, container: Container) -> int | None:
    sample = sampler.latest(container.id)
    assert sample is not None
    assert sample.memory is not None
    return sample.memory.oom_kills


def test_an_end_heard_of_before_why_counts_its_kill(ran_once: tuple[Sampler, Containers, Container]) -> None:
    sampler, containers, running = ran_once
    ended = replace(running, state="exited", pid=0)
    containers.update(ended)
    assert kills_of(sampler, running) == 0
    for exit_code in (136, 137):  # told twice, counted once
        containers.update(replace(ended, oom_killed=True, exit_code=exit_code))
        assert kills_of(sampler, running) == 1


def test_a_run_too_short_to_be_opened_counts_its_kill(
    ran_once: tuple[Sampler, Containers, Container],
) -> None:
    sampler, containers, running = ran_once
    containers.update(replace(running, state="exited", pid=0))
    for run in (2, 3):
        for state in ("restarting", "exited"):
            containers.update(replace(running, state=state, pid=0, started_ns=run, oom_killed=True))
    assert kills_of(sampler, running) == 2
    containers.update(replace(running, started_ns=4))
    sampler.sample_all()
    assert kills_of(sampler, running) == 2


def test_a_kill_told_of_before_the_next_run_is_the_former_runs(
    ran_once: tuple[Sampler, Containers, Container], make_cgroup: Callable[[], Any]
) -> None:
    sampler, containers, running = ran_once
    containers.update(replace(running, oom_killed=True))
    made = make_cgroup()
    containers.update(replace(running, started_ns=2, pid=made.python("input()\n").pid, cgroup=made.path))
    assert kills_of(sampler, running) == 1


@pytest.mark.parametrize("opened", [True, False])
@pytest.mark.parametrize("counted", [True, False])
def test_a_kill_told_of_while_the_next_run_goes_on_is_the_former_runs(
    ran_once: tuple[Sampler, Containers, Container],
    make_cgroup: Callable[[], Any],
    opened: bool,
    counted: bool,
) -> None:
    sampler, containers, running = ran_once
    if opened and counted:  # by the event before its end
        containers.update(replace(running, oom_killed=True))
    made = make_cgroup()
    following = replace(running, started_ns=5, pid=made.python("input()\n").pid, cgroup=made.path)
    containers.update(following)
    former = running if opened else replace(running, started_ns=2)
    containers.update(replace(former, state="exited", pid=0, oom_killed=True, finished_ns=3))
    containers.update(following)
    for _ in range(2):
        assert kills_of(sampler, running) == 1
        sampler.sample_all()
    containers.update(replace(following, state="exited", pid=0, finished_ns=9))
    assert kills_of(sampler, running) == 1
    containers.update(replace(following, state="exited", pid=0, finished_ns=9, oom_killed=True))
    assert kills_of(sampler, running) == 2


def test_an_end_before_its_own_start_is_no_other_runs(
    ran_once: tuple[Sampler, Containers, Container], make_cgroup: Callable[[], Any]
) -> None:
    """The clock was set back while it ran."""
    sampler, containers, running = ran_once
    made = make_cgroup()
    later = replace(running, started_ns=1 << 62, pid=made.python("input()\n").pid, cgroup=made.path)
    containers.update(later)
    containers.update(replace(later, oom_killed=True))
    ended = replace(later, state="exited", pid=0, oom_killed=True, finished_ns=9)
    containers.update(ended)
    assert kills_of(sampler, running) == 1
    assert running.id not in sampler.targets()
    assert sampler.of_run(ended) is sampler.latest(running.id)


def test_what_ended_before_us_is_not_counted_again() -> None:
    kills = OomKills()
    assert kills.ended_killed(replace(WEB, state="exited", oom_killed=True)) == 0
