"""CPU per container and second of those who watch containers, one after the other over the same ones in one run.

Each runs without containers first and then with them: a container's share is the difference, the host's part
and a program's own idling left out. All are in a network namespace of their own. CPU is what the program's
cgroup was charged; dockerd's, which docker stats and cAdvisor make work, is counted with theirs after what it
takes when nobody asks.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from bench.beside_cadvisor import compare
from bench.engines import IMAGE
from bench.watchers import (
    Docker,
    Watcher,
    cadvisor,
    docker_stats,
    netdata,
    node_exporter,
    taffrail,
)
from collector.cgroup.layout import parse_mountinfo

__all__ = ["main"]

#: A little of everything each second, so that no program finds a container unchanged.
SCRIPT = "while :; do i=0; while [ $i -lt 200 ]; do i=$((i+1)); done; echo $i > /f; sleep 1; done"
_SCRAPES = 10
_SETTLE_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Cost:
    """What a program took over some time."""

    cpu: float  #: of a core, sampling, by its cgroup
    by_procfs: float  #: of a core, by its processes' own counts
    dockerd: float  #: of a core, in dockerd, its containerd and shims meanwhile
    asks: bool  #: whether that is its doing
    megabytes: float
    scrape: float = 0.0  #: seconds of CPU a scrape, dockerd's left out
    series: int = 0


def measure(docker: Docker, watcher: Watcher, count: int, seconds: float) -> Cost:
    """Its cost once it shows all containers."""
    deadline = time.monotonic() + 120
    while watcher.seen() < count:
        if time.monotonic() > deadline:
            raise RuntimeError(
                f"{watcher.name} showed {watcher.seen()} of {count} containers after 2 minutes"
            )
        time.sleep(1)
    time.sleep(_SETTLE_SECONDS)  # what it does at its start and on finding them is not sampling
    account = watcher.account
    before = account.seconds(), account.process_seconds(), docker.account.seconds()
    started = time.monotonic()
    time.sleep(seconds)
    took = time.monotonic() - started
    after = account.seconds(), account.process_seconds(), docker.account.seconds()
    cpu, by_procfs, dockerd = ((end - start) / took for start, end in zip(before, after, strict=True))
    scrape, series = 0.0, 0
    if watcher.scrape is not None:
        begun, started = account.seconds(), time.monotonic()
        for _ in range(_SCRAPES):
            page = watcher.scrape()
            time.sleep(1)
        idle = cpu * (time.monotonic() - started)
        scrape = (account.seconds() - begun - idle) / _SCRAPES
        series = len(re.findall(rb"^[^#\n]", page, re.M))
    return Cost(cpu, by_procfs, dockerd, watcher.asks, account.megabytes(), scrape, series)


def idle_dockerd(docker: Docker, seconds: float) -> float:
    """Of a core, while nobody asks it."""
    before = docker.account.seconds()
    time.sleep(seconds)
    return (docker.account.seconds() - before) / seconds


def start_containers(docker: Docker, count: int) -> None:
    """Real ones with an interface each."""
    words = ("run", "-d", "--init=false", "-m", "64m", "-l", "com.docker.compose.project=bench")

    def one(number: int) -> None:
        label = f"com.docker.compose.service=s{number}"
        docker.engine.docker(*words, "-l", label, "--name", f"peer-{number}", IMAGE, "sh", "-c", SCRIPT)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(one, range(count)))


Starts = dict[str, Callable[[], AbstractContextManager[Watcher]]]


def starts(docker: Docker, program: Path | None) -> Starts:
    """Every program by the name in the table."""
    made: Starts = {
        "docker stats": lambda: docker_stats(docker),
        "taffrail": lambda: taffrail(docker, "collector.host_groups="),
    }
    if shutil.which("netdata"):
        made["netdata"] = lambda: netdata(docker)
    if program is not None:
        made["cAdvisor"] = lambda: cadvisor(docker, program)
    made["taffrail, host too"] = lambda: taffrail(docker)
    if shutil.which("prometheus-node-exporter"):
        made["node_exporter"] = lambda: node_exporter(docker)
    return made


@contextlib.contextmanager
def private_docker() -> Iterator[Docker]:
    """A dockerd below a cgroup of this run, which is removed behind it."""
    parent = f"peers-{uuid.uuid4().hex[:8]}"
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="tfp") as directory:
        try:
            with Docker(Path(directory), parent) as docker:
                yield docker
        finally:
            for mount in re.findall(rf"{directory}\S*", Path("/proc/mounts").read_text()):
                subprocess.run(["umount", "-l", mount], check=False)  # network namespaces of dockerd's
            remove(parent)


def remove(parent: str) -> None:
    """Take the cgroup out of every hierarchy."""
    for mount in parse_mountinfo(Path("/proc/self/mountinfo").read_bytes()):
        top = Path(mount.point) / parent
        for below in sorted(top.rglob("*/"), reverse=True):
            with contextlib.suppress(OSError):
                below.rmdir()
        with contextlib.suppress(OSError):
            top.rmdir()


def one_turn(docker: Docker, chosen: Starts, count: int, seconds: float) -> tuple[float, dict[str, Cost]]:
    """What dockerd takes when nobody asks, of a core, and the cost of each program over so many containers."""
    idle, costs = idle_dockerd(docker, seconds), {}
    for name, start in chosen.items():
        with start() as watcher:
            costs[name] = measure(docker, watcher, 1 if name == "node_exporter" else count, seconds)
    return idle, costs


def table(count: int, idle: tuple[float, float], costs: dict[str, tuple[Cost, Cost]]) -> None:
    """Print what each took."""
    print(
        "| program | µs CPU a container and second | of it in dockerd | % of a core, whole program "
        "| the same by procfs | RSS MB | ms CPU a scrape | series | µs a series |\n|" + "---|" * 9
    )
    for name, (empty, full) in costs.items():
        asked = max(full.dockerd - idle[1], 0) - max(empty.dockerd - idle[0], 0) if full.asks else 0.0
        share = (full.cpu - empty.cpu + asked) / count * 1e6
        scrape = (
            f"{full.scrape * 1e3:.1f} | {full.series:,} | {full.scrape / full.series * 1e6:.2f}"
            if full.series
            else " | | "
        )
        print(
            f"| {name} | {share:,.0f} | {asked / count * 1e6:,.0f} | {full.cpu * 100:.2f} "
            f"| {full.by_procfs * 100:.2f} | {full.megabytes:.0f} | {scrape} |"
        )
    others = [full.dockerd for _, full in costs.values() if not full.asks]
    print(
        f"\ndockerd, its containerd and shims: {idle[0] * 100:.2f} % of a core without containers, "
        f"{idle[1] * 100:.2f} with; {', '.join(f'{part * 100:.2f}' for part in others)} beside those that do not ask it"
    )


def versions(program: Path | None) -> str:
    """What ran, on what."""
    commands = [
        ["dockerd", "--version"],
        ["netdata", "-v"],
        ["prometheus-node-exporter", "--version"],
        ["uname", "-sr"],
    ]
    commands += [[str(program), "-version"]] if program else []
    said = []
    for command in filter(lambda words: shutil.which(words[0]), commands):
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        said.append((answer.stdout or answer.stderr).splitlines()[0].partition(" (")[0])
    return f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, Python {sys.version.split()[0]}, {', '.join(said)}"


def main() -> None:
    """Measure and print the table, or compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--containers", type=int, default=40)
    parser.add_argument(
        "--seconds", type=float, default=30, help="time each is measured, with and without containers"
    )
    parser.add_argument("--cadvisor", type=Path, help="cAdvisor's program, where there is one")
    parser.add_argument(
        "--only", action="append", default=[], help="programs to measure, by their name in the table"
    )
    parser.add_argument("--compare", action="store_true", help="compare cAdvisor's series with ours instead")
    parser.add_argument("--keep", type=Path, help="directory for the pages that were compared")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("running containers needs root")
    if options.compare and options.cadvisor is None:
        parser.error("--compare needs --cadvisor")
    if not options.inside:  # the host's other interfaces are not to be paid for
        words = ["unshare", "-n", "sh", "-c", 'ip link set lo up; exec "$@"', "sh", sys.executable]
        os.execvp("unshare", [*words, "-m", "bench.peers", *sys.argv[1:], "--inside"])
    with private_docker() as docker:
        if options.compare:
            sys.exit(compare(docker, options.cadvisor, options.keep))
        chosen = {name: start for name, start in starts(docker, options.cadvisor).items()
                  if name in (options.only or [name])}  # fmt: skip
        print(f"{versions(options.cadvisor)}; {options.containers} containers, {options.seconds:g} s each\n")
        sys.stdout.flush()
        empty = one_turn(docker, chosen, 0, options.seconds)
        start_containers(docker, options.containers)
        full = one_turn(docker, chosen, options.containers, options.seconds)
        costs = {name: (empty[1][name], full[1][name]) for name in chosen}
        table(options.containers, (empty[0], full[0]), costs)


if __name__ == "__main__":
    main()
