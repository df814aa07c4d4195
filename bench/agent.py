"""The agent with running containers: its memory and its share of a core, sampling each second and being scraped.

Containers are real ones of our engine, each with its network namespace; engine and agent are processes of their
own. CPU is the scheduler's count of the agent's process, threads that ended included, so a scrape's is the
difference between a time with scrapes and one without. The peer's figures are DESIGN's, measured with cAdvisor.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from bench.engines import TICKS, Engine
from bench.table import Row, print_table
from taffrail.demo import busybox_rootfs

__all__ = ["Agent", "agent_process", "main", "running_agent"]

IMAGE = "bench/busybox:1"


@dataclass
class Agent:
    """An agent's process and where it listens."""

    process: subprocess.Popen[bytes]
    url: str

    def cpu_seconds(self) -> float:
        """User and system time of all its threads, those that ended included."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def megabytes(self, key: str = "VmRSS") -> float:
        """A line of its status in procfs."""
        found = re.search(rf"^{key}:\s+(\d+) kB", Path(f"/proc/{self.process.pid}/status").read_text(), re.M)
        return int(found[1]) / 1000 if found else 0.0

    def scrape(self) -> int:
        """Fetch /metrics as Prometheus does; how many series there were."""
        request = urllib.request.Request(f"{self.url}/metrics", headers={"Accept-Encoding": "gzip"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return sum(1 for line in gzip.decompress(answer.read()).splitlines() if not line.startswith(b"#"))


@contextlib.contextmanager
def running_agent(count: int, settings: tuple[str, ...] = ()) -> Iterator[Agent]:
    """An engine with this many containers that sleep, and an agent that has seen them all."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="tfb") as directory:
        root = Path(directory)
        values = (f"paths.run={root}/r", f"paths.state={root}/s", f"engine.bridge=tb{uuid.uuid4().hex[:8]}",
                  f"collector.engines={root}/r/engine.sock", "http.address=127.0.0.1:0", "inputs.gelf=",
                  "inputs.forward=", *settings)  # fmt: skip
        command = [sys.executable, "-P", "-m", "taffrail"]
        command += [part for value in values for part in ("--set", value)]
        engine = Engine(
            "taffrail", [*command, "engine"], root / "r/engine.sock", root, [*command, "down", "-t", "0"]
        )
        with engine:
            engine.docker("import", "-", IMAGE, stdin=busybox_rootfs())
            with ThreadPoolExecutor(4) as pool:
                words = ("run", "-d", "-l", "com.docker.compose.project=bench", "-l")
                one = "com.docker.compose.service=s{}"
                list(
                    pool.map(
                        lambda n: engine.docker(
                            *words, one.format(n), "--name", f"c{n}", IMAGE, "sleep", "9999"
                        ),
                        range(count),
                    )
                )
            with agent_process(command, root) as agent:
                while _seen(agent) < count:
                    time.sleep(0.2)
                yield agent


@contextlib.contextmanager
def agent_process(command: Sequence[str], root: Path) -> Iterator[Agent]:
    """An agent that listens, started by ``command`` (without ``agent``), its log in ``root / "agent.log"``.

    ``paths.run`` of the command is to be ``root / "r"``.
    """
    with (root / "agent.log").open("ab") as log:
        process = subprocess.Popen([*command, "agent"], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        file = root / "r/agent.json"
        while not file.exists():
            if process.poll() is not None:
                raise RuntimeError(f"the agent ended:\n{(root / 'agent.log').read_text()[-2000:]}")
            time.sleep(0.05)
        yield Agent(process, f"http://{json.loads(file.read_text())['http']}")
    finally:
        process.terminate()
        process.wait(30)


def _seen(agent: Agent) -> int:
    with urllib.request.urlopen(
        f"{agent.url}/metrics?name=container_memory_usage_bytes", timeout=30
    ) as answer:
        return int(answer.read().count(b'name="'))


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--containers", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--scrapes", type=int, default=10)
    parser.add_argument("--set", action="append", default=[], help="a setting for the agent")
    options = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("running containers needs root")
    with running_agent(options.containers, tuple(options.set)) as agent:
        time.sleep(3)
        before = agent.cpu_seconds()
        time.sleep(options.seconds)
        idle = (agent.cpu_seconds() - before) / options.seconds
        before, started = agent.cpu_seconds(), time.monotonic()
        series = 0
        for _ in range(options.scrapes):
            series = agent.scrape()
            time.sleep(1.2)  # one who asks within a second gets the same page
        scraping = agent.cpu_seconds() - before - idle * (time.monotonic() - started)
        scraped, most = agent.megabytes(), agent.megabytes("VmHWM")
        time.sleep(12)  # it gives back every ten seconds what scrapes left
        megabytes = agent.megabytes()
    print_table(
        [
            Row(f"agent, {options.containers} containers, 1 s sampling", "% of a core", idle * 100,
                "cAdvisor, 40 containers", 4.6, 1.2),
            Row("one scrape of it", "ms", scraping / options.scrapes * 1e3, "cAdvisor, 40 containers", 26),
            Row(f"one scrape, a series of {series}", "µs", scraping / options.scrapes / series * 1e6,
                "cAdvisor", 6.9, 0.7),
            Row("its memory (RSS)", "MB", megabytes, "cAdvisor, 40 containers", 55, 70),
            Row("the same, within a second of a scrape", "MB", scraped),
            Row("the most it was", "MB", most),
        ]
    )  # fmt: skip


if __name__ == "__main__":
    main()
