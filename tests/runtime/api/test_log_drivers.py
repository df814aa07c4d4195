"""``docker logs`` with every driver but none, and containers that never wait for their sink: through the engine.

One engine for all drivers; each finds its sink in this process (``faulty_sink.py``), journald's through a mount
namespace of the engine's. Whatever happens, written = delivered + held + dropped.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from engine_process import IMAGE, EngineProcess, journald_in, running_engine, until
from faulty_sink import PROTOCOLS, Protocol, Server

from logdrivers.block import MAX_LINE
from logdrivers.delivery import STATE_NAME, Counters, read_counters

Names = Callable[[], str]

#: Drivers whose lines stay on the host, rotated often.
LOCAL = {
    "json-file": {"max-size": "20k", "max-file": "100"},
    "json-file-compressed": {"max-size": "20k", "max-file": "100", "compress": "true"},
    "local": {"max-size": "20k", "max-file": "100"},
}
SENDING = (
    "gelf-udp",
    "gelf-tcp",
    "fluentd",
    "fluentd-ack",
    "syslog-udp",
    "syslog-tcp",
    "syslog-unixgram",
    "journald",
)
#: 1500 numbered lines, then as many when /out/go is there; the last has no newline.
TALK = """
n=0; while [ $n -lt 1500 ]; do n=$((n+1)); echo "o$n, a line of some length <&> to fill a file"; done
echo err 1 >&2
until [ -e /out/go ]; do usleep 20000; done
while [ $n -lt 3000 ]; do n=$((n+1)); echo "o$n, a line of some length <&> to fill a file"; done
echo err 2 >&2
printf "o3001, no newline"
exit 7
"""
ALL = [f"o{n}, a line of some length <&> to fill a file" for n in range(1, 3001)] + ["o3001, no newline"]
#: Every length at the limit, a line interrupted by one of the other stream, and ends without a newline.
LONG = """
x() { head -c $1 /dev/zero | tr '\\0' $2; }
for n in 1 16383 16384 16385 32768; do x $n a; echo; done
x 10000 b; usleep 200000; echo between >&2; usleep 200000; x 10000 c; echo
x 20000 d >&2; usleep 200000; x 5 e; usleep 200000; echo f >&2
x 16390 g
x 3 h >&2
"""
OUT = [
    *(b"a" * n for n in (1, 16383, 16384, 16385, 32768)),
    b"b" * 10_000 + b"c" * 10_000,
    b"e" * 5 + b"g" * 16390,
]
ERR = [b"between", b"d" * 20_000 + b"f", b"hhh"]


@dataclass
class Logged:
    """A driver with its options, and its sink if it has one."""

    engine: EngineProcess
    driver: str
    options: dict[str, str]
    server: Server | None
    out: Path
    name: str = ""
    id: str = ""

    def run(self, script: str, name: str) -> None:
        words = [word for key, value in self.options.items() for word in ("--log-opt", f"{key}={value}")]
        self.name = name
        self.id = self.engine.docker(
            "run", "-d", "--name", name, "--network", "none", "-v", f"{self.out}:/out",
            "--log-driver", self.driver, *words, IMAGE, "sh", "-c", script,
        ).out.strip()  # fmt: skip

    def go(self) -> None:
        (self.out / "go").touch()

    def lines(self, *words: str) -> list[str]:
        return self.engine.docker("logs", *words, self.name).lines

    def counters(self) -> Counters:
        found = read_counters(self.engine.state / "containers" / self.id / STATE_NAME)
        assert found is not None
        assert found.written == found.delivered + found.held + sum(found.dropped.values())
        return found


@pytest.fixture(scope="module")
def journal() -> Iterator[Path]:
    """What the engine finds as /run/systemd/journal."""
    made = Path(tempfile.mkdtemp(prefix="tj", dir="/tmp"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def host(journal: Path) -> Iterator[EngineProcess]:
    with journald_in(journal) as prefix, running_engine(prefix=prefix) as engine:
        yield engine


@pytest.fixture
def directory() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="tl", dir="/tmp"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def sending(name: str, host: EngineProcess, directory: Path, journal: Path) -> Logged:
    protocol: Protocol = PROTOCOLS[name]
    server = Server(protocol, journal, "socket") if name == "journald" else Server(protocol, directory)
    return Logged(host, name.partition("-")[0], protocol.options(server.address), server, directory)


@pytest.fixture
def logged(
    request: pytest.FixtureRequest, host: EngineProcess, directory: Path, journal: Path
) -> Iterator[Logged]:
    """The driver that the test is about; its sink is up."""
    name = request.param
    if name in LOCAL:
        made = Logged(host, name.removesuffix("-compressed"), LOCAL[name], None, directory)
    else:
        made = sending(name, host, directory, journal)
        assert made.server is not None
        made.server.open()
    yield made
    host.remove_all()
    if made.server is not None:
        made.server.close()


every_driver = pytest.mark.parametrize("logged", [*LOCAL, *SENDING], indirect=True)


@every_driver
def test_docker_logs_works_live_and_stopped_and_after_the_sink_died(logged: Logged, names: Names) -> None:
    logged.run(TALK, names())
    both = ALL[:1500], ["err 1"]

    def first_half() -> bool:
        shown = logged.engine.docker("logs", logged.name)
        return (shown.out.splitlines(), shown.err.splitlines()) == both

    until(first_half, "the first lines")
    tail_is_right(logged, *both)
    if logged.server is not None:
        until(lambda: logged.counters().held == 0, "the sink to take them")
        logged.server.down()
    follower = logged.engine.popen(
        "logs",
        "-f",
        "--tail",
        "10",
        logged.name,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
    )
    assert follower.stdout is not None
    followed = [follower.stdout.readline().decode().removesuffix("\n")]
    logged.go()
    followed += follower.communicate(timeout=120)[0].decode().splitlines()
    assert logged.engine.docker("wait", logged.name).out == "7\n"
    assert followed == ALL[1500 - (len(followed) - 1501) :]
    assert len(followed) in (1510, 1511)  # one of the ten may be the line on stderr
    shown = logged.engine.docker("logs", logged.name)
    assert shown.out == "\n".join(ALL)
    assert shown.err == "err 1\nerr 2\n"
    tail_is_right(logged, ALL, ["err 1", "err 2"])
    stamped = [line.split(" ", 1) for line in logged.lines("-t")]
    assert [text for _, text in stamped] == ALL
    times = [time for time, _ in stamped]
    assert times == sorted(times)
    since = times[1500]
    assert logged.lines("--since", since) == [text for time, text in stamped if time >= since]
    assert logged.lines("--until", since) == [text for time, text in stamped if time <= since]
    if logged.server is not None:
        assert logged.counters().written == 3003


def tail_is_right(logged: Logged, stdout: list[str], stderr: list[str]) -> None:
    """So many lines of both streams together, the last of each: which pipe was read first is open."""
    for count in (1, 3, 1000, len(stdout) + len(stderr), 10_000):
        shown = logged.engine.docker("logs", "--tail", str(count), logged.name)
        out, err = shown.out.splitlines(), shown.err.splitlines()
        assert len(out) + len(err) == min(count, len(stdout) + len(stderr))
        assert out == stdout[len(stdout) - len(out) :]
        assert err == stderr[len(stderr) - len(err) :]


@every_driver
def test_lines_at_the_limit_come_whole_in_docker_logs_and_in_pieces_to_the_sink(
    logged: Logged, names: Names
) -> None:
    logged.run(LONG, names())
    logged.engine.docker("wait", logged.name)
    shown = subprocess.run(
        ["docker", "-H", logged.engine.url, "logs", logged.name], capture_output=True, check=True
    )
    assert shown.stdout.split(b"\n") == OUT
    assert shown.stderr.split(b"\n") == ERR
    if logged.server is None:
        return
    until(lambda: logged.counters().held == 0, "the sink to take everything")
    drops_empty = logged.driver in ("gelf", "syslog")
    found = logged.counters()
    wanted = {stderr: pieces(ERR if stderr else OUT) for stderr in (False, True)}
    assert found.written == sum(map(len, wanted.values()))
    empty = sum(not text for texts in wanted.values() for text, _ in texts)
    assert found.dropped == ({"empty_line": empty} if drops_empty else {})
    until(lambda: len(logged.server.received) == found.delivered, "the lines to be received")  # type: ignore[union-attr]
    for stderr, texts in wanted.items():
        received = [message for message in logged.server.received if message.stderr is stderr]
        assert [message.text for message in received] == [
            text for text, _ in texts if text or not drops_empty
        ]
        if logged.driver in ("fluentd", "journald"):
            assert [message.ordinal for message in received] == [ordinal for _, ordinal in texts]


def pieces(lines: list[bytes]) -> list[tuple[bytes, int]]:
    """What a journal has of lines of which the last has no newline: the text, and the ordinal of a piece."""
    found: list[tuple[bytes, int]] = []
    for line in lines[:-1]:
        if len(line) < MAX_LINE:
            found.append((line, 0))
            continue
        cuts = range(0, len(line) + 1, MAX_LINE)
        found += [(line[cut : cut + MAX_LINE], number + 1) for number, cut in enumerate(cuts)]
    last = lines[-1]
    cuts = range(0, len(last), MAX_LINE)
    return found + [(last[cut : cut + MAX_LINE], number + 1) for number, cut in enumerate(cuts)]


@pytest.mark.parametrize("fault", ["down", "hangs"])
@pytest.mark.parametrize("name", [name for name in SENDING if not name.endswith("udp")])
def test_nothing_of_a_container_waits_for_its_sink(
    host: EngineProcess, directory: Path, journal: Path, names: Names, name: str, fault: str
) -> None:
    """While the sink is not there or never reads: start, inspect, logs, stop, exit, start again, restart, rm."""
    logged = sending(name, host, directory, journal)
    server = logged.server
    assert server is not None
    if name == "journald" and fault == "down":
        # Without its socket journald cannot be chosen, as with Docker; nobody need listen on it.
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as left_behind:
            left_behind.bind(server.address)
    elif fault == "hangs":

        def hang(sock: socket.socket) -> None:
            server.go_on.wait()
            if server.protocol.stream:
                server.serve(sock)

        server.open(*[hang] * 1000)
    try:
        lines = 'awk \'BEGIN { while (n < 10000) print "o" ++n ", text" }\''
        script = f"trap 'exit 9' TERM; {lines}; while :; do usleep 20000; done"
        logged.run(script, names())
        until(lambda: len(logged.lines()) == 10_000, "the lines")
        if fault == "down" or name.startswith(("fluentd", "gelf")):
            until(lambda: not logged.counters().sink_up, "the sink to be found down")
        # The others hang in their first ten seconds: what follows must not wait for those either.
        assert host.inspect(logged.name, "{{.State.Status}}") == "running"
        host.docker("stop", "-t", "100", logged.name)
        assert host.inspect(logged.name, "{{.State.ExitCode}}") == "9"
        assert len(logged.lines()) == 10_000
        host.docker("start", logged.name)
        until(lambda: len(logged.lines()) == 20_000, "the lines of the second run")
        host.docker("restart", "-t", "100", logged.name)
        until(lambda: len(logged.lines()) == 30_000, "the lines of the third run")
        host.docker("kill", logged.name)
        assert host.inspect(logged.name, "{{.State.ExitCode}}") == "137"
        assert logged.counters().written == 30_000
        assert logged.counters().held > 0
        server.behaviours.clear()
        server.go_on.set()
        if fault == "down":
            Path(server.address).unlink(missing_ok=True)
            server.open()
        until(lambda: logged.counters().held == 0, "the rest to be delivered by the engine")
        assert logged.counters() == Counters(30_000, 30_000)
        until(lambda: len(set(server.marks())) == 10_000, "every line at the sink")
        host.docker("rm", logged.name)
    finally:
        host.remove_all()
        server.close()
