"""Sampling and exposition: CPU per container and second, and per series, beside docker stats and a client library.

Made cgroups with one sleeping process each, a network namespace and a veth to the host, are sampled whole; the
peer is dockerd's own stats stream over as many real containers as ``--docker`` says (its processes' CPU is
counted, told by a mark in their environment), and prometheus-client rendering as many samples with as many labels.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from bench.cgroups import made_containers, open_many_files
from bench.engines import Engine
from bench.table import Row, print_table
from collector.discovery.registry import Containers
from collector.lanes.board import Board
from collector.lanes.groups import CHOICES, make
from collector.roots import Roots
from collector.sampler import Sampler
from exporters.prometheus.exposition import Exposition
from taffrail.demo import busybox_rootfs

__all__ = ["main", "measure_docker", "measure_ours"]

PASSES = 30

_HOLDER = """
import os, resource, socket, sys
from collector.namespaces import enter

most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
kept = []
for process in sys.argv[1:]:
    namespace = os.open(f"/proc/{process}/ns/net", os.O_RDONLY)
    enter(namespace)
    os.close(namespace)
    listener = socket.create_server(("127.0.0.1", 0))
    kept.append(listener)
    for _ in range(2):
        kept += [socket.create_connection(listener.getsockname()), listener.accept()[0]]
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind(("127.0.0.1", 0))
    kept.append(datagrams)
print("ready", flush=True)
sys.stdin.read()
"""


def measure_ours(count: int, network: bool) -> tuple[float, float, int]:
    """Microseconds of CPU per container of a pass, per series of a page, and how many series there were."""
    with made_containers(count, network) as made:
        registry = Containers()
        sampler = Sampler(registry)
        page = Exposition(registry, sampler)
        for container in made:
            registry.update(container)
        sampler.sample_all()
        passes, pages = [], []
        for _ in range(PASSES):
            before = time.thread_time()
            sampler.sample_all()
            middle = time.thread_time()
            page.render()
            passes.append(middle - before)
            pages.append(time.thread_time() - middle)
        sampler.close()
        return (
            statistics.median(passes) / count * 1e6,
            statistics.median(pages[1:]) / page.series * 1e6,
            page.series,
        )


def measure_groups(count: int) -> tuple[dict[str, float], float, int]:
    """CPU microseconds per container and second of every slow group at its default interval; of a series of
    the page with the default groups on it, and how many series there were.

    Every namespace has a TCP server with four connections and a UDP socket.
    """
    with made_containers(count, network=True) as made, contextlib.ExitStack() as stack:
        registry = Containers()
        sampler = Sampler(registry)
        stack.callback(sampler.close)
        for container in made:
            registry.update(container)
        targets = sampler.targets()
        for target in targets.values():
            ip = ["nsenter", "-t", str(target.pid), "-n", "ip", "link", "set", "lo", "up"]
            subprocess.run(ip, check=True)
        stack.enter_context(_sockets([target.pid for target in targets.values()]))
        board = Board()
        costs = {}
        for group in make(Roots(), CHOICES):
            times = []
            for _ in range(5):
                before = time.thread_time()
                for target in targets.values():
                    readings = group.read(target)
                    if CHOICES[group.name].on:
                        board.put(target.container.id, group.name, readings)
                times.append(time.thread_time() - before)
            costs[group.name] = statistics.median(times) / count * 1e6 / group.seconds
        sampler.sample_all()
        page = Exposition(registry, sampler, board=board)
        pages = []
        for _ in range(PASSES):
            before = time.thread_time()
            page.render()
            pages.append(time.thread_time() - before)
        return costs, statistics.median(pages[1:]) / page.series * 1e6, page.series


@contextlib.contextmanager
def _sockets(processes: list[int]) -> Iterator[None]:
    """In each process's namespace what a server has, held by another process: they are too many for this one."""
    command = [sys.executable, "-c", _HOLDER, *map(str, processes)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdout.readline()
        yield
        holder.stdin.close()


def measure_client_library(series: int) -> float:
    """Microseconds of CPU per sample of prometheus-client with seven labels."""
    registry = CollectorRegistry()
    labels = ("container", "id", "image", "name", "project", "service", "interface")
    families = [Gauge(f"bench_{number}", "Bench.", labels, registry=registry) for number in range(30)]
    for number in range(series):
        families[number % 30].labels(*(f"{label}-{number}" for label in labels)).set(number)
    times = []
    for _ in range(5):
        before = time.thread_time()
        generate_latest(registry)
        times.append(time.thread_time() - before)
    return statistics.median(times) / series * 1e6


def measure_docker(count: int, seconds: float) -> float:
    """Microseconds of CPU of dockerd and containerd per container and second of ``docker stats``."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="tfb") as directory:
        root = Path(directory)
        command = ["dockerd", "--data-root", f"{root}/d", "--exec-root", f"{root}/e", "-p", f"{root}/pid"]
        command += ["-H", f"unix://{root}/docker.sock", "--iptables=false", "--bridge=none"]
        with Engine("dockerd", command, root / "docker.sock", root) as engine:
            engine.docker("import", "-", "bench", stdin=busybox_rootfs())
            names = [f"stats-{number}" for number in range(count)]
            for name in names:
                engine.docker("run", "-d", "--network", "none", "--name", name, "bench", "sleep", "3600")
            idle_before = engine.settle()
            time.sleep(seconds)
            idle = engine.cpu_seconds() - idle_before
            watch = subprocess.Popen(
                ["docker", "-H", f"unix://{root}/docker.sock", "stats", *names], stdout=subprocess.DEVNULL
            )
            time.sleep(2)
            before = engine.cpu_seconds()
            time.sleep(seconds)
            busy = engine.cpu_seconds() - before
            watch.kill()  # the command ignores SIGTERM while it waits for a sample
            watch.wait()
            engine.docker("rm", "-f", *names)
            return max(busy - idle, 0) / count / seconds * 1e6


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--containers", type=int, default=200)
    parser.add_argument("--docker", type=int, default=20, help="containers of the peer, 0 for none")
    parser.add_argument("--seconds", type=float, default=15)
    options = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("sampling made cgroups needs root")
    open_many_files()
    plain, _, _ = measure_ours(options.containers, network=False)
    whole, series, count = measure_ours(options.containers, network=True)
    groups, slow_series, slow_count = measure_groups(options.containers)
    peer = measure_docker(options.docker, options.seconds) if options.docker else None
    print_table(
        [
            Row("sampling a container, cgroups alone", "µs a second", plain, budget=100),
            Row("sampling a container, network included", "µs a second", whole, "docker stats", peer, 100),
            Row(
                f"/metrics, {count} series",
                "µs a series",
                series,
                "prometheus-client",
                measure_client_library(count),
                0.7,
            ),
            Row(f"/metrics with slow groups, {slow_count} series", "µs a series", slow_series, budget=0.7),
            *(
                Row(
                    f"group {name}, every {CHOICES[name].seconds:g} s{'' if CHOICES[name].on else ' (off)'}",
                    "µs a second",
                    cost,
                )
                for name, cost in groups.items()
            ),
            Row(
                "slow groups that are on, together",
                "µs a second",
                sum(cost for name, cost in groups.items() if CHOICES[name].on),
                budget=40,
            ),
        ]
    )


if __name__ == "__main__":
    main()
