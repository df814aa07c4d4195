"""Running containers with the real docker CLI: foreground, detached, exit codes, names, signals."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable

import pytest
from engine_process import IMAGE, EngineProcess, Events, until

Names = Callable[[], str]


def test_run_prints_what_the_container_printed_and_leaves_it_exited(
    engine: EngineProcess, names: Names
) -> None:
    name = names()
    assert engine.docker("run", "--name", name, IMAGE, "pwd").out == "/\n"
    assert engine.docker("ps", "-q").out == ""
    status = engine.docker("ps", "-a", "--filter", f"name={name}", "--format", "{{.Status}}").out
    assert status.startswith("Exited (0)")


def test_exit_code_and_streams_pass_through(engine: EngineProcess) -> None:
    done = engine.docker("run", "--rm", IMAGE, "sh", "-c", "echo out; echo err >&2; exit 3", check=False)
    assert (done.code, done.out, done.err) == (3, "out\n", "err\n")


def test_run_with_stdin_reads_to_its_end(engine: EngineProcess) -> None:
    data = b"".join(b"line %d\n" % n for n in range(20_000))
    done = engine.docker("run", "-i", "--rm", IMAGE, "md5sum", stdin=data)
    expected = subprocess.run(["md5sum"], input=data, capture_output=True, check=True).stdout.decode()
    assert done.out == expected


def test_large_output_comes_whole(engine: EngineProcess) -> None:
    done = engine.docker("run", "--rm", IMAGE, "seq", "200000")
    assert done.out == "".join(f"{n}\n" for n in range(1, 200_001))


def test_a_terminal_is_a_terminal(engine: EngineProcess) -> None:
    command = (
        f"docker -H {engine.url} run -it --rm {IMAGE} sh -c 'test -t 0 && test -t 1 && echo yes; exit 4'"
    )
    read, write = os.pipe()  # nobody types; the end of it would be typed, and echoed where the client is late
    try:
        done = subprocess.run(
            ["script", "-qec", command, "/dev/null"], stdin=read, capture_output=True, check=False
        )
    finally:
        os.close(read)
        os.close(write)
    assert (done.returncode, done.stdout.strip()) == (4, b"yes")


def test_rm_removes_the_container(engine: EngineProcess, names: Names) -> None:
    name = names()
    engine.docker("run", "--rm", "--name", name, IMAGE, "true")
    until(lambda: engine.docker("inspect", name, check=False).code == 1, "the container to go")
    engine.docker("run", "-d", "--rm", "--name", name, IMAGE, "true")
    until(lambda: engine.docker("inspect", name, check=False).code == 1, "the detached container to go")


def test_stop_waits_the_grace_time_and_kills(engine: EngineProcess, names: Names) -> None:
    name = names()
    engine.docker("run", "-d", "--name", name, IMAGE, "sh", "-c", "while true; do sleep 1; done")
    assert engine.inspect(name, "{{.State.Status}}") == "running"
    engine.docker("stop", "-t", "1", name)
    assert engine.inspect(name, "{{.State.ExitCode}} {{.State.Status}}") == "137 exited"


def test_stop_sends_the_stop_signal_first(engine: EngineProcess, names: Names) -> None:
    name = names()
    script = "trap 'echo got; exit 5' USR1; echo ready; while true; do sleep 0.1; done"
    engine.docker("run", "-d", "--stop-signal", "USR1", "--name", name, IMAGE, "sh", "-c", script)
    until(lambda: "ready" in engine.docker("logs", name).out, "the trap")
    engine.docker("stop", name)
    assert engine.inspect(name, "{{.State.ExitCode}}") == "5"
    assert engine.docker("logs", name).out == "ready\ngot\n"


def test_kill_is_at_once_and_a_stopped_container_cannot_be_killed(
    engine: EngineProcess, names: Names
) -> None:
    name = names()
    engine.docker("run", "-d", "--name", name, IMAGE, "sleep", "1000")
    engine.docker("kill", name)
    assert engine.inspect(name, "{{.State.ExitCode}}") == "137"
    again = engine.docker("kill", name, check=False)
    assert again.code == 1
    assert "is not running" in again.err
    assert engine.docker("stop", name).code == 0


def test_start_runs_it_again_and_the_log_goes_on(engine: EngineProcess, names: Names) -> None:
    name = names()
    engine.docker("run", "--name", name, IMAGE, "echo", "once")
    assert engine.docker("start", "-a", name).out == "once\n"
    assert engine.docker("logs", name).out == "once\nonce\n"


def test_restart_keeps_an_auto_removed_container(engine: EngineProcess, names: Names) -> None:
    name = names()
    engine.docker("run", "-d", "--rm", "--name", name, IMAGE, "sleep", "1000")
    before = engine.inspect(name, "{{.State.Pid}}")
    engine.docker("restart", "-t", "0", name)
    after = engine.inspect(name, "{{.State.Pid}} {{.State.Running}}")
    assert after.endswith("true")
    assert not after.startswith(f"{before} ")


def test_pause_and_unpause(engine: EngineProcess, names: Names) -> None:
    name = names()
    engine.docker("run", "-d", "--name", name, IMAGE, "sleep", "1000")
    engine.docker("pause", name)
    status = engine.docker("ps", "--filter", f"name={name}", "--format", "{{.Status}} {{.State}}").out
    assert "(Paused)" in status
    assert "cannot start a paused container" in engine.docker("start", name, check=False).err
    engine.docker("unpause", name)
    assert engine.inspect(name, "{{.State.Status}}") == "running"
    engine.docker("pause", name)
    engine.docker("kill", name)
    assert engine.inspect(name, "{{.State.ExitCode}}") == "137"


def test_hostname_is_the_short_id_unless_given(engine: EngineProcess, names: Names) -> None:
    name = names()
    assert engine.docker("run", "--rm", "-h", "myhost", IMAGE, "hostname").out == "myhost\n"
    shown = engine.docker("run", "--name", name, IMAGE, "hostname").out.strip()
    assert shown == engine.inspect(name, "{{.Id}}")[:12]


def test_network_modes(engine: EngineProcess, names: Names) -> None:
    name = names()
    only_lo = engine.docker("run", "--rm", "--network", "none", IMAGE, "ls", "/sys/class/net").out.split()
    assert only_lo == ["lo"]
    inside = engine.docker("run", "--rm", "--network", "host", IMAGE, "ls", "/sys/class/net").out.split()
    assert engine.bridge in inside
    engine.docker("run", "-d", "--name", name, IMAGE, "sleep", "1000")
    address = engine.inspect(name, "{{.NetworkSettings.IPAddress}}")
    joined = engine.docker(
        "run", "--rm", "--network", f"container:{name}", IMAGE, "ip", "addr", "show", "eth0"
    ).out
    assert f"inet {address}/" in joined


def test_joining_a_stopped_container_is_refused(engine: EngineProcess, names: Names) -> None:
    name = names()
    engine.docker("create", "--name", name, IMAGE, "true")
    refused = engine.docker("run", "--rm", "--network", f"container:{name}", IMAGE, "true", check=False)
    assert refused.code == 125
    assert "cannot join network of a non running container" in refused.err


def test_a_name_is_taken_once(engine: EngineProcess, names: Names) -> None:
    name = names()
    first = engine.docker("create", "--name", name, IMAGE).out.strip()
    refused = engine.docker("create", "--name", name, IMAGE, check=False)
    assert refused.code == 1
    assert (
        f'Conflict. The container name "/{name}" is already in use by container "{first}". You have to remove '
        "(or rename) that container to be able to reuse that name." in refused.err
    )
    engine.docker("rename", name, f"{name}-b")
    engine.docker("create", "--name", name, IMAGE)
    assert engine.inspect(f"{name}-b", "{{.Id}}") == first


def test_unknown_and_bad_things_are_refused_by_name(engine: EngineProcess) -> None:
    assert "No such container: nothere" in engine.docker("start", "nothere", check=False).err
    bad = engine.docker("create", "--name", "a b", IMAGE, check=False)
    assert "Invalid container name (a b)" in bad.err
    missing = engine.docker("run", "--rm", IMAGE, "nosuchprogram", check=False)
    assert missing.code == 127
    assert "executable file not found" in missing.err
    denied = engine.docker("run", "--rm", IMAGE, "/etc/passwd", check=False)
    assert denied.code == 126
    policy = engine.docker("create", "--restart", "sometimes", IMAGE, check=False)
    assert "sometimes" in policy.err
    memory = engine.docker("create", "-m", "1m", IMAGE, check=False)
    assert "Minimum memory limit allowed is 6MB" in memory.err


def test_a_running_container_is_removed_by_force_only(engine: EngineProcess, names: Names) -> None:
    name = names()
    engine.docker("run", "-d", "--name", name, IMAGE, "sleep", "1000")
    refused = engine.docker("rm", name, check=False)
    assert "stop the container before removing or force remove" in refused.err
    engine.docker("rm", "-f", name)
    assert engine.docker("inspect", name, check=False).code == 1


def test_ids_are_found_by_prefix(engine: EngineProcess) -> None:
    whole = engine.docker("create", IMAGE).out.strip()
    assert engine.inspect(whole[:12], "{{.Id}}") == whole
    assert re.fullmatch("[0-9a-f]{64}", whole)


def test_privileged_is_shown(engine: EngineProcess, names: Names) -> None:
    name = names()
    engine.docker("create", "--privileged", "--name", name, IMAGE)
    shown = engine.inspect(name, "{{ .Id }}: Privileged={{ .HostConfig.Privileged }}")
    assert shown.endswith(": Privileged=true")


def test_wait_returns_the_exit_code(engine: EngineProcess, names: Names) -> None:
    name = names()
    engine.docker("run", "-d", "--name", name, IMAGE, "sh", "-c", "sleep 0.5; exit 6")
    assert engine.docker("wait", name).out == "6\n"
    assert engine.docker("wait", name).out == "6\n"


@pytest.mark.parametrize(
    ("policy", "code", "restarts"), [("on-failure:3", 1, 3), ("on-failure:3", 0, 0), ("no", 1, 0)]
)
def test_restart_policies_count(
    engine: EngineProcess, names: Names, policy: str, code: int, restarts: int
) -> None:
    name = names()
    engine.docker(
        "run", "-d", "--restart", policy, "--name", name, IMAGE, "sh", "-c", f"echo run; exit {code}"
    )
    until(lambda: engine.inspect(name, "{{.State.Status}}") == "exited", "the last run to end")
    assert engine.inspect(name, "{{.RestartCount}} {{.State.ExitCode}}") == f"{restarts} {code}"
    assert engine.docker("logs", name).out == "run\n" * (restarts + 1)


def test_stop_ends_restarting(engine: EngineProcess, names: Names) -> None:
    name = names()
    engine.docker("run", "-d", "--restart", "always", "--name", name, IMAGE, "sh", "-c", "sleep 0.05")
    until(lambda: int(engine.inspect(name, "{{.RestartCount}}")) >= 2, "two restarts")
    engine.docker("stop", name)
    count = engine.inspect(name, "{{.RestartCount}}")
    assert engine.inspect(name, "{{.State.Status}}") == "exited"
    engine.docker("run", "--rm", IMAGE, "sleep", "1")
    assert engine.inspect(name, "{{.State.Status}} {{.RestartCount}}") == f"exited {count}"


def test_events_tell_the_life_of_a_container(engine: EngineProcess, names: Names) -> None:
    name = names()
    events = Events(engine, "--filter", "type=container")
    try:
        engine.docker("run", "-d", "--name", name, "-l", "tier=web", IMAGE, "sleep", "1000")
        engine.docker("stop", "-t", "0", name)
        engine.docker("rm", name)
        until(lambda: "destroy" in events.actions(name), "the last event")
        assert events.actions(name) == ["create", "start", "kill", "kill", "die", "stop", "destroy"]
        die = next(
            e for e in events.seen if e["Action"] == "die" and e["Actor"]["Attributes"]["name"] == name
        )
        assert die["Actor"]["Attributes"]["exitCode"] == "137"
        assert die["Actor"]["Attributes"]["tier"] == "web"
        assert die["Actor"]["Attributes"]["image"] == IMAGE
    finally:
        events.close()


def test_events_of_the_past_end_at_until(engine: EngineProcess, names: Names) -> None:
    name = names()
    engine.docker("run", "--name", name, IMAGE, "true")
    words = [
        "events",
        "--since",
        "1m",
        "--until",
        f"{time.time():.6f}",
        "--filter",
        f"container={name}",
        "--format",
        "{{.Action}}",
    ]
    past = engine.docker(*words)
    assert past.lines == ["create", "attach", "start", "die"]


def test_exec(engine: EngineProcess, names: Names) -> None:
    name = names()
    engine.docker("run", "-d", "--name", name, "-e", "A=1", IMAGE, "sleep", "1000")
    assert (
        engine.docker("exec", "-e", "B=2", "-w", "/tmp", name, "sh", "-c", "echo $A$B; pwd").out
        == "12\n/tmp\n"
    )
    assert engine.docker("exec", "-i", name, "cat", stdin=b"through").out == "through"
    assert engine.docker("exec", name, "sh", "-c", "echo e >&2; exit 9", check=False).code == 9
    assert engine.docker("exec", name, "nosuchprogram", check=False).code == 127
    engine.docker("exec", "-d", name, "touch", "/tmp/made")
    until(lambda: engine.docker("exec", name, "ls", "/tmp").out == "made\n", "the detached exec")
    engine.docker("kill", name)
    assert "is not running" in engine.docker("exec", name, "true", check=False).err


def test_top_shows_the_processes_of_the_container(engine: EngineProcess, names: Names) -> None:
    name = names()
    engine.docker("run", "-d", "--name", name, IMAGE, "sh", "-c", "sleep 1000 & sleep 2000")
    until(lambda: sum("sleep" in row for row in engine.docker("top", name).lines) == 2, "the two processes")
    assert engine.docker("top", name, "-au").lines[0].split()[:2] == ["USER", "PID"]


def test_info_adds_up(engine: EngineProcess, names: Names) -> None:
    running, paused = names(), names()
    engine.docker("run", "-d", "--name", running, IMAGE, "sleep", "1000")
    engine.docker("run", "-d", "--name", paused, IMAGE, "sleep", "1000")
    engine.docker("pause", paused)
    engine.docker("create", IMAGE)
    info = json.loads(engine.docker("info", "--format", "{{json .}}").out)
    assert (
        info["Containers"],
        info["ContainersRunning"],
        info["ContainersPaused"],
        info["ContainersStopped"],
    ) == (
        3,
        1,
        1,
        1,
    )
    assert info["Images"] == 1
    assert info["LoggingDriver"] == "json-file"
    assert info["CgroupVersion"] in ("1", "2")
    assert "json-file" in info["Plugins"]["Log"]


def test_a_missing_image_is_an_error_of_the_pull(engine: EngineProcess) -> None:
    done = engine.docker("run", "--rm", "127.0.0.1:1/nosuch:1", check=False)
    assert done.code == 125
    assert "Unable to find image '127.0.0.1:1/nosuch:1' locally" in done.err
    assert "cannot pull 127.0.0.1:1/nosuch:1" in done.err
