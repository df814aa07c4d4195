"""Remote write: CPU per sample from a page of metrics to a receiver's answer, beside a Prometheus agent.

Both have the same pages, in which every value changes, and the same receiver, which forgets what it gets. Ours has
the page in memory, as the agent has; Prometheus (agent mode) scrapes it every second from a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.server
import json
import multiprocessing
import os
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp

from bench.http_receiver import http_receiver
from bench.table import Row, print_table
from exporters.remote_write.config import RemoteWriteConfig
from exporters.remote_write.exporter import RemoteWriteExporter

__all__ = ["main"]

PASSES = 20
_SERIES_EACH = 94


def pages(containers: int) -> list[bytes]:
    """As many series as containers have, cAdvisor's labels, values that are others on every page."""
    made = []
    for number in range(PASSES):
        lines = []
        for container in range(containers):
            labels = f'id="/docker/{container:064x}",image="registry.example/team/service:1.2.3",'
            labels += f'name="service-{container}",container_label_com_docker_compose_project="shop",'
            labels += f'container_label_com_docker_compose_service="s{container}"'
            lines += [
                f"container_bench_{family}_total{{{labels}}} {(number + 1) * (container + family) * 1009.125}"
                for family in range(_SERIES_EACH)
            ]
        made.append(("\n".join(lines) + "\n").encode())
    return made


def measure_ours(made: list[bytes], port: int) -> tuple[float, float, float]:
    """Microseconds a sample of making requests, of all up to the answer, and bytes a sample on the wire."""
    turn = iter(made)
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="tfb") as directory:
        config = RemoteWriteConfig(url=f"http://127.0.0.1:{port}/", directory=Path(directory))
        exporter = RemoteWriteExporter(config, lambda: next(turn))
        whole, making, sizes = asyncio.run(_send(exporter, len(made)))
        samples = exporter.queue.delivered / len(made)
    return (
        statistics.median(making) / samples * 1e6,
        statistics.median(whole) / samples * 1e6,
        sizes / samples,
    )


async def _send(exporter: RemoteWriteExporter, count: int) -> tuple[list[float], list[float], float]:
    whole, making = [], []
    size = 0
    async with aiohttp.ClientSession() as session:
        for _ in range(count):
            before, made = time.process_time(), exporter.cpu_seconds
            await exporter.make_once()
            size += exporter.queue.bytes
            while await exporter.send_first(session) is not None:
                pass
            whole.append(time.process_time() - before)
            making.append(exporter.cpu_seconds - made)
    return whole, making, size / count


@contextlib.contextmanager
def page_server(made: list[bytes]) -> Iterator[int]:
    """Serves the pages in turn, from a process of its own; its port."""
    turn = [0]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = made[turn[0] % len(made)]
            turn[0] += 1
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        child = multiprocessing.get_context("fork").Process(target=server.serve_forever, daemon=True)
        child.start()
        try:
            yield server.server_address[1]
        finally:
            child.terminate()
            child.join()


def measure_prometheus(made: list[bytes], port: int, seconds: float) -> float:
    """Microseconds of CPU a sample of an agent that scrapes every second, once it knows the series."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="tfb") as directory, page_server(made) as target:
        root = Path(directory)
        config = {
            "global": {"scrape_interval": "1s"},
            "scrape_configs": [
                {"job_name": "bench", "static_configs": [{"targets": [f"127.0.0.1:{target}"]}]}
            ],
            "remote_write": [{"url": f"http://127.0.0.1:{port}/"}],
        }
        (root / "p.yml").write_text(json.dumps(config))
        with socket.create_server(("127.0.0.1", 0)) as probe:
            own = probe.getsockname()[1]
        command = ["prometheus", "--enable-feature=agent", f"--config.file={root}/p.yml"]
        command += [f"--storage.agent.path={root}/d", f"--web.listen-address=127.0.0.1:{own}"]
        with (root / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            time.sleep(5)
            before = _cpu_seconds(process.pid)
            time.sleep(seconds)
            used = _cpu_seconds(process.pid) - before
        finally:
            process.terminate()
            process.wait()
    return used / seconds / made[0].count(b"\n") * 1e6


def _cpu_seconds(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--containers", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=20)
    options = parser.parse_args()
    made = pages(options.containers)
    with http_receiver() as port:
        making, whole, size = measure_ours(made, port)
        peer = measure_prometheus(made, port, options.seconds)
    series = made[0].count(b"\n")
    print_table(
        [
            Row(f"{series} samples, page to receiver", "µs a sample", whole, "Prometheus agent", peer),
            Row("of it page to requests", "µs a sample", making),
            Row("request", "bytes a sample", size),
        ]
    )


if __name__ == "__main__":
    main()
