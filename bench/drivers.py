"""Log drivers beside dockerd's, in one run: CPU of the engine's processes per line a container writes.

Both engines run the same image with the same command, which writes a file of lines to its standard output
and then sleeps; what is counted is the CPU time of every process of the engine (dockerd, containerd and its
shim; our engine, template and shim), told by a mark in their environment, until they are quiet again. The
container's own CPU and the receiver's are not counted.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.table import Row, print_table
from taffrail.demo import busybox_rootfs

__all__ = ["KINDS", "main", "measure"]

TICKS = os.sysconf("SC_CLK_TCK")
QUIET_SECONDS = 1.0

#: What a line looks like, about 100 bytes unless the name says otherwise.
KINDS: dict[str, Callable[[int], bytes]] = {
    "plain": lambda n: (
        b"2026-01-31 request %010d served from cache in 12 ms for tenant alpha, 200, 5120 bytes....\n" % n
    ),
    "json": lambda n: (
        b'{"level":"info","id":%010d,"msg":"request \\"served\\" from cache","took":12,"ok":true}\n' % n
    ),
    "quotes": lambda n: (
        b'"a" "b" "c" "%010d" "\\d" "e" <f> & "g" "h" "i" "j" "k" "l" "m" "n" "o" "p" "q" "r" "s"\n' % n
    ),
    "1 KiB": lambda n: b"%010d " % n + b"x" * 1012 + b"\n",
}


@dataclass
class Engine:
    """An engine started for the measurement, and its socket."""

    name: str
    command: Sequence[str]
    socket: Path
    root: Path
    undo: Sequence[str] = ()  #: a command that takes out of the kernel what the engine leaves there
    mark: str = field(default_factory=lambda: f"BENCH_MARK={uuid.uuid4().hex}")

    def __enter__(self) -> Engine:
        key, value = self.mark.split("=")
        log = (self.root / f"{self.name}.log").open("wb")
        self._process = subprocess.Popen(
            self.command, stdout=log, stderr=log, env={**os.environ, key: value}, start_new_session=True
        )
        deadline = time.monotonic() + 60
        while subprocess.run(self._docker("version"), capture_output=True, check=False).returncode:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(
                    f"{self.name} did not start:\n{(self.root / f'{self.name}.log').read_text()[-2000:]}"
                )
            time.sleep(0.1)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(20)
        if self.undo:
            subprocess.run(self.undo, check=False, capture_output=True)
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _docker(self, *words: str) -> list[str]:
        return ["docker", "-H", f"unix://{self.socket}", *words]

    def docker(self, *words: str, stdin: bytes | None = None) -> str:
        """Run the docker CLI against this engine; its output."""
        answer = subprocess.run(self._docker(*words), capture_output=True, input=stdin, check=False)
        if answer.returncode:
            raise RuntimeError(f"{self.name}: docker {' '.join(words)}: {answer.stderr.decode()}")
        return answer.stdout.decode().strip()

    def pids(self) -> list[int]:
        """Every process that carries our mark."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if self.mark.encode() in (entry / "environ").read_bytes().split(b"\0"):
                        found.append(int(entry.name))
        return found

    def cpu_seconds(self) -> float:
        """User and system time of all of them so far, waited-for children included."""
        total = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
                total += sum(map(int, fields[11:13]))
        return total / TICKS

    def settle(self) -> float:
        """CPU seconds once they did not rise for a while."""
        before, since = self.cpu_seconds(), time.monotonic()
        while time.monotonic() - since < QUIET_SECONDS:
            time.sleep(0.1)
            now = self.cpu_seconds()
            if now - before > 0.02:
                before, since = now, time.monotonic()
        return self.cpu_seconds()


def measure(engine: Engine, driver: str, options: Sequence[str], kind: str, lines: int) -> float:
    """Microseconds of the engine's CPU per line."""
    name = f"bench-{uuid.uuid4().hex[:8]}"
    words = [part for option in options for part in ("--log-opt", option)]
    script = f"while [ ! -e /go ]; do sleep 0.05; done; cat '/{kind}'; touch /done; sleep 600"
    engine.docker(
        "run",
        "-d",
        "--name",
        name,
        "--network",
        "none",
        "--log-driver",
        driver,
        *words,
        IMAGE,
        "sh",
        "-c",
        script,
    )
    try:
        pid = int(engine.docker("inspect", "-f", "{{.State.Pid}}", name))
        before = engine.settle()
        Path(f"/proc/{pid}/root/go").touch()
        while not Path(f"/proc/{pid}/root/done").exists():
            time.sleep(0.05)
        return (engine.settle() - before) / lines * 1e6
    finally:
        engine.docker("rm", "-f", name)


IMAGE = "bench/busybox:1"

#: Most microseconds of CPU for a plain line.
BUDGETS = {"json-file": 0.5, "gelf udp, gzip": 12.0, "gelf tcp": 1.3, "fluentd": 1.5}


def budget(title: str, kind: str, theirs: float) -> float | None:
    """What the design allows; for lines full of quotes a third of what dockerd took in the same run."""
    if kind == "quotes":
        return round(theirs / 3, 2)
    return BUDGETS.get(title) if kind == "plain" else None


@contextlib.contextmanager
def engines(root: Path, lines: int) -> Iterator[tuple[Engine, Engine]]:
    """Ours and a private dockerd, both with an image that holds the lines."""
    rootfs = root / "rootfs"
    rootfs.mkdir()
    subprocess.run(["tar", "-x", "-C", str(rootfs)], input=busybox_rootfs(), check=True)
    for kind, line in KINDS.items():
        with (rootfs / kind).open("wb") as file:
            file.writelines(map(line, range(lines)))
    command = [sys.executable, "-P", "-m", "taffrail", "--set", f"paths.run={root}/run", "--set",
               f"paths.state={root}/state", "--set", f"engine.bridge=tb{uuid.uuid4().hex[:8]}"]  # fmt: skip
    ours = Engine(
        "taffrail", [*command, "engine"], root / "run" / "engine.sock", root, [*command, "down", "-t", "0"]
    )
    docker = Engine(
        "dockerd",
        ["dockerd", "--data-root", f"{root}/docker", "--exec-root", f"{root}/exec", "-p", f"{root}/docker.pid",
         "-H", f"unix://{root}/docker.sock", "--iptables=false", "--bridge=none"],
        root / "docker.sock",
        root,
    )  # fmt: skip
    with ours, docker:
        tar = subprocess.run(["tar", "-c", "-C", str(rootfs), "."], capture_output=True, check=True).stdout
        for engine in (ours, docker):
            engine.docker("import", "-", IMAGE, stdin=tar)
        yield ours, docker


class Receivers:
    """Sinks that read and forget, in this process."""

    def __init__(self) -> None:
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind(("127.0.0.1", 0))
        self._tcp = socket.create_server(("127.0.0.1", 0))
        self.udp = f"udp://127.0.0.1:{self._udp.getsockname()[1]}"
        self.tcp = f"127.0.0.1:{self._tcp.getsockname()[1]}"
        for work in (self._drain_udp, self._accept):
            threading.Thread(target=work, daemon=True).start()

    def _drain_udp(self) -> None:
        while True:
            self._udp.recv(65536)

    def _accept(self) -> None:
        while True:
            connection, _ = self._tcp.accept()
            threading.Thread(target=self._drain, args=(connection,), daemon=True).start()

    @staticmethod
    def _drain(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while connection.recv(1 << 20):
                pass


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.drivers", description=__doc__)
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=3, help="runs of each; the median is shown")
    parser.add_argument("--driver", action="append", help="only these drivers")
    args = parser.parse_args(arguments)
    receivers = Receivers()
    cases: list[tuple[str, str, list[str], str, int]] = [
        ("json-file", "json-file", [], kind, args.lines) for kind in KINDS
    ]
    cases += [("json-file, rotating", "json-file", ["max-size=10m", "max-file=3"], "plain", args.lines)]
    for kind in ("plain", "json", "1 KiB"):
        cases += [
            ("gelf udp, gzip", "gelf", [f"gelf-address={receivers.udp}"], kind, args.lines // 20),
            ("gelf tcp", "gelf", [f"gelf-address=tcp://{receivers.tcp}"], kind, args.lines // 2),
            ("fluentd", "fluentd", [f"fluentd-address=tcp://{receivers.tcp}"], kind, args.lines // 2),
        ]
    root = Path(tempfile.mkdtemp(prefix="tb", dir="/tmp"))
    rows = []
    try:
        most = {count for *_, count in cases}
        for count in sorted(most):
            place = root / str(count)
            place.mkdir()
            with engines(place, count) as pair:
                for title, driver, options, kind, lines in cases:
                    if lines != count or (args.driver and driver not in args.driver):
                        continue
                    ours, theirs = (
                        statistics.median(
                            measure(engine, driver, options, kind, lines) for _ in range(args.runs)
                        )
                        for engine in pair
                    )
                    rows.append(
                        Row(
                            f"{title}, {kind}",
                            "µs CPU a line",
                            ours,
                            "dockerd",
                            theirs,
                            budget(title, kind, theirs),
                        )
                    )
                    print(*rows[-1].cells(), sep="  ", file=sys.stderr, flush=True)
        print_table(rows)
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
