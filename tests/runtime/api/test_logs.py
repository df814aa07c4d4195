"""``docker logs``: selection, following, times, and drivers."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine_process import IMAGE, EngineProcess, until

Names = Callable[[], str]
COUNT = "i=0; while [ $i -lt %d ]; do echo line $i; i=$((i+1)); done"


def test_a_short_lived_container_can_still_be_read(engine: EngineProcess, names: Names) -> None:
    name = names()
    engine.docker("run", "-d", "--name", name, IMAGE, "echo", "1")
    engine.docker("wait", name)
    assert engine.docker("logs", name).out == "1\n"


def test_streams_are_told_apart(engine: EngineProcess, names: Names) -> None:
    name = names()
    engine.docker("run", "-d", "--name", name, IMAGE, "sh", "-c", "echo a; echo b >&2; echo c")
    engine.docker("wait", name)
    logs = engine.docker("logs", name)
    assert (logs.out, logs.err) == ("a\nc\n", "b\n")


def test_tail_is_the_last_lines(engine: EngineProcess, names: Names) -> None:
    name = names()
    engine.docker("run", "--name", name, IMAGE, "seq", "1000")
    assert engine.docker("logs", "--tail", "3", name).out == "998\n999\n1000\n"
    assert engine.docker("logs", "--tail", "0", name).out == ""
    assert len(engine.docker("logs", "--tail", "5000", name).lines) == 1000


def test_times_select_and_are_shown(engine: EngineProcess, names: Names) -> None:
    name = names()
    engine.docker("run", "--name", name, IMAGE, "sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.2; done")
    lines = engine.docker("logs", "-t", name).lines
    times, texts = zip(*(line.split(" ", 1) for line in lines), strict=True)
    assert texts == ("1", "2", "3")
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", text) for text in times)
    assert engine.docker("logs", "--since", times[1], name).out == "2\n3\n"
    assert engine.docker("logs", "--until", times[1], name).out == "1\n2\n"
    assert engine.docker("logs", "--since", "1h", "--until", times[0], name).out == "1\n"


def test_follow_misses_nothing_and_ends_with_the_container(engine: EngineProcess, names: Names) -> None:
    name = names()
    script = COUNT % 2000 + "; sleep 0.3; " + COUNT.replace("line", "more") % 3000
    engine.docker("run", "-d", "--name", name, IMAGE, "sh", "-c", script)
    done = engine.docker("logs", "-f", name)
    assert done.lines == [f"line {n}" for n in range(2000)] + [f"more {n}" for n in range(3000)]


def test_follow_from_a_tail_shows_what_comes(engine: EngineProcess, names: Names) -> None:
    name = names()
    script = "seq 5; until test -e /go; do sleep 0.05; done; echo after"
    engine.docker("run", "-d", "--name", name, IMAGE, "sh", "-c", script)
    until(lambda: len(engine.docker("logs", name).lines) == 5, "the first lines")
    with engine.beside("logs", "-f", "--tail", "1", name) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == b"5\n"
        engine.docker("exec", name, "touch", "/go", check=False)  # it may not outlive the container
        assert follower.communicate(timeout=100)[0] == b"after\n"
        assert follower.returncode == 0


def test_follow_ends_at_until(engine: EngineProcess, names: Names) -> None:
    name = names()
    engine.docker("run", "-d", "--name", name, IMAGE, "sh", "-c", "while true; do echo x; sleep 0.05; done")
    until(lambda: engine.docker("logs", name).lines, "a line")
    follower = engine.docker("logs", "-f", "--until", f"{time.time() + 1:.3f}", name)
    assert follower.lines


def test_rotation_keeps_the_files_and_the_follower_complete(
    engine: EngineProcess, names: Names, tmp_path: Path
) -> None:
    """A follower that is behind by less than there is room for, however fast the machine writes or reads."""
    name = names()
    options = ("--log-opt", "max-size=200k", "--log-opt", "max-file=10", "-v", f"{tmp_path}:/seen")
    script = (
        "i=0; while [ $i -lt 20000 ]; do echo line number $i of some length to fill the files; i=$((i+1));"
        " [ $((i%4000)) != 0 ] || until [ -e /seen/$i ]; do usleep 10000; done; done"
    )
    engine.docker("create", "--name", name, *options, IMAGE, "sh", "-c", script)
    engine.docker("start", name)
    followed: list[int] = []
    with engine.beside("logs", "-f", name) as follower:
        assert follower.stdout is not None
        for line in follower.stdout:
            followed.append(int(line.split()[2]))
            told = followed[-1] + 1  # a line that is missed is for the end to tell, and holds nobody up here
            if told % 4000 == 0:
                (tmp_path / str(told)).touch()
    assert followed == list(range(20000))
    path = engine.inspect(name, "{{.LogPath}}")
    sizes = subprocess.run(
        f"ls -l {path}* | awk '{{print $5}}'", shell=True, capture_output=True, text=True, check=True
    ).stdout.split()
    assert len(sizes) <= 10
    assert sum(map(int, sizes)) < 2_100_000


def test_none_keeps_nothing_and_says_so(engine: EngineProcess, names: Names) -> None:
    name = names()
    engine.docker("run", "--log-driver", "none", "--name", name, IMAGE, "echo", "gone")
    refused = engine.docker("logs", name, check=False)
    assert refused.code == 1
    assert "configured logging driver does not support reading" in refused.err


def test_a_wrong_driver_or_option_is_refused_at_create(engine: EngineProcess) -> None:
    driver = engine.docker("create", "--log-driver", "nosuch", IMAGE, check=False)
    assert "logger: no log driver named 'nosuch' is registered" in driver.err
    option = engine.docker("create", "--log-opt", "nosuch=1", IMAGE, check=False)
    assert "unknown log opt 'nosuch' for json-file log driver" in option.err
    size = engine.docker("create", "--log-opt", "max-size=-1", IMAGE, check=False)
    assert size.code == 1


def test_a_log_driver_that_cannot_start_is_told_in_dockers_words(
    engine: EngineProcess, names: Names, docker_engine: Any
) -> None:
    """On a host without journald; what the CLI makes of it is the same, too. With one both of them start."""
    name = names()
    words = ("create", "--name", name, "--log-driver", "journald", "--network", "none")
    assert engine.docker(*words, IMAGE, "true").code == 0
    docker_engine.run(*words, "test/busybox", "true")
    ours = engine.docker("start", name, check=False)
    theirs = docker_engine.run("start", name, check=False)
    assert (ours.code, ours.err) == (theirs.returncode, theirs.stderr.decode())
    if not ours.code:
        engine.docker("wait", name)
        docker_engine.run("wait", name)
    shown = ("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}} {{.State.Error}}", name)
    assert engine.docker(*shown).out == docker_engine.run(*shown).stdout.decode()
    docker_engine.run("rm", name)


def test_a_dead_sink_costs_the_log_nothing(engine: EngineProcess, names: Names) -> None:
    name = names()
    options = ("--log-driver", "gelf", "--log-opt", "gelf-address=tcp://127.0.0.1:1")
    engine.docker("run", "-d", "--name", name, *options, IMAGE, "sh", "-c", COUNT % 500)
    engine.docker("wait", name)
    assert engine.docker("logs", name).lines == [f"line {n}" for n in range(500)]
