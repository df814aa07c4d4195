"""Health checks: the same results, words and events as a real Docker Engine's, and what only ours promises."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from engine_process import IMAGE, EngineProcess, Events, until

from taffrail.demo import busybox_rootfs

Names = Callable[[], str]
Run = Callable[..., str]  #: the docker CLI on one of the engines: its output, errors behind it

EVERY = ("--health-interval", "300ms")
SLOWLY = ("--health-interval", "600ms")  #: where both engines probe a lot at once
PROBES: dict[str, tuple[str, ...]] = {
    "healthy": ("--health-cmd", "echo fine; sleep 0.05; echo too >&2"),
    "unhealthy": ("--health-cmd", "echo no; exit 3", "--health-retries", "2"),
    "slow": ("--health-cmd", "sleep 100", "--health-timeout", "400ms", "--health-retries", "1"),
    "long": ("--health-cmd", "yes | head -c 100000"),
    "in-start": ("--health-cmd", "exit 1", "--health-retries", "1", "--health-start-period", "1h"),
}
ENDED = re.compile(r"(exec_die) \d+")


def health(run: Run, name: str) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(run("inspect", "-f", "{{json .State}}", name))
    return state.get("Health") or {}


def settled(run: Run, name: str, probes: int = 3) -> None:
    until(lambda: len(health(run, name).get("Log", ())) >= probes, f"{probes} probes of {name}")


@contextlib.contextmanager
def listening(host: str) -> Iterator[Callable[[str], list[str]]]:
    """``docker events`` beside a test; gives a function for what was told of probes of a container so far."""
    with tempfile.NamedTemporaryFile("w") as file:
        words = ["docker", "-H", host, "events", "--since", "1", "--filter", "type=container", "--format",
                 "{{.Actor.Attributes.name}}\t{{.Action}}\t{{.Actor.Attributes.exitCode}}"]  # fmt: skip
        process = subprocess.Popen(words, stdout=file, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)

        def told(name: str) -> list[str]:
            lines = Path(file.name).read_text().split("\n")[:-1]
            rows = [line.split("\t") for line in lines]
            found = [(action, code) for owner, action, code in rows if owner == name]
            seen = [
                f"{action} {code}" if action == "exec_die" else action
                for action, code in found
                if action.startswith(("exec_", "health_"))
            ]
            # Docker Engine tells at times what follows from a probe's end before the end.
            for at in range(len(seen) - 1):
                if seen[at].startswith("health_") and seen[at + 1].startswith("exec_die"):
                    seen[at : at + 2] = seen[at + 1], seen[at]
            return seen

        try:
            yield told
        finally:
            process.kill()
            process.wait()


def seen(run: Run, name: str, events: list[str]) -> dict[str, Any]:
    """What an engine says of a container, without what differs by time."""
    found = health(run, name)
    listed = run("ps", "-a", "--filter", f"name={name}", "--format", "{{.Status}}").strip()
    return {
        "status": found["Status"],
        "codes": {item["ExitCode"] for item in found["Log"]},
        "outputs": {item["Output"] for item in found["Log"]},
        "keys": {tuple(item) for item in found["Log"]},
        "log": len(found["Log"]) <= 5,
        "streak": bool(found["FailingStreak"]),
        "listed": listed.partition(" (")[2],
        "events": events[:7],
    }


@contextlib.contextmanager
def removed(run: Run, *names: str) -> Iterator[None]:
    try:
        yield
    finally:
        run("rm", "-f", *names)


@contextlib.contextmanager
def untagged(run: Run, image: str) -> Iterator[None]:
    try:
        yield
    finally:
        run("rmi", image)


def docker_run(engine: Any) -> Run:
    def run(*words: str) -> str:
        done = engine.run(*words, check=False)
        return str(done.stdout.decode() + done.stderr.decode())

    return run


def our_run(engine: EngineProcess) -> Run:
    def run(*words: str) -> str:
        done = engine.docker(*words, check=False)
        return done.out + done.err

    return run


def test_the_same_as_docker_engine(engine: EngineProcess, docker_engine: Any, names: Names) -> None:
    ours, theirs = our_run(engine), docker_run(docker_engine)
    named = {kind: f"{names()}-{kind}" for kind in PROBES}
    with (
        listening(engine.url) as our_events,
        listening(docker_engine.host) as their_events,
        removed(theirs, *named.values()),
    ):
        both = ((ours, IMAGE), (theirs, "test/busybox"))
        with ThreadPoolExecutor(4) as pool:  # the CLI starts slowly
            for (run, image), (kind, words) in itertools.product(both, PROBES.items()):
                pool.submit(run, "run", "-d", "--network", "none", "--name", named[kind], *SLOWLY, *words, image,
                            "sleep", "1000")  # fmt: skip
        for events in (our_events, their_events):
            for name in named.values():
                until(lambda events=events, name=name: len(events(name)) >= 7, "seven events")
        for kind, name in named.items():
            mine, docker = seen(ours, name, our_events(name)), seen(theirs, name, their_events(name))
            if kind == "slow":
                # This Docker tells 127 of a probe it killed, and that it has ended before or after the status.
                assert "exec_die 137" in mine["events"]
                for one in (mine, docker):
                    one["events"] = sorted(ENDED.sub(r"\1", action) for action in one["events"][:4])
            assert mine == docker, kind
        for values in ("healthy", "unhealthy", "starting", "none"):
            words = ("ps", "--filter", f"health={values}", "--filter", f"name={named['healthy'][:12]}",
                     "--format", "{{.Names}}")  # fmt: skip
            assert ours(*words) == theirs(*words)


@pytest.mark.parametrize(
    "words",
    [
        ("--health-interval", "100us"),
        ("--health-timeout", "10us"),
        ("--health-start-period", "999us"),
        ("--health-retries", "-1"),
        ("--no-healthcheck",),
    ],
)
def test_refusals_are_dockers(engine: EngineProcess, docker_engine: Any, words: tuple[str, ...]) -> None:
    command = ("create", "--network", "none", "--health-cmd", "true", *words)
    ours = our_run(engine)(*command, IMAGE, "true")
    assert ours == docker_run(docker_engine)(*command, "test/busybox", "true")
    assert "cannot be" in ours or "conflicts" in ours


def test_states_through_pause_restart_and_end_are_dockers(
    engine: EngineProcess, docker_engine: Any, names: Names
) -> None:
    name = names()

    def told(run: Run, image: str) -> list[str]:
        def status() -> str:
            return str(health(run, name).get("Status"))

        run(
            "create",
            "--network",
            "none",
            "--name",
            name,
            *EVERY,
            "--health-cmd",
            "true",
            image,
            "sleep",
            "1000",
        )
        out = [status()]
        run("start", name)
        until(lambda: status() == "healthy", "the first success")
        run("pause", name)
        out += [
            status(),
            str(run("ps", "--filter", f"name={name}", "--format", "{{.Status}}").count("health")),
        ]
        last = health(run, name)["Log"][-1]["End"]
        run("unpause", name)
        until(lambda: status() == "healthy", "health after the pause")
        run("stop", "-t", "0", name)
        out += [status(), str(health(run, name)["Log"][-1]["End"] > last)]
        run("update", "--restart", "no", name)
        before = health(run, name)["Log"][-1]
        run("start", name)
        kept = health(run, name)["Log"]
        out += [str(before in kept or len(kept) == 5)]  # five is all there is room for
        until(lambda: status() == "healthy", "health after the restart")
        run("rm", "-f", name)
        return out

    assert told(our_run(engine), IMAGE) == told(docker_run(docker_engine), "test/busybox")


def test_checks_of_an_image(engine: EngineProcess, docker_engine: Any, names: Names) -> None:
    """By exec, and one whose program is not there; what was said at ``run`` goes before the image's."""
    name, answers = names(), []
    check = 'HEALTHCHECK --interval=200ms --start-interval=2s --retries=2 CMD ["/nope", "--really"]'
    for run, host in ((our_run(engine), engine.url), (docker_run(docker_engine), docker_engine.host)):
        if answers:
            check = check.replace("--start-interval=2s ", "")  # this Docker Engine is too old for it
        imported = subprocess.run(
            ["docker", "-H", host, "import", "-c", check, "-", f"{name}:1"],
            input=busybox_rootfs(), capture_output=True, check=False,
        )  # fmt: skip
        assert imported.returncode == 0, imported.stderr
        with untagged(run, f"{name}:1"), listening(host) as events, removed(run, name, f"{name}-2"):
            start = ("run", "-d", "--network", "none", "--name")
            run(*start, name, f"{name}:1", "sleep", "1000")
            run(*start, f"{name}-2", "--no-healthcheck", f"{name}:1", "sleep", "1000")
            until(lambda events=events: len(events(name)) >= 7, "seven events")
            answers.append([seen(run, name, events(name)), health(run, f"{name}-2"), events(f"{name}-2")])
    assert answers[0] == answers[1]
    assert "no such file or directory" in next(iter(answers[0][0]["outputs"]))


@pytest.mark.parametrize(
    "text",
    ["NONE x", "CMD", "WHAT x", "--interval=1us CMD x", "--interval=x CMD x", "--timeout=-1s CMD x",
     "--retries=0 CMD x", "--retries=q CMD x", "--what=1 CMD x", "--interval CMD x"],
)  # fmt: skip
def test_refusals_of_an_image_are_dockers(engine: EngineProcess, docker_engine: Any, text: str) -> None:
    answers = []
    for host in (engine.url, docker_engine.host):
        words = ["docker", "-H", host, "import", "-c", f"HEALTHCHECK {text}", "-", "never:1"]
        done = subprocess.run(words, input=b"", capture_output=True, check=False)
        assert done.returncode
        answers.append(done.stderr.decode().replace("dockerfile parse error line 1: ", ""))
    assert answers[0] == answers[1]


def test_a_probe_over_its_time_is_killed_with_its_children(engine: EngineProcess, names: Names) -> None:
    name = names()
    engine.docker("run", "-d", "--name", name, *EVERY, "--health-timeout", "300ms",
                  "--health-cmd", "sleep 777 & sleep 778; true", IMAGE, "sleep", "1000")  # fmt: skip
    settled(our_run(engine), name, 2)
    outputs = {item["Output"] for item in health(our_run(engine), name)["Log"]}
    assert outputs == {"Health check exceeded timeout (300ms)"}
    engine.docker("pause", name)
    engine.docker("unpause", name)

    def probing() -> list[str]:
        return [line for line in engine.docker("top", name, "-o", "pid,args").lines if " 77" in line]

    until(lambda: len(probing()) <= 2, "earlier probes to be gone")
    engine.docker("stop", "-t", "0", name)


def test_a_probe_is_over_with_its_first_process(engine: EngineProcess, names: Names) -> None:
    name = names()
    engine.docker("run", "-d", "--name", name, *EVERY, "--health-timeout", "20s",
                  "--health-cmd", "sleep 1000 & echo started", IMAGE, "sleep", "1000")  # fmt: skip
    settled(our_run(engine), name, 2)
    assert health(our_run(engine), name)["Log"][0]["Output"] == "started\n"


def test_the_start_interval_finds_a_container_healthy_before_its_interval(
    engine: EngineProcess, names: Names
) -> None:
    name = names()
    engine.docker("run", "-d", "--name", name, "--health-interval", "1h", "--health-start-period", "1h",
                  "--health-start-interval", "100ms", "--health-cmd", "true", IMAGE, "sleep", "1000")  # fmt: skip
    until(lambda: health(our_run(engine), name).get("Status") == "healthy", "the probe of the start")


def test_adopted_containers_go_on(own_engine: EngineProcess) -> None:
    engine, run = own_engine, our_run(own_engine)
    engine.docker("run", "-d", "--name", "ok", *EVERY, "--health-cmd", "true", IMAGE, "sleep", "1000")
    engine.docker(
        "run", "-d", "--name", "hangs", *EVERY, "--health-cmd", "exec sleep 779", IMAGE, "sleep", "1000"
    )
    engine.docker("run", "-d", "--name", "held", *EVERY, "--health-cmd", "true", IMAGE, "sleep", "1000")
    settled(run, "ok", 5)
    engine.docker("pause", "held")
    held = health(run, "held")
    hung = until(lambda: _probe_pid(engine, "hangs"), "a probe that hangs")
    engine.kill()
    until(lambda: not Path(f"/proc/{hung}").exists(), "the probe to die with the engine")
    engine.start()
    before = health(run, "ok")
    assert before["Status"] == "healthy"
    events = Events(engine)
    try:
        until(lambda: health(run, "ok")["Log"][-1]["End"] > before["Log"][-1]["End"], "another probe")
        assert health(run, "held") == held
        engine.docker("unpause", "held")
        until(lambda: "health_status: healthy" in events.actions("held"), "a probe after the pause")
        assert not [a for a in events.actions("ok") if a.startswith("health_status")]
    finally:
        events.close()


def _probe_pid(engine: EngineProcess, name: str) -> str:
    for line in engine.docker("top", name, "-o", "pid,args").lines:
        if "sleep 779" in line:
            return line.split()[0]
    return ""


def shim_of(container_id: str) -> int:
    """Its process, which is named after the container; 0 while there is none."""
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and (entry / "comm").read_text() == f"shim:{container_id[:10]}\n":
                return int(entry.name)
    return 0


def test_killed_shims_make_nobody_unhealthy(engine: EngineProcess, names: Names) -> None:
    name = names()
    engine.docker("run", "-d", "--name", name, *EVERY, "--health-retries", "1", "--health-cmd", "sleep 0.2",
                  IMAGE, "sleep", "1000")  # fmt: skip
    run, events = our_run(engine), Events(engine)
    container_id = engine.inspect(name, "{{.Id}}")
    try:
        until(lambda: health(run, name).get("Status") == "healthy", "health")
        for _ in range(3):
            last = health(run, name)["Log"][-1]["End"]
            os.kill(until(lambda: shim_of(container_id), "its shim"), signal.SIGKILL)
            until(lambda last=last: health(run, name)["Log"][-1]["End"] > last, "a probe by the next shim")
        until(lambda: "health_status: healthy" in events.actions(name), "the event")
        assert [a for a in events.actions(name) if a.startswith("health")] == ["health_status: healthy"]
    finally:
        events.close()
