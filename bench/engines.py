"""The two engines that are measured: ours and a private dockerd, with the CPU time of all that belongs to each.

An engine's processes are known by a mark in their environment, so its helpers and shims count as well. What
is run on them and what becomes a row is ``bench.drivers`` and ``bench.trickle``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from taffrail.demo import busybox_rootfs

__all__ = ["FILE_LINES", "IMAGE", "KINDS", "Engine", "engines"]

TICKS = os.sysconf("SC_CLK_TCK")
QUIET_SECONDS = 0.7
IMAGE = "bench/busybox:1"

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
#: Lines in each file of the image; a container that is to write more writes the file again.
FILE_LINES = 10_000


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

    def run(self, driver: str, options: Sequence[str], script: str) -> str:
        """Start a container of the image with a log driver: its name."""
        name = f"bench-{uuid.uuid4().hex[:8]}"
        words = [part for option in options for part in ("--log-opt", option)]
        self.docker("run", "-d", "--name", name, "--network", "none", "--log-driver", driver, *words,
                    IMAGE, "sh", "-c", script)  # fmt: skip
        return name

    def pids(self) -> list[int]:
        """Every process that carries our mark."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if self.mark.encode() in (entry / "environ").read_bytes().split(b"\0"):
                        found.append(int(entry.name))
        return found

    def cpu_by_name(self) -> Mapping[str, float]:
        """User and system time so far of processes of one name, waited-for children left out."""
        spent: dict[str, float] = {}
        for pid in self.pids():
            with contextlib.suppress(OSError):
                before, _, behind = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
                name = before.partition("(")[2].partition(":")[0]
                ticks = sum(map(int, behind.split()[11:13]))
                spent[name] = spent.get(name, 0.0) + ticks / TICKS
        return spent

    def run_seconds_by_name(self) -> Mapping[str, float]:
        """The same to the nanosecond, by the scheduler's count: threads that have ended are left out."""
        spent: dict[str, float] = {}
        for pid in self.pids():
            with contextlib.suppress(OSError):
                name = Path(f"/proc/{pid}/comm").read_text().strip().partition(":")[0]
                for task in Path(f"/proc/{pid}/task").iterdir():
                    nanoseconds = int((task / "schedstat").read_text().split()[0])
                    spent[name] = spent.get(name, 0.0) + nanoseconds / 1e9
        return spent

    def cpu_seconds(self) -> float:
        """The time of all of them."""
        return sum(self.cpu_by_name().values())

    def settle(self) -> float:
        """CPU seconds once they did not rise for a while."""
        before, since = self.cpu_seconds(), time.monotonic()
        while time.monotonic() - since < QUIET_SECONDS:
            time.sleep(0.1)
            now = self.cpu_seconds()
            if now - before > 0.02:
                before, since = now, time.monotonic()
        return self.cpu_seconds()


@contextlib.contextmanager
def engines(root: Path) -> Iterator[tuple[Engine, Engine]]:
    """Ours and a private dockerd, both with an image that holds a file of each kind of line.

    What either keeps in /run on a host is in ``root / "run"``: mount a tmpfs there, as /run is one.
    """
    (root / "run").mkdir(exist_ok=True)
    rootfs = root / "rootfs"
    rootfs.mkdir()
    subprocess.run(["tar", "-x", "-C", str(rootfs)], input=busybox_rootfs(), check=True)
    for kind, line in KINDS.items():
        with (rootfs / kind).open("wb") as file:
            file.writelines(map(line, range(FILE_LINES)))
    command = [sys.executable, "-P", "-m", "taffrail", "--set", f"paths.run={root}/run/taffrail", "--set",
               f"paths.state={root}/state", "--set", f"engine.bridge=tb{uuid.uuid4().hex[:8]}"]  # fmt: skip
    ours = Engine(
        "taffrail",
        [*command, "engine"],
        root / "run" / "taffrail" / "engine.sock",
        root,
        [*command, "down", "-t", "0"],
    )
    docker = Engine(
        "dockerd",
        ["dockerd", "--data-root", f"{root}/docker", "--exec-root", f"{root}/run/docker", "-p", f"{root}/docker.pid",
         "-H", f"unix://{root}/docker.sock", "--iptables=false", "--bridge=none"],
        root / "docker.sock",
        root,
    )  # fmt: skip
    with ours, docker:
        tar = subprocess.run(["tar", "-c", "-C", str(rootfs), "."], capture_output=True, check=True).stdout
        for engine in (ours, docker):
            engine.docker("import", "-", IMAGE, stdin=tar)
        yield ours, docker
