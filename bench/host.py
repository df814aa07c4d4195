"""The host's counters: CPU and wall clock of a scrape of ours beside one of Node Exporter, over the same host.

Both serve one whole page a turn; the collectors that only one of them has are switched off. CPU is the
process's own (user and system), over many pages. ``--interfaces`` makes so many veth pairs first, which is
what a host of as many containers has.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from bench.table import Row, print_table
from collector.host.collection import HostGroups
from exporters.prometheus.node_page import NodePage

__all__ = ["main"]

#: Collectors of Node Exporter that we do not have.
OFF = "bcache btrfs fibrechannel infiniband ipvs nfs nfsd nvme rapl systemd tapestats textfile xfs zfs"
_TICK = os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def interfaces(count: int) -> Iterator[None]:
    """So many veth pairs, both ends here."""
    names = [f"bh{uuid.uuid4().hex[:8]}" for _ in range(count)]
    try:
        for name in names:
            subprocess.run(
                ["ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}p"], check=True
            )
        yield
    finally:
        for name in names:
            subprocess.run(["ip", "link", "del", name], check=False)


@contextlib.contextmanager
def node_exporter() -> Iterator[tuple[int, http.client.HTTPConnection]]:
    """A Node Exporter's pid and a connection to it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    process = subprocess.Popen(
        [
            "prometheus-node-exporter",
            f"--web.listen-address=127.0.0.1:{port}",
            "--collector.netdev.device-exclude=^$",
            "--collector.cpu.info",
            "--web.disable-exporter-metrics",
            *(f"--no-collector.{name}" for name in OFF.split()),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        for _ in range(200):
            with contextlib.suppress(OSError):
                connection.connect()
                break
            time.sleep(0.05)
        yield process.pid, connection
    finally:
        connection.close()
        process.terminate()
        process.wait()


def process_seconds(pid: int) -> float:
    """User and system time of a process."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / _TICK


def measure(pages: int) -> list[Row]:
    """Both in turn, page by page, so that both see the same host."""
    page = NodePage(HostGroups(), "bench")
    page.render()
    ours = ours_wall = theirs_wall = 0.0
    with node_exporter() as (pid, connection):
        before = 0.0
        for number in range(-5, pages):
            if number == 0:
                before = process_seconds(pid)
            started = time.perf_counter()
            connection.request("GET", "/metrics")
            connection.getresponse().read()
            middle = time.perf_counter()
            cpu = time.process_time()
            page.render()
            if number >= 0:
                ours += time.process_time() - cpu
                theirs_wall += middle - started
                ours_wall += time.perf_counter() - middle
        theirs = process_seconds(pid) - before
    name = f"the host's series, {page.series} of them"
    peer = "node_exporter"
    return [
        Row(f"a scrape of {name}", "ms CPU", ours / pages * 1e3, peer, theirs / pages * 1e3),
        Row("", "ms", ours_wall / pages * 1e3, peer, theirs_wall / pages * 1e3),
    ]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=int, default=300)
    parser.add_argument("--interfaces", type=int, default=0)
    options = parser.parse_args(argv)
    with interfaces(options.interfaces):
        print_table(measure(options.pages))


if __name__ == "__main__":
    main()
