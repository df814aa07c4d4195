"""The engine is killed or stopped and started again: nothing is lost."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from pathlib import Path

from engine_process import IMAGE, EngineProcess, until

COUNT = "i=0; while [ $i -lt 200 ]; do echo line $i; i=$((i+1)); sleep 0.01; done; exit 9"


def test_kill_9_loses_no_line_and_no_exit_code(own_engine: EngineProcess) -> None:
    engine = own_engine
    engine.docker("run", "-d", "--name", "counts", IMAGE, "sh", "-c", COUNT)
    engine.docker("run", "-d", "--name", "stays", IMAGE, "sleep", "1000")
    engine.docker("run", "-d", "--name", "paused", IMAGE, "sleep", "1000")
    engine.docker("pause", "paused")
    pid = engine.inspect("stays", "{{.State.Pid}}")
    address = engine.inspect("stays", "{{.NetworkSettings.IPAddress}}")
    engine.kill()
    # It ends while no engine is there: its log file tells when.
    logs = engine.state / "containers"
    until(
        lambda: any("line 199" in path.read_text() for path in logs.glob("*/*-json.log")),
        f"the last line in a log below {logs}",
    )
    engine.start()
    assert engine.docker("wait", "counts").out == "9\n"
    assert engine.docker("logs", "counts").lines == [f"line {n}" for n in range(200)]
    assert engine.inspect("stays", "{{.State.Status}} {{.State.Pid}}") == f"running {pid}"
    assert engine.inspect("stays", "{{.NetworkSettings.IPAddress}}") == address
    assert engine.inspect("paused", "{{.State.Status}}") == "paused"
    assert engine.docker("exec", "stays", "echo", "alive").out == "alive\n"
    engine.docker("unpause", "paused")
    engine.docker("stop", "-t", "0", "stays")
    assert engine.inspect("stays", "{{.State.ExitCode}}") == "137"
    images = engine.docker("images", "--format", "{{.Repository}}:{{.Tag}}").lines
    assert images == [IMAGE]


def test_kill_9_in_the_middle_of_starts_leaves_no_halves(own_engine: EngineProcess) -> None:
    engine = own_engine
    starts = [engine.popen("run", "-d", "--name", f"n{n}", IMAGE, "sleep", "1000") for n in range(6)]
    until(lambda: list((engine.state / "containers").iterdir()), "the first container")
    engine.kill()
    for start in starts:
        start.wait()
    engine.start()
    for line in engine.docker("ps", "-a", "--format", "{{.Names}} {{.State}}").lines:
        name, state = line.split()
        assert state in ("created", "running")
        if state == "running":
            assert engine.docker("exec", name, "echo", "alive").out == "alive\n"
        else:
            engine.docker("start", name)
        assert engine.inspect(name, "{{.State.Status}}") == "running"


def test_restart_policies_hold_over_a_restart_of_the_engine(own_engine: EngineProcess) -> None:
    engine = own_engine
    script = "test -e /stop && exit 0; sleep 1000"
    for name, policy in (("always", "always"), ("unless", "unless-stopped"), ("never", "no")):
        engine.docker("run", "-d", "--restart", policy, "--name", name, IMAGE, "sh", "-c", script)
        engine.docker("stop", "-t", "0", name)
    assert engine.stop() == 0
    engine.start()
    until(
        lambda: engine.inspect("always", "{{.State.Status}}") == "running", "the container that always runs"
    )
    assert engine.inspect("unless", "{{.State.Status}}") == "exited"
    assert engine.inspect("never", "{{.State.Status}}") == "exited"


def test_one_engine_per_state_directory(own_engine: EngineProcess) -> None:
    second = own_engine.spawn()
    assert second.wait(100) == 1
    assert "another engine" in own_engine.log()
    assert own_engine.docker("ps").code == 0


def pids_of(engine: EngineProcess) -> list[int]:
    """Template and shims of the engine: their arguments name its directory."""
    mark = str(engine.root / "r").encode()
    found = []
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            try:
                if mark in (place / "cmdline").read_bytes():
                    found.append(int(place.name))
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found


def test_what_a_reboot_may_have_taken_is_said_in_the_log(own_engine: EngineProcess) -> None:
    engine = own_engine
    engine.docker("run", "-d", "--name", "ran", IMAGE, "sh", "-c", "echo hello; exec sleep 1000")
    engine.docker("run", "--name", "ended", IMAGE, "echo", "bye")
    until(lambda: engine.docker("logs", "ran").lines == ["hello"], "its line")
    init = int(engine.inspect("ran", "{{.State.Pid}}"))
    engine.kill()
    for pid in (*pids_of(engine), init):
        with contextlib.suppress(ProcessLookupError):  # it may end with the one before
            os.kill(pid, signal.SIGKILL)
    until(lambda: not pids_of(engine), "the end of template and shims")
    for path in (engine.root / "r" / "engine").glob("c/*"):
        shutil.rmtree(path)
    shutil.rmtree(engine.root / "r" / "engine" / "runc")
    engine.start()
    assert engine.inspect("ran", "{{.State.Status}} {{.State.ExitCode}}") == "exited 255"
    marker = (
        "taffrail: output may be missing here: "
        "the host was restarted, or the run directory cleared, while the container ran"
    )
    told = engine.docker("logs", "ran")
    assert (told.lines, told.err.splitlines()) == (["hello"], [marker])
    told = engine.docker("logs", "ended")
    assert (told.out, told.err) == ("bye\n", "")
    engine.docker("start", "ran")
    until(lambda: engine.docker("logs", "ran").lines == ["hello", "hello"], "the line of its second life")
    assert engine.docker("logs", "ran").err.splitlines() == [marker]
