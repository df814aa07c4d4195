"""kill -9 of shims, engine, template and receivers at random, with every log driver at work at once.

Afterwards ``docker logs`` has every line once and in order, exit codes are the containers' own,
written = delivered + held + dropped holds with nothing held and nothing dropped, and the receivers have
what their protocol can promise: with acknowledgement every line; over a plain stream or a Unix socket all but
what the receiver's kernel had taken and the receiver had not read when it was killed.

``KILLS`` and ``KILL_SEED`` make a longer or another hunt of it.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from engine_process import IMAGE, EngineProcess, journald_in, running_engine, until
from held_port import hold_port
from line_receiver import Receiver

from logdrivers.block import MAX_LINE
from logdrivers.delivery import STATE_NAME, Counters, read_counters
from logdrivers.driver import Info
from logdrivers.registry import get
from runtime.launch import SPEC_FILE

KILLS = int(os.environ.get("KILLS", "200"))
SEED = int(os.environ.get("KILL_SEED", "1"))
#: A host that is so busy that it has not made them by then makes fewer.
HUNT_SECONDS = max(300.0, 1.5 * KILLS)
#: Who is killed, by weight: while containers run, and while they end. Of a container whose engine, template
#: and shim are all killed around its end nobody of ours may have had the last output.
ALIVE = {"shim": 55, "receiver": 30, "template": 9, "engine": 6}
#: Whose shims are parked between two bursts, as others are after ten seconds.
PARKED = ("json-file", "local")
PARK_SECONDS = 0.001
ENDING = {"shim": 60, "receiver": 20, "engine": 20}
#: Kernels before 6.15 cannot tell how a process ended whose parent was killed; Docker's word for that is 255.
TELLS_EXITS = tuple(int(n) for n in re.findall(r"\d+", os.uname().release)[:2]) >= (6, 15)

#: Bursts of up to 40 marked lines, one on stderr with each, and now and then one of 16 to 64 KiB, until
#: /out/stop is there; then the lines are counted, and the last one has no newline. None is a multiple of
#: 16 KiB: the empty piece after its last would not be sent.
WRITER = """
o=0; e=0; b=0
while [ ! -e /out/stop ]; do
  b=$((b+1)); n=$((o+1+b*7%40))
  while [ $o -lt $n ]; do o=$((o+1)); echo "o$o, $b of a burst <&>"; done
  e=$((e+1)); echo "e$e, oops" >&2
  if [ $((b%15)) = 0 ]; then
    o=$((o+1)); l="o$o,"
    while [ ${#l} -lt 16384 ]; do l="$l$l"; done
    [ $((b%2)) = 0 ] || l="$l$l"
    echo "$l$o"
  fi
  usleep $PAUSE
done
echo $o $e >/out/count
printf "o$((o+1)), the end"
exit $CODE
"""


def expected_lines(last: int) -> list[str]:
    """What the container wrote to stdout, but for what bursts say of themselves."""
    out: list[str] = []
    burst = 0
    while len(out) < last:
        burst += 1
        for _ in range(1 + burst * 7 % 40):
            out.append(f"o{len(out) + 1}, {burst} of a burst <&>\n")
        if burst % 15 == 0:
            mark = f"o{len(out) + 1},"
            line = mark
            while len(line) < MAX_LINE:
                line += line
            out.append((line if burst % 2 == 0 else line * 2) + f"{mark[1:-1]}\n")
    assert len(out) == last
    return [*out, f"o{last + 1}, the end"]


def pieces(lines: Sequence[str]) -> int:
    """How many lines a journal counts: a long line is its pieces."""
    return sum(len(line.removesuffix("\n")) // MAX_LINE + 1 for line in lines)


@dataclass
class Writer:
    """A container, its driver, and where its lines go besides."""

    driver: str
    options: dict[str, str]
    receiver: Receiver | None = None
    acknowledged: bool = False
    pause: int = 60_000  #: microseconds between its bursts
    out: Path = Path()
    id: str = ""
    code: int = 0

    def run(self, engine: EngineProcess, name: str, out: Path, code: int) -> None:
        self.out, self.code = out, code
        out.mkdir()
        words = [word for key, value in self.options.items() for word in ("--log-opt", f"{key}={value}")]
        self.id = engine.docker(
            "run", "-d", "--name", name, "--network", "none", "-v", f"{out}:/out", "-e", f"CODE={code}",
            "-e", f"PAUSE={self.pause}",
            "--log-driver", self.driver, *words, IMAGE, "sh", "-c", WRITER,
        ).out.strip()  # fmt: skip

    def park_soon(self, engine: EngineProcess, seconds: float) -> None:
        """Have its shims parked between bursts: from the next engine on, which reads that, and the next shim."""
        path = engine.root / "r" / "engine" / "c" / self.id / SPEC_FILE
        saved = json.loads(path.read_text())
        saved["spec"]["park_seconds"] = seconds
        path.write_text(json.dumps(saved))

    def directory(self, engine: EngineProcess) -> Path:
        return engine.state / "containers" / self.id

    def counters(self, engine: EngineProcess) -> Counters:
        found = read_counters(self.directory(engine) / STATE_NAME)
        assert found is not None
        return found


def writers(root: Path, held: contextlib.ExitStack) -> dict[str, Writer]:
    """One of each: the drivers that keep lines on the host, and every protocol. Ports are held until ``held`` ends."""

    def stream(name: str, protocol: str) -> Receiver:
        port = held.enter_context(hold_port()).getsockname()[1]
        return Receiver(protocol, f"127.0.0.1:{port}", root / name)

    def datagrams(name: str, path: Path) -> Receiver:
        return Receiver("datagrams", str(path), root / name)

    gelf, plain = stream("gelf", "gelf"), stream("plain", "fluentd")
    acked, syslog = stream("acked", "fluentd"), stream("syslog", "syslog")
    unix, journald = datagrams("unixgram", root / "u"), datagrams("journald", root / "journal" / "socket")
    rotated = {"max-size": "300k", "max-file": "1000"}
    return {
        "json-file": Writer("json-file", rotated),
        "local": Writer("local", rotated, pause=1_000_000),
        "gelf": Writer("gelf", {"gelf-address": f"tcp://{gelf.address}"}, gelf),
        "fluentd-ack": Writer(
            "fluentd",
            {"fluentd-address": acked.address, "fluentd-request-ack": "true"},
            acked,
            acknowledged=True,
        ),
        "fluentd": Writer("fluentd", {"fluentd-address": plain.address}, plain),
        "syslog": Writer("syslog", {"syslog-address": f"tcp://{syslog.address}"}, syslog),
        "syslog-unixgram": Writer("syslog", {"syslog-address": f"unixgram://{unix.address}"}, unix),
        "journald": Writer("journald", {}, journald),
    }


def processes(engine: EngineProcess, name: str) -> list[int]:
    """The engine's shims or its template: their names begin so, and their arguments name its directory."""
    mark = str(engine.root / "r").encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if (entry / "comm").read_text().startswith(name) and mark in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
    return sorted(found)


def is_parked(pid: int) -> bool:
    """Whether the shim is parked: once it is not, it writes to the container's own log."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/fd/2").readlink().name == "template.log"
    return False


def all_held(engine: EngineProcess, writers: Collection[Writer]) -> bool:
    """Whether a template is there that keeps the streams of every container."""
    for pid in processes(engine, "taffrail-templ"):
        with contextlib.suppress(OSError):
            held = [str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()]
            return all(any(writer.id in link for link in held) for writer in writers)
    return False


@dataclass
class Hunt:
    """The schedule of kills."""

    host: EngineProcess
    receivers: list[Receiver]
    chance: random.Random
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ALIVE, 0))
    parked: int = 0  #: how many of the shims that were killed were parked

    def run(self, kills: int, weights: Mapping[str, int], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while sum(self.counts.values()) < kills and time.monotonic() < deadline:
            self.bring_back()
            kinds = self.chance.choices(list(weights), list(weights.values()))
            if self.chance.random() < 0.1:
                kinds = self.chance.sample(list(weights), 3)
            for kind in kinds:
                self.counts[kind] += getattr(self, kind)()
            if "engine" in kinds:
                self.start_engine()
            time.sleep(self.chance.uniform(0, 0.2))

    def shim(self) -> bool:
        pids = processes(self.host, "shim:")
        if not pids:
            return False
        parked = [pid for pid in pids if is_parked(pid)]
        if parked and self.chance.random() < 0.3:
            pids = parked
        pid = self.chance.choice(pids)
        self.parked += pid in parked
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return True

    def template(self) -> bool:
        pids = processes(self.host, "taffrail-templ")
        for pid in pids[:1]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return bool(pids)

    def receiver(self) -> bool:
        alive = [one for one in self.receivers if one.process is not None]
        if not alive:
            return False
        one = self.chance.choice(alive)
        if not one.stopped_until and self.chance.random() < 0.3:
            one.stop(time.monotonic() + self.chance.uniform(0, 0.5))
            return False
        one.kill(self.chance.uniform(0, 0.4))
        return True

    def engine(self) -> bool:
        self.host.kill()
        return True

    def start_engine(self) -> None:
        """Sometimes it is killed again while it takes its containers over."""
        while self.chance.random() < 0.3:
            self.host.process = self.host.spawn()
            time.sleep(self.chance.uniform(0.2, 1.5))
            self.host.kill()
            self.counts["engine"] += 1
        self.host.start()

    def bring_back(self, *, all_of_them: bool = False) -> None:
        for one in self.receivers:
            if one.stopped_until and (all_of_them or time.monotonic() >= one.stopped_until):
                one.kill(0.0)
                self.counts["receiver"] += 1
            if one.process is None and (all_of_them or time.monotonic() >= one.back_at):
                one.start()


@pytest.fixture
def root() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="tk", dir="/tmp"))
    (made / "journal").mkdir()
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def host(root: Path) -> Iterator[EngineProcess]:
    """An engine that finds our receiver where journald listens."""
    with journald_in(root / "journal") as prefix, running_engine(prefix=prefix) as engine:
        yield engine


@pytest.mark.timeout(2 * HUNT_SECONDS + 300)
def test_kills_at_random_leave_every_line_and_every_count(host: EngineProcess, root: Path) -> None:
    held = contextlib.ExitStack()
    running = writers(root, held)
    receivers = [writer.receiver for writer in running.values() if writer.receiver is not None]
    hunt = Hunt(host, receivers, random.Random(SEED))
    try:
        hunt.bring_back(all_of_them=True)
        until(lambda: all(one.file.exists() for one in receivers), "the receivers")
        until((root / "journal" / "socket").is_socket, "the receiver for journald")
        for number, (name, writer) in enumerate(running.items()):
            writer.run(host, name, root / f"out-{name}", 40 + number)
        for name in PARKED:
            running[name].park_soon(host, PARK_SECONDS)
        hunt.engine()
        hunt.start_engine()
        hunt.run(KILLS * 9 // 10, ALIVE, 0.9 * HUNT_SECONDS)
        until(lambda: all_held(host, running.values()), "a template that has every container's streams")
        for writer in running.values():
            (writer.out / "stop").touch()
        hunt.run(KILLS, ENDING, 0.1 * HUNT_SECONDS)
        assert sum(hunt.counts.values()) >= KILLS // 10, hunt.counts
        hunt.bring_back(all_of_them=True)
        codes = {name: int(host.docker("wait", name).out) for name in running}
        wanted_codes = {name: writer.code for name, writer in running.items()}
        if TELLS_EXITS:
            assert codes == wanted_codes
        else:
            assert all(codes[name] in (code, 255) for name, code in wanted_codes.items()), codes
        for name, writer in running.items():
            check(host, name, writer)
        print(f"seed {SEED}: {hunt.counts}, {hunt.parked} of the shims parked")
    finally:
        for one in receivers:
            one.end()
        held.close()


def check(engine: EngineProcess, name: str, writer: Writer) -> None:
    """Everything that must hold of one container once all is up again."""
    last, errors = map(int, (writer.out / "count").read_text().split())
    stdout, stderr = expected_lines(last), [f"e{n}, oops\n" for n in range(1, errors + 1)]
    shown = engine.docker("logs", name)
    assert differences(shown.out, stdout) == [], f"{name}: stdout"
    assert differences(shown.err, stderr) == [], f"{name}: stderr"
    written = pieces(stdout) + len(stderr)
    info = Info(writer.id, name, "", "", (), 0, writer.directory(engine), writer.options)
    reader = get(writer.driver).reader(info)
    assert reader is not None
    assert reader.end_line() == written, name
    reader.close()
    if writer.receiver is None:
        return
    until(lambda: writer.counters(engine).held == 0, f"{name}: everything delivered")
    found = writer.counters(engine)
    assert (found.written, found.delivered, found.held, found.dropped) == (written, written, 0, {}), name
    if writer.acknowledged:
        check_all_arrived(writer.receiver, stdout, stderr)
    else:
        check_only_kills_took_lines(name, writer.receiver, len(stdout), len(stderr))


def differences(shown: str, wanted: Sequence[str]) -> list[tuple[int, str, str]]:
    """The first lines that are not as wanted: where, found, wanted; shortened."""
    found = shown.splitlines(keepends=True)
    length = max(len(found), len(wanted))
    rows = zip(
        range(length),
        [*found, *[""] * (length - len(found))],
        [*wanted, *[""] * (length - len(wanted))],
        strict=True,
    )
    return [(n, one[:40], other[:40]) for n, one, other in rows if one != other][:5]


def check_all_arrived(receiver: Receiver, stdout: Sequence[str], stderr: Sequence[str]) -> None:
    """At least once, every piece of every line."""
    got = {entry for life in receiver.incarnations() for entry in life}
    wanted = {("e", number + 1, 0) for number in range(len(stderr))}
    for number, line in enumerate(stdout[:-1]):
        size = len(line) - 1
        ordinals = range(1, size // MAX_LINE + 2) if size >= MAX_LINE else (0,)
        # A piece of no bytes carries no mark.
        wanted |= {("o", number + 1, n) for n in ordinals if not n or (n - 1) * MAX_LINE + 20 < size}
    wanted.add(("o", len(stdout), 1))
    assert sorted(wanted - got)[:10] == []


def check_only_kills_took_lines(name: str, receiver: Receiver, stdout: int, stderr: int) -> None:
    """Without acknowledgement: what is missing is missing between the end of one life and the next."""
    counts = {"o": stdout, "e": stderr}
    with contextlib.suppress(AssertionError):  # the last lines may still wait in the kernel for it
        until(lambda: not any(not_killed(receiver, *one) for one in counts.items()), "")
    lives = receiver.incarnations()
    for stream, last in counts.items():
        near = {
            number for wrong in not_killed(receiver, stream, last) for number in range(wrong - 9, wrong + 10)
        }
        told = [[number for mark, number, _ in life if mark == stream and number in near] for life in lives]
        assert not near, (
            f"{name}: of {last} lines of {stream} some lost without a kill of the receiver: {told}"
        )
        assert numbers(lives, stream) <= set(range(1, last + 1)), name
    lost = stdout + stderr - sum(len(numbers(lives, stream)) for stream in counts)
    print(f"{name}: {receiver.kills} kills of its receiver took {lost} of {stdout + stderr} lines")


def not_killed(receiver: Receiver, stream: str, last: int) -> list[int]:
    """The lines that are missing although no kill of the receiver took them."""
    lives = receiver.incarnations()
    missing = set(range(1, last + 1)) - numbers(lives, stream)
    allowed = killed_gaps(lives, stream)
    return [number for number in sorted(missing) if not any(low < number < high for low, high in allowed)]


def numbers(lives: Sequence[Sequence[tuple[str, int, int]]], stream: str) -> set[int]:
    """The lines of a stream that were received."""
    return {number for life in lives for mark, number, _ in life if mark == stream}


def killed_gaps(lives: Sequence[Sequence[tuple[str, int, int]]], stream: str) -> list[tuple[int, float]]:
    """For each end of a life the line before it and the first after it that is later, if any is."""
    gaps: list[tuple[int, float]] = []
    for at in range(1, len(lives)):
        low = max(numbers(lives[:at], stream), default=0)
        later = (number for life in lives[at:] for mark, number, _ in life if mark == stream and number > low)
        gaps.append((low, next(later, math.inf)))
    return gaps
