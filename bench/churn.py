"""The agent's memory over an hour in which containers come and go: what it holds, minute by minute.

Some made cgroups stay, others appear at a rate, live for moments with a process in them and vanish; a few real
containers of our engine do the same and write lines. The agent is a process of its own and is scraped as
Prometheus does. The last rows say how much it grew once tombstones had come to their number. With ``--alone``
the agent sees none of the host's other cgroups, so that what else goes on there is not measured.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import heapq
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.agent import Agent, agent_process
from bench.engines import IMAGE, Engine
from bench.table import Row, print_table
from collector.cgroup.layout import Layout, parse_mountinfo
from collector.roots import Roots
from taffrail.demo import busybox_rootfs

__all__ = ["Moment", "main"]

_CONTROLLERS = ("cpu", "cpuacct", "memory", "pids", "blkio", "")
#: Seconds a cgroup that comes and goes has its process.
LIVES = (0.1, 0.5, 2.0, 5.0, 20.0)
#: One of so many has a network namespace of its own.
OWN_NETWORK = 8
#: Seconds after which as many tombstones go as come, and rings of seconds are as long as they get.
SETTLED = 900.0


#: Leaves nothing of every hierarchy but our cgroup in it, then runs the command. First arguments: an empty
#: directory and the name of our cgroup.
_ALONE = """
aside=$1; own=$2; shift 2
for top in /sys/fs/cgroup/ /sys/fs/cgroup/*/; do
  mountpoint -q "$top" && test -e "$top$own/cgroup.procs" || continue
  mount --bind "$top$own" "$aside"
  mount -t tmpfs -o size=64k none "$top"
  mkdir "$top$own"
  mount --move "$aside" "$top$own"
done
exec "$@"
"""


@dataclass
class Cgroups:
    """Directories in every hierarchy, under a parent of our own, each with a process that sleeps."""

    parent: str = field(default_factory=lambda: f"/churn-{uuid.uuid4().hex[:8]}")
    made: int = 0

    def __post_init__(self) -> None:
        layout = Layout.read(Roots())
        found = [layout.directory(controller, self.parent) for controller in _CONTROLLERS]
        self._roots = tuple(dict.fromkeys(directory for directory in found if directory is not None))
        self._living: dict[str, subprocess.Popen[bytes]] = {}
        self._ends: list[tuple[float, str]] = []
        self._emptied: list[Path] = []
        for root in self._roots:
            (root / "docker").mkdir(parents=True)

    def make(self, seconds: float) -> None:
        """One more, whose process ends after so many seconds."""
        identity = uuid.uuid4().hex * 2
        self.made += 1
        for root in self._roots:
            (root / "docker" / identity).mkdir()
        sleep = ["sleep", f"{seconds:g}"]
        own = self.made % OWN_NETWORK == 0
        process = subprocess.Popen(["unshare", "-n", *sleep] if own else sleep, stdin=subprocess.DEVNULL)
        for root in self._roots:
            with contextlib.suppress(ProcessLookupError):  # it was quicker
                (root / "docker" / identity / "cgroup.procs").write_text(str(process.pid))
        self._living[identity] = process
        heapq.heappush(self._ends, (time.monotonic() + seconds, identity))

    def reap(self) -> None:
        """Wait for the processes whose time is over and remove their cgroups."""
        while self._ends and self._ends[0][0] < time.monotonic():
            _, identity = heapq.heappop(self._ends)
            self._living.pop(identity).wait()
            self._emptied += [root / "docker" / identity for root in self._roots]
        self._emptied = [directory for directory in self._emptied if not _removed(directory)]

    def close(self) -> None:
        """End what lives and remove everything."""
        for process in self._living.values():
            process.kill()
            process.wait()
        self._emptied += [root / "docker" / identity for identity in self._living for root in self._roots]
        for directory in [*self._emptied, *(root / "docker" for root in self._roots), *self._roots]:
            for _ in range(500):
                if _removed(directory):
                    break
                time.sleep(0.01)
        for mount in parse_mountinfo(Path("/proc/self/mountinfo").read_bytes()):
            _removed(
                Path(mount.point + self.parent)
            )  # where the engine's runtime made it, for its containers


def _removed(directory: Path) -> bool:
    try:
        directory.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False  # its last process is still on its way out
    return True


@dataclass(frozen=True, slots=True)
class Moment:
    """The agent once."""

    seconds: float  #: since the beginning
    rss: float  #: MB
    pss: float  #: MB, without what other processes of this Python share
    descriptors: int
    threads: int
    running: int  #: containers of ours with gauges on the page
    ended: int  #: of ours with a tombstone's counters on the page
    others: int  #: containers on the page that somebody else made
    series: int
    page: float  #: MB, not compressed
    history: float  #: MB on disk
    store: float  #: MB of log lines on disk
    cpu: float  #: seconds so far

    def cells(self) -> str:
        """As a row of the table."""
        return (
            f"| {self.seconds / 60:.0f} | {self.rss:.1f} | {self.pss:.1f} | {self.descriptors} | {self.threads} "
            f"| {self.running} | {self.ended} | {self.others} | {self.series} | {self.page:.1f} "
            f"| {self.history:.2f} | {self.store:.2f} | {self.cpu:.0f} |"
        )


HEAD = (
    "| minute | RSS MB | PSS MB | descriptors | threads | running | ended | others' | series | page MB "
    "| history MB | store MB | CPU s |\n|" + "---|" * 13
)


def look(agent: Agent, started: float, parent: str) -> Moment:
    """Scrape the page and read what the kernel knows of the process."""
    request = urllib.request.Request(f"{agent.url}/metrics", headers={"Accept-Encoding": "gzip"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        page = gzip.decompress(answer.read())
    ours = re.compile(rb'"(?:%s/|[^"]*churn-real-)' % parent.encode())
    seen = [
        line for line in page.splitlines() if line.startswith(b"container_last_seen{") and b"name=" in line
    ]
    alive = re.findall(rb"^container_memory_usage_bytes\{.*", page, re.M)
    running = sum(1 for line in alive if ours.search(line))
    total = sum(1 for line in seen if ours.search(line))
    proc = Path(f"/proc/{agent.process.pid}")
    pss = re.search(r"^Pss:\s+(\d+) kB", (proc / "smaps_rollup").read_text(), re.M)
    return Moment(
        seconds=time.monotonic() - started,
        rss=agent.megabytes(),
        pss=int(pss[1]) / 1000 if pss else 0.0,
        descriptors=sum(1 for _ in (proc / "fd").iterdir()),
        threads=sum(1 for _ in (proc / "task").iterdir()),
        running=running,
        ended=total - running,
        others=len(seen) - total,
        series=page.count(b"\n") - len(re.findall(rb"^#", page, re.M)),
        page=len(page) / 1e6,
        history=_sum(page, b"taffrail_history_disk_bytes") / 1e6,
        store=_sum(page, b"taffrail_store_disk_bytes") / 1e6,
        cpu=agent.cpu_seconds(),
    )


def _sum(page: bytes, name: bytes) -> float:
    return sum(map(float, re.findall(rb"^%s(?:\{.*\})? (\S+)$" % name, page, re.M)))


def growth(moments: Sequence[Moment]) -> list[Row]:
    """What grew after the first quarter of an hour, by a line through all moments since, an hour's worth."""
    late = [moment for moment in moments if moment.seconds >= SETTLED]
    if len(late) < 3:
        return []
    times = [moment.seconds / 3600 for moment in late]
    rows = []
    for name, unit in (("rss", "MB an hour"), ("pss", "MB an hour"), ("descriptors", "an hour"), ("threads", "an hour"),
                       ("series", "an hour")):  # fmt: skip
        slope = statistics.linear_regression(times, [getattr(moment, name) for moment in late]).slope
        rows.append(Row(f"{name} grown after minute {SETTLED / 60:g}", unit, slope))
    spent = (late[-1].cpu - late[0].cpu) / (late[-1].seconds - late[0].seconds)
    rows.append(Row("CPU meanwhile, scrapes included", "% of a core", spent * 100))
    return rows


@contextlib.contextmanager
def running(root: Path, settings: Sequence[str], alone: str) -> Iterator[tuple[Engine, Agent]]:
    """Our engine without containers, and an agent that follows it and the cgroup tree, ``alone`` only of it."""
    values = (f"paths.run={root}/r", f"paths.state={root}/s", f"engine.bridge=tb{uuid.uuid4().hex[:8]}",
              f"collector.engines={root}/r/engine.sock", "http.address=127.0.0.1:0", "inputs.gelf=",
              "inputs.forward=", *settings)  # fmt: skip
    command = [sys.executable, "-P", "-m", "taffrail"]
    command += [part for value in values for part in ("--set", value)]
    undo = [*command, "down", "-t", "0"]
    engine = Engine("taffrail", [*command, "engine"], root / "r/engine.sock", root, undo)
    with engine:
        engine.docker("import", "-", IMAGE, stdin=busybox_rootfs())
        if alone:
            (root / "aside").mkdir()
            command = ["unshare", "-m", "sh", "-c", _ALONE, "sh", f"{root}/aside", alone, *command]
        with agent_process(command, root) as agent:
            yield engine, agent


def churn(agent: Agent, engine: Engine, cgroups: Cgroups, options: argparse.Namespace) -> list[Moment]:
    """Make and unmake until the time is over; a moment every ``--scrape`` seconds, one a minute is printed."""
    chance, moments, failures = random.Random(1), [], 0
    real: list[subprocess.Popen[bytes]] = []
    started = time.monotonic()
    made = scraped = begun = 0
    try:
        for _ in range(options.steady):
            cgroups.make(options.minutes * 60 + 600)
        while (now := time.monotonic() - started) < options.minutes * 60:
            for _ in range(min(int(now * options.rate) - made, 20)):
                cgroups.make(chance.choice(LIVES))
                made += 1
            if int(now * options.real) > begun:
                begun += 1
                real.append(_real(engine, begun, cgroups.parent))
            cgroups.reap()
            real = [process for process in real if process.poll() is None]
            if now >= scraped * options.scrape:
                scraped = int(now / options.scrape) + 1
                try:
                    moments.append(look(agent, started, cgroups.parent))
                except OSError as error:
                    failures += 1
                    print(f"minute {now / 60:.1f}: {error}", flush=True)
                    continue
                if moments[-1].seconds // 60 > (moments[-2].seconds // 60 if moments[1:] else -1):
                    print(moments[-1].cells(), flush=True)
            time.sleep(0.02)
        print(f"\n{made} cgroups and {begun} containers came and went, {failures} scrapes failed.\n")
        return moments
    finally:
        for process in real:
            process.wait(60)


def _real(engine: Engine, number: int, parent: str) -> subprocess.Popen[bytes]:
    script = f"i=0; while [ $i -lt 100 ]; do echo line $i of {number}; i=$((i+1)); done; sleep {number % 3}"
    words = ("docker", "-H", f"unix://{engine.socket}", "run", "--rm", "--name", f"churn-real-{number}")
    return subprocess.Popen(
        [*words, "--cgroup-parent", parent, IMAGE, "sh", "-c", script],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rate", type=float, default=5, help="made cgroups a second")
    parser.add_argument("--real", type=float, default=0.1, help="containers of our engine a second")
    parser.add_argument("--steady", type=int, default=50, help="made cgroups that stay")
    parser.add_argument("--scrape", type=float, default=10, help="seconds between scrapes")
    parser.add_argument("--set", action="append", default=[], help="a setting for the agent")
    parser.add_argument("--alone", action="store_true", help="hide all other cgroups from the agent")
    options = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("making cgroups needs root")
    print(HEAD, flush=True)
    cgroups = Cgroups()
    try:
        with tempfile.TemporaryDirectory(dir="/tmp", prefix="tfb") as directory:
            alone = cgroups.parent.strip("/") if options.alone else ""
            with running(Path(directory), options.set, alone) as (engine, agent):
                moments = churn(agent, engine, cgroups, options)
    finally:
        cgroups.close()
    print_table(growth(moments))


if __name__ == "__main__":
    main()
