"""Listing processes beside ``ps``, looking at who is busiest, and a pass of the map of connections beside ``ss``.

Processes that sleep, each in a network namespace of its own, with and without a listening socket; counted is the
CPU time of whoever reads.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.table import Row, print_table
from collector.container import Container
from collector.discovery.registry import Containers
from collector.processes.graph import ConnectionGraph
from collector.processes.recorder import ProcessArchive, ProcessRecorder
from collector.processes.tree import Processes
from collector.roots import Roots

__all__ = ["main"]

PASSES = 8
PS = ("ps", "-eo", "pid,ppid,user,state,nlwp,time,rss,vsz,lstart,args")
WAIT = "import sys; print(1, flush=True); sys.stdin.read()"
LISTEN = "import socket; kept = socket.create_server(('', 80)); " + WAIT


@contextlib.contextmanager
def spaces(count: int, code: str) -> Iterator[list[int]]:
    """Processes in network namespaces of their own."""
    command = ["unshare", "--net", sys.executable, "-I", "-S", "-c", code]
    running = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(count)]
    try:
        for process in running:
            assert process.stdout is not None
            process.stdout.readline()
        yield [process.pid for process in running]
    finally:
        for process in running:
            process.communicate()


def spent(*command: str) -> float:
    """CPU seconds of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def passes(pids: list[int]) -> float:
    """CPU seconds of a pass of the map over these namespaces and the host's, after the first."""
    containers = Containers()
    for pid in pids:
        containers.update(Container(f"{pid:064x}", f"bench-{pid}", pid=pid))
    graph = ConnectionGraph(containers, Processes(containers).members, Path("/proc"))
    graph.look()
    return sum(graph.look() for _ in range(PASSES)) / PASSES


def busiest(pids: list[int]) -> tuple[float, int, float]:
    """CPU seconds of a recorded look after the first two, processes of the host, and bytes on disk a look."""
    containers = Containers()
    for pid in pids:
        containers.update(Container(f"{pid:064x}", f"bench-{pid}", pid=pid))
    with tempfile.TemporaryDirectory() as directory:
        archive = ProcessArchive(Path(directory), 64 << 20)
        recorder = ProcessRecorder(containers, Roots(), archive)
        for _ in range(2):
            recorder.record()
        spent, size = recorder.cpu_seconds, archive.disk_bytes
        for _ in range(PASSES):
            time.sleep(1)
            recorder.record()
        found = (
            (recorder.cpu_seconds - spent) / PASSES,
            len(recorder.scan),
            (archive.disk_bytes - size) / PASSES,
        )
        archive.close()
        return found


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--containers", type=int, default=100)
    count = parser.parse_args().containers
    rows = []
    with spaces(count, WAIT) as pids:
        processes = Processes(Containers())
        processes.of_host()
        looks = [processes.of_host() for _ in range(PASSES)]
        ours = sum(look.read_cpu_seconds / len(look.rows) for look in looks) / PASSES
        theirs = sum(spent(*PS) for _ in range(PASSES)) / PASSES / len(looks[-1].rows)
        rows.append(Row("a process in a list", "µs CPU", ours * 1e6, "ps", theirs * 1e6))
        seconds, known, size = busiest(pids)
        rows.append(Row(f"a look at who is busiest, {known} processes", "ms CPU", seconds * 1e3))
        rows.append(Row("and what it writes", "bytes", size))
        rows.append(Row(f"the map, {count} idle namespaces", "ms CPU a pass", passes(pids) * 1e3))
    with spaces(count, LISTEN) as pids:
        peer = sum(spent("nsenter", "-t", str(pid), "-n", "ss", "-tani") for pid in pids)
        name = f"the map, {count} namespaces that listen"
        rows.append(Row(name, "ms CPU a pass", passes(pids) * 1e3, "ss", peer * 1e3))
    print_table(rows)


if __name__ == "__main__":
    main()
