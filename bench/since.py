"""``docker logs --since``, ``--tail`` and ``--until`` of a large log, beside dockerd's on the same bytes in one run.

The log is written through the driver into the directory of a container that has ended, as its shim would have,
and the very files are put in the place where dockerd has them. A row is the CPU time of the engine for one
``docker logs``; both have to print the same lines. For a log as segments there is no peer.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.engines import KINDS, Engine, engines
from bench.table import Row, print_table
from logdrivers.block import Block, Encoding, Stream
from logdrivers.driver import Info
from logdrivers.journal import Mark
from logdrivers.registry import get

__all__ = ["main"]

_BLOCK_LINES = 400
#: Time between the first and the last line.
_SPAN_NS = 3600 * 10**9


@dataclass(frozen=True)
class Log:
    """One driver's log of a container that has ended, on both engines or on ours alone."""

    title: str
    driver: str
    options: Mapping[str, str]
    beside: bool  #: whether dockerd keeps the same bytes


LOGS = (
    Log("json-file", "json-file", {}, True),
    Log("local", "local", {"max-size": "4g", "max-file": "2", "compress": "false"}, True),
    Log("segments", "gelf", {"gelf-address": "udp://127.0.0.1:9", "journal-max-size": "4g", "journal-keep-size": "4g"},
        False),
)  # fmt: skip


def write(directory: Path, container_id: str, log: Log, size: int) -> tuple[int, int]:
    """Write lines of ``size`` bytes of json-file records; times of the first and the last line."""
    driver = get(log.driver)
    info = Info(container_id, "/bench", "", "", (), 0, directory, dict(log.options))
    journal = driver.journal(info)
    line = KINDS["plain"]
    lines = size // (len(line(0)) + 84)  # what a record has besides
    blocks = lines // _BLOCK_LINES
    last_ns = time.time_ns()
    first_ns = last_ns - _SPAN_NS
    for number in range(blocks + 1):
        first = number * _BLOCK_LINES
        data = b"".join(map(line, range(first, first + _BLOCK_LINES)))
        time_ns = first_ns + _SPAN_NS * number // blocks
        mark = Mark(0, 0)
        journal.append(Block(data, Encoding.LINES, Stream.STDOUT, time_ns, time_ns, _BLOCK_LINES), mark)
    journal.close()
    return first_ns, last_ns


def container(engine: Engine, log: Log) -> str:
    """A container with this driver that has ended: its id."""
    options = [f"{key}={value}" for key, value in log.options.items()]
    name = engine.run(log.driver, options, "true")
    engine.docker("wait", name)
    return engine.docker("inspect", "-f", "{{.Id}}", name)


def copy(source: Path, container_id: str, target: Path, other_id: str) -> None:
    """Put the log files of one container in the place of the other's."""
    shutil.rmtree(target / "local-logs", ignore_errors=True)
    if (source / "local-logs").is_dir():
        (target / "local-logs").mkdir()
        shutil.copy(source / "local-logs" / "container.log", target / "local-logs" / "container.log")
    else:
        shutil.copy(source / f"{container_id}-json.log", target / f"{other_id}-json.log")


def read(engine: Engine, container_id: str, words: Sequence[str], times: int) -> tuple[float, float, bytes]:
    """Milliseconds of the engine's CPU and of the clock for one ``docker logs``, and what it printed."""
    command = ["docker", "-H", f"unix://{engine.socket}", "logs", *words, container_id]
    output = subprocess.run(command, capture_output=True, check=True).stdout
    before, clocks = engine.settle(), []
    for _ in range(times):
        began = time.monotonic()
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
        clocks.append(time.monotonic() - began)
    return (engine.settle() - before) / times * 1e3, statistics.median(clocks) * 1e3, output


def _seconds(time_ns: int) -> str:
    return f"{time_ns // 10**9}.{time_ns % 10**9:09d}"


def cases(first_ns: int, last_ns: int) -> Sequence[tuple[str, list[str]]]:
    """What is asked."""
    middle = (first_ns + last_ns) // 2
    return [
        ("--since the last second", ["--since", _seconds(last_ns - 10**9)]),
        ("--tail 10", ["--tail", "10"]),
        ("--until the first second", ["--until", _seconds(first_ns + 10**9)]),
        ("a second in the middle", ["--since", _seconds(middle), "--until", _seconds(middle + 10**9)]),
    ]


def compare(log: Log, ours: Engine, docker: Engine, root: Path, size: int, times: int) -> list[Row]:
    """The rows of one log."""
    our_id = container(ours, log)
    (directory,) = (root / "state").glob(f"**/containers/{our_id}")
    for old in (
        *directory.glob(f"{our_id}-json*"),
        *directory.glob("local-logs"),
        *directory.glob("journal"),
    ):
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    span = write(directory, our_id, log, size)
    their_id = ""
    if log.beside:
        their_id = container(docker, log)
        copy(directory, our_id, root / "docker" / "containers" / their_id, their_id)
    rows = []
    for what, words in cases(*span):
        cpu, clock, output = read(ours, our_id, words, times)
        if not output:
            raise RuntimeError(f"{log.title}, {what}: no line came")
        title = f"{log.title}, {size >> 20} MiB, {what}"
        theirs: tuple[float | None, float | None] = (None, None)
        if log.beside:
            their_cpu, their_clock, their_output = read(docker, their_id, words, times)
            if output != their_output:
                raise RuntimeError(
                    f"{title}: {len(output)} bytes from ours, {len(their_output)} from dockerd"
                )
            theirs = their_cpu, their_clock
        peer = "dockerd" if log.beside else ""
        rows += [Row(title, "ms CPU", cpu, peer, theirs[0]), Row(title, "ms", clock, peer, theirs[1])]
        print(*rows[-2].cells(), *rows[-1].cells()[1:], sep="  ", file=sys.stderr, flush=True)
    ours.docker("rm", our_id)
    if their_id:
        docker.docker("rm", their_id)
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.since", description=__doc__)
    parser.add_argument("--mib", type=int, default=500, help="size of the log as json-file records")
    parser.add_argument("--times", type=int, default=5, help="runs of each")
    parser.add_argument("--log", action="append", choices=[log.title for log in LOGS], help="only these")
    args = parser.parse_args(arguments)
    root = Path(tempfile.mkdtemp(prefix="tb", dir="/tmp"))
    rows: list[Row] = []
    try:
        with engines(root) as (ours, docker):
            for log in LOGS:
                if not args.log or log.title in args.log:
                    rows += compare(log, ours, docker, root, args.mib << 20, args.times)
        print_table(rows)
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
