"""``taffrail top`` in a real terminal (tmux) against a real agent: to the thread that burns, and back in time."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from burning_program import burning_program

#: Five threads that wait and one that burns, an open file and a listening socket, until somebody ends it.
PROGRAM = f"""{burning_program(waiting=5)}
import socket
kept = open("/etc/passwd")
kept.read(7)
listening = socket.create_server(("0.0.0.0", 4711))
threading.Event().wait()
"""


#: More % of a CPU than what waits uses, and less than what burns gets on a host with dozens of others.
BUSY = 1.0


class Terminal:
    """A tmux of the test's own with a shell in it."""

    def __init__(self, root: Path, columns: int = 80, lines: int = 24) -> None:
        self._socket = str(root / f"t{uuid.uuid4().hex[:6]}")
        self._tmux("-f", "/dev/null", "new-session", "-d", "-x", f"{columns}", "-y", f"{lines}", "sh")

    def _tmux(self, *words: str) -> str:
        environment = {**os.environ, "PS1": "$ ", "TERM": "xterm", "LC_ALL": "C.UTF-8"}
        answer = subprocess.run(
            ["tmux", "-S", self._socket, *words],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
            timeout=120,
        )
        return answer.stdout

    def type(self, text: str) -> None:
        self._tmux("send-keys", "-l", text)

    def press(self, *keys: str) -> None:
        """Keys by tmux's names: Enter, Left, BSpace, …"""
        self._tmux("send-keys", *keys)

    def resize(self, columns: int, lines: int) -> None:
        self._tmux("resize-window", "-x", str(columns), "-y", str(lines))

    def screen(self) -> str:
        return self._tmux("capture-pane", "-p")

    def line(self, *words: str) -> str:
        """The line with all these words, "" if none has."""
        return next((line for line in self.screen().splitlines() if all(w in line for w in words)), "")

    def until(self, condition: Callable[[], object], what: str, seconds: float = 150.0) -> None:
        """Wait until ``condition`` holds; fail saying what did not come and what is on the screen."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"did not come: {what}. On the screen:\n{self.screen()}"
            time.sleep(0.1)

    def close(self) -> None:
        self._tmux("kill-server")


@pytest.fixture(scope="module")
def shared_taffrail(make_taffrail: Callable[[], Any], image: str) -> Any:
    """One for the module, which looks at who is busiest every second instead of every ten."""
    running = make_taffrail()
    running.settings.append("collector.process_history_interval=1s")
    running.up()
    running.import_image(image)
    return running


@pytest.fixture
def terminal(shared_taffrail: Any) -> Iterator[Terminal]:
    opened = Terminal(shared_taffrail.root)
    yield opened
    opened.close()


@pytest.fixture
def burner(shared_taffrail: Any, image: str) -> Iterator[str]:
    """A container in which one thread of six burns; its name."""
    name = f"burn-{uuid.uuid4().hex[:6]}"
    python = str(Path(sys.executable).resolve())
    shared_taffrail.docker(
        *("run", "-d", "--name", name, "-v", "/:/host:ro", image),
        *("chroot", "/host", python, "-I", "-S", "-c", PROGRAM),
    )
    yield name
    shared_taffrail.docker("rm", "-f", name, check=False)


@pytest.fixture
def start_top(shared_taffrail: Any, terminal: Terminal) -> Callable[..., None]:
    """Start it in the terminal's shell and wait until it shows the host."""

    def start(*options: str) -> None:
        script = shared_taffrail.root / "top.sh"
        pid = shared_taffrail.root / "top.pid"
        command = shlex.join(shared_taffrail.command("top", *options))
        script.write_text(f"echo $$ >{pid}\nexec {command}\n")
        terminal.type(f"sh {script}; echo status=$?")
        terminal.press("Enter")
        terminal.until(lambda: terminal.line("live") and terminal.line("testhost"), "the list of containers")

    return start


def percent(line: str, column: int) -> float:
    """A number of a row of the screen, by its place among the words."""
    words = line.lstrip("> ").split()
    return float(words[column]) if len(words) > column and re.fullmatch(r"[\d.]+", words[column]) else 0.0


def test_from_the_host_to_the_thread_that_burns_and_back_in_time(
    shared_taffrail: Any, terminal: Terminal, burner: str, start_top: Any
) -> None:
    start_top()
    terminal.type(f"/{burner}")
    terminal.press("Enter")
    terminal.until(
        lambda: percent(terminal.line(burner, "running"), 1) > BUSY, "the load in the list of containers"
    )
    assert terminal.line("testhost", "%") == ""  # the heading is a line of its own
    assert "/ find" in terminal.screen().splitlines()[-1]

    terminal.press("Down")
    terminal.until(lambda: terminal.line(f">{burner}"), "the cursor on the container")
    terminal.press("Enter")
    terminal.until(lambda: percent(terminal.line("> ", "root"), 1) > BUSY, "the process with its load")
    terminal.press("Enter")
    terminal.until(lambda: percent(terminal.line("the-burner"), 1) > BUSY, "the thread that burns")

    def rows_of_threads() -> list[str]:
        return terminal.screen().splitlines()[3:]

    # It is not in every second that a busy host lets it run.
    terminal.until(
        lambda: "the-burner" in "".join(rows_of_threads()[:1]),
        "sorted by CPU, the burning thread is the first",
    )
    rows = rows_of_threads()
    assert len([row for row in rows if "idle-" in row]) == 5
    assert all(percent(row, 1) < BUSY for row in rows if "idle-" in row)

    terminal.press("f")
    terminal.until(lambda: terminal.line("/etc/passwd"), "the open file")
    assert terminal.line("0.0.0.0:4711", "LISTEN"), "the socket by its address"
    terminal.press("Left")
    terminal.until(lambda: terminal.line("the-burner"), "the threads again")
    terminal.press("c")
    terminal.until(lambda: terminal.line("LISTEN", "0.0.0.0:4711"), "the connections of the container")
    terminal.press("BSpace")
    terminal.until(lambda: terminal.line("the-burner"), "the threads again")
    terminal.press("BSpace")
    terminal.press("Left")
    terminal.until(lambda: terminal.line(f">{burner}"), "the containers, the cursor where it was")

    before = "/api/v1/history/at?time=-8"  # further back than a step goes
    terminal.until(lambda: burner in shared_taffrail.get(before), "some seconds of history")
    shared_taffrail.docker("kill", burner)
    terminal.until(lambda: not terminal.line(burner, "running"), "its end in the list")
    terminal.press("[")
    terminal.until(lambda: terminal.line("PAUSED at"), "a moment of the past")

    pressed = ""

    def was_seen_burning() -> bool:
        nonlocal pressed
        if percent(terminal.line(burner, "running"), 1) > BUSY:
            return True
        title = terminal.line("PAUSED at")
        moment = title.partition(",")[0]
        if moment != pressed and "asking" not in title:  # the last key has been answered
            pressed = moment
            terminal.press("[")
        return False

    terminal.until(was_seen_burning, "the load before it ended")
    assert terminal.line("PAUSED at")
    terminal.press("p")
    terminal.until(
        lambda: terminal.line("live") and not terminal.line(burner, "running"), "the present again"
    )
    terminal.press("p")
    terminal.until(lambda: terminal.line("PAUSED at"), "the pause")
    told = terminal.line("PAUSED at")
    terminal.until(lambda: terminal.line("PAUSED at") not in ("", told), "how long ago it is by now")


def test_who_burned_is_found_after_it_was_removed_and_the_agent_killed(
    shared_taffrail: Any, terminal: Terminal, burner: str, start_top: Any, eventually: Any
) -> None:
    moment = 0

    def recorded() -> bool:
        nonlocal moment
        moment = int(time.time()) - 3
        line = shared_taffrail.taffrail("ps", "--json", "--at", f"{moment}", burner, check=False)
        answer = json.loads(line or "{}")
        if (answer.get("cpu_percent") or 0) < 3 * BUSY:  # on disk are averages of longer
            return False
        query = f"pid={answer['pid']}&start={answer['start_ticks']}&time={moment}"
        threads = json.loads(shared_taffrail.get(f"/api/v1/history/threads?{query}"))["threads"]
        return bool(threads and threads[0]["name"] == "the-burner" and threads[0]["cpu_percent"] > 3 * BUSY)

    eventually(lambda: "the-burner" in shared_taffrail.taffrail("ps", burner), "the burner")
    eventually(recorded, "the thread that burns, on disk")
    shared_taffrail.docker("rm", "-f", burner)
    eventually(lambda: written_at(shared_taffrail) > moment // 10 * 10 + 11, "the ten seconds' end")
    pid = shared_taffrail.agent_pid()
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: shared_taffrail.agent_pid() not in (0, pid), "another agent")
    eventually(lambda: burner in shared_taffrail.taffrail("history", check=False), "its answer")

    start_top()
    assert not terminal.line(burner)
    terminal.type("t" + time.strftime("%H:%M:%S", time.localtime(moment)))
    terminal.press("Enter")
    terminal.type(f"/{burner}")
    terminal.press("Enter")
    terminal.until(
        lambda: percent(terminal.line(burner, "running"), 1) > BUSY, "the removed container's load"
    )
    assert terminal.line("PAUSED at")
    terminal.press("Down")
    terminal.until(lambda: terminal.line(f">{burner}"), "the cursor on the container")
    terminal.press("Enter")
    terminal.until(
        lambda: percent(terminal.line("> ", "root"), 1) > BUSY, "the process with its load of then"
    )
    assert terminal.line("the busiest of the", "others used")
    terminal.press("Enter")
    terminal.until(lambda: percent(terminal.line(">", "the-burner"), 1) > BUSY, "the thread that burned")
    assert not terminal.line("idle-"), "the others used nothing"
    table = shared_taffrail.taffrail("history", burner, "--processes", "--since", "5m").splitlines()
    assert re.search(r"^\d+ +root +[\d.]+ s +\d+\.\d .*the-burner \([\d.]+ s\)", table[1]), table
    assert len(table) == 2
    assert burner in shared_taffrail.taffrail("history", "-p", "--since", "5m", "--limit", "0")
    used = json.loads(shared_taffrail.get(f"/api/v1/history/busiest?container={burner}&from=-300"))[
        "processes"
    ]
    assert [thread["name"] for thread in used[0]["threads"]][:1] == ["the-burner"]


def written_at(taffrail: Any) -> float:
    """When the newest step was that the agent has on disk."""
    answer = json.loads(taffrail.get("/api/v1/history/processes?container=/"))
    return float(answer["to"])


def test_several_hosts_in_one_list_one_of_which_is_down_for_a_while(
    shared_taffrail: Any, make_taffrail: Callable[[], Any], terminal: Terminal, burner: str, start_top: Any
) -> None:
    other = make_taffrail()
    agent = subprocess.Popen([*other.command("agent")], stderr=subprocess.DEVNULL)
    try:
        address = f"unix:{other.root}/run/agent.sock"
        start_top(
            "--host", f"testhost=unix:{shared_taffrail.root}/run/agent.sock", "--host", f"second={address}"
        )
        terminal.until(
            lambda: terminal.line("second", "running") or terminal.line("second "), "the other host"
        )
        terminal.until(lambda: not terminal.line("second", "down"), "its answer")
        terminal.until(
            lambda: percent(terminal.line(burner, "testhost"), 1) > BUSY, "a container with its host"
        )
        agent.terminate()
        agent.wait(150)
        terminal.until(lambda: terminal.line("second", "down"), "that it does not answer")
        terminal.until(lambda: terminal.line("second: the agent does not answer"), "why")
        terminal.until(lambda: percent(terminal.line(burner, "testhost"), 1) > BUSY, "the other goes on")
        agent = subprocess.Popen([*other.command("agent")], stderr=subprocess.DEVNULL)
        terminal.until(lambda: not terminal.line("second", "down"), "that it is back")
        terminal.type(f"/{burner}")
        terminal.press("Enter", "End", "Enter")
        terminal.until(lambda: terminal.line(f"containers > {burner} on testhost"), "into it, on its host")
        terminal.until(lambda: percent(terminal.line("> ", "root"), 1) > BUSY, "its process")
    finally:
        agent.terminate()
        agent.wait(150)


def test_from_the_hosts_own_processes_to_the_thread(terminal: Terminal, burner: str, start_top: Any) -> None:
    start_top()
    terminal.until(lambda: terminal.line(">testhost"), "the cursor on the host")
    terminal.press("Enter")
    terminal.until(lambda: terminal.line("containers > testhost"), "the host's processes")
    terminal.type(f"/{burner}")
    terminal.press("Enter")
    terminal.until(
        lambda: percent(terminal.line("> ", "root"), 1) > BUSY, "the container's process among them"
    )
    assert terminal.line("containers > testhost", "(1)")
    terminal.press("Right")
    terminal.until(lambda: percent(terminal.line(">", "the-burner"), 1) > BUSY, "its thread that burns")


def test_expressions_and_words_filter_and_letters_sort(
    terminal: Terminal, burner: str, start_top: Any
) -> None:
    start_top("--no-color")
    terminal.type(f"/cpu > {BUSY} and name:{burner[:-2]}*")
    terminal.until(lambda: terminal.line(burner, "running"), "the container that burns")
    terminal.press("C-u")
    terminal.type(f"cpu < 0 and name:{burner}")
    terminal.until(lambda: not terminal.line(burner, "running"), "no container below nothing")
    terminal.press("Escape")
    terminal.until(lambda: terminal.line(burner, "running"), "all containers again")
    terminal.type("N")
    terminal.until(lambda: terminal.line("NAME^"), "the order by name")
    terminal.type("N")
    terminal.until(lambda: terminal.line("NAMEv"), "the order turned round")
    terminal.type(">")
    terminal.until(lambda: terminal.line("CPU%v"), "the next column")
    terminal.type("/what > 1")
    terminal.press("Enter")
    terminal.until(lambda: terminal.line("no field 'what'"), "what is wrong with the expression")
    terminal.resize(140, 40)
    terminal.until(lambda: terminal.line("IMAGE"), "the columns that a wide terminal has room for")
    assert len(terminal.screen().splitlines()) == 40
    terminal.resize(40, 10)
    terminal.until(
        lambda: len(terminal.screen().splitlines()) == 10 and terminal.line("CPU%v"), "a small one"
    )
    terminal.type("?")
    terminal.until(lambda: terminal.line("Enter", "into"), "the keys")


@pytest.mark.parametrize("way", ["q", "C-c", signal.SIGTERM, signal.SIGHUP])
def test_the_terminal_is_given_back_on_every_way_out(
    shared_taffrail: Any, terminal: Terminal, start_top: Any, way: str | signal.Signals
) -> None:
    terminal.type("echo was here")
    terminal.press("Enter")
    start_top()
    assert not terminal.line("was here")
    if isinstance(way, signal.Signals):
        os.kill(int((shared_taffrail.root / "top.pid").read_text()), way)
    else:
        terminal.press(way)
    status = 128 + way if isinstance(way, signal.Signals) else 0
    terminal.until(lambda: terminal.line(f"status={status}"), "the shell's next line")
    assert terminal.line("was here"), "the first screen is back"
    terminal.type("stty -a | tr ' ;' '\\n\\n' | grep -E '^-?(icanon|echo|isig|opost)$' | tr '\\n' ' '")
    terminal.press("Enter")
    terminal.until(lambda: terminal.line("isig icanon echo"), "a terminal that is not raw")
    assert terminal.line("opost")


def test_without_a_terminal_it_says_what_prints(shared_taffrail: Any) -> None:
    answer = subprocess.run(shared_taffrail.command("top"), capture_output=True, text=True, check=False)
    assert answer.returncode == 1
    assert "needs a terminal" in answer.stderr
    assert "taffrail ps" in answer.stderr


def test_ps_lists_containers_and_a_containers_processes(
    shared_taffrail: Any, burner: str, image: str, eventually: Any
) -> None:
    gone = f"gone-{uuid.uuid4().hex[:6]}"
    shared_taffrail.docker("run", "--name", gone, image, "sh", "-c", "exit 3", check=False)
    eventually(lambda: gone in shared_taffrail.taffrail("ps", "-a"), "the one that ended")
    lines = shared_taffrail.taffrail("ps", "-a").splitlines()
    assert lines[0].split("  ")[0] == "ID"
    assert re.search(r"Exited \(3\) .*ago", next(line for line in lines if gone in line))
    running = next(line for line in lines if burner in line)
    assert re.search(r"Up .* taffrail .*% .*json-file", running)
    assert gone not in shared_taffrail.taffrail("ps")
    assert shared_taffrail.taffrail("ps", "-q", "-f", f"name:{burner}") == running[:12] + "\n"

    def process() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(shared_taffrail.taffrail("ps", "--json", burner))
        return found

    eventually(lambda: process()["threads"] == 7, "all its threads")
    eventually(lambda: (process()["cpu_percent"] or 0) > BUSY, "its load")
    processes = shared_taffrail.taffrail("ps", burner).splitlines()
    assert "the-burner" in processes[1], "the command line, what it prints made visible"
    assert "\\x0a" in processes[1]
    assert len(processes) == 2
    shared_taffrail.docker("rm", gone)
    wrong = subprocess.run(
        shared_taffrail.command("ps", "nobody"), capture_output=True, text=True, check=False
    )
    assert (wrong.returncode, wrong.stderr) == (1, "taffrail ps: No such container: nobody\n")
