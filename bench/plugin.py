"""What the log plugin costs per line: CPU of the ``taffrail plugin`` process, from the FIFO to journal and sink.

Frames as Docker Engine writes them, a time for each line, are written into a FIFO by this process, which plays
the engine; counted are all threads of the plugin, until it has answered StopLogging and its sink has everything.
With ``--beside`` a real dockerd feeds the plugin: its CPU and the plugin's together beside its own drivers'.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.drivers import cases
from bench.drivers import measure as measure_engine
from bench.engines import KINDS, engines
from bench.receivers import in_own_mounts, own_root, receivers
from bench.sinks import receiver
from bench.table import Row, print_table
from logdrivers.block import Stream
from logdrivers.delivery import STATE_NAME, read_counters
from logdrivers.plugin.frames import encode

__all__ = ["main"]

START_NS = 1_800_000_000_000_000_000
#: An engine stamps each line of a busy container some microseconds after the one before.
STEP_NS = 4_567
#: The rows of ``bench.drivers`` that a dockerd and the plugin are measured with together.
BESIDE = ("json-file", "local, rotating, compress", "gelf tcp", "gelf udp, gzip", "fluentd")


def cpu_ns(pid: int) -> int:
    """CPU time of a process with its threads, those that have ended too (``/proc/PID/stat``)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")


class Plugin:
    """The process, and an engine's requests to it."""

    def __init__(self, root: Path, name: str = "bench", sockets: Path | None = None, mark: str = "") -> None:
        """``mark`` is a variable that tells an engine's processes, KEY=VALUE."""
        self._root = root
        self._socket = (sockets or root) / f"{name}.sock"
        key, _, value = mark.partition("=")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "taffrail", "--set", f"paths.state={root}/state", "--set",
             f"paths.run={root}/run", "plugin", "--name", name, "--socket-dir", str(self._socket.parent),
             "--docker-socket", "none"],
            stdout=subprocess.DEVNULL, env={**os.environ, key: value} if mark else None,
        )  # fmt: skip
        while not self._socket.exists():
            time.sleep(0.02)

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, method: str, body: dict[str, Any]) -> None:
        connection = http.client.HTTPConnection("plugin")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(self._socket))
        connection.request("POST", f"/LogDriver.{method}", json.dumps(body))
        answer = json.loads(connection.getresponse().read())
        connection.close()
        if answer["Err"]:
            raise RuntimeError(f"{method}: {answer['Err']}")

    def run(self, options: dict[str, str], frames: bytes) -> int:
        """One container that writes the frames and ends: nanoseconds of CPU."""
        name = uuid.uuid4().hex * 2
        fifo = self._root / name[:12]
        os.mkfifo(fifo)
        writer = os.open(fifo, os.O_RDWR)
        before = cpu_ns(self.pid)
        self.ask("StartLogging", {"File": str(fifo), "Info": {"ContainerID": name, "Config": options}})
        view = memoryview(frames)
        while view:
            view = view[os.write(writer, view) :]
        self.ask("StopLogging", {"File": str(fifo)})
        os.close(writer)
        fifo.unlink()
        state = self._root / "state/plugin/bench/containers" / name / "log" / STATE_NAME
        while state.exists() and ((held := read_counters(state)) is None or held.held):
            time.sleep(0.05)
        return cpu_ns(self.pid) - before

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()


def measure(lines: int, runs: int) -> list[Row]:
    """All rows."""
    root = Path(tempfile.mkdtemp(dir="/run", prefix="plugin-bench-"))
    rows = []
    plugin = Plugin(root)
    try:
        with receiver() as port:
            sinks = {
                "json-file": {"sink": "json-file"},
                "local": {"sink": "local"},
                "gelf udp": {"sink": "gelf", "gelf-address": f"udp://127.0.0.1:{port}", "gelf-udp-rate": "0"},
                "gelf tcp": {"sink": "gelf", "gelf-address": f"tcp://127.0.0.1:{port}"},
                "fluentd": {"sink": "fluentd", "fluentd-address": f"127.0.0.1:{port}"},
            }
            for kind in ("plain", "json", "1 KiB"):
                line = KINDS[kind]
                frames = b"".join(
                    encode(Stream.STDOUT, START_NS + n * STEP_NS, line(n)[:-1]) for n in range(lines)
                )
                for sink, options in sinks.items():
                    spent = statistics.median(plugin.run(options, frames) for _ in range(runs))
                    rows.append(Row(f"plugin, {sink}, {kind}", "µs CPU a line", spent / lines / 1000))
    finally:
        plugin.close()
        shutil.rmtree(root, ignore_errors=True)
    return rows


def measure_beside(runs: int, only: Sequence[str]) -> list[Row]:
    """dockerd and the plugin together beside dockerd's own drivers, plain lines."""
    rows = []
    with receivers() as to, own_root() as root, engines(root) as (_, docker):
        name = f"bench{uuid.uuid4().hex[:8]}"
        plugin = Plugin(root / "plugin", name, Path("/run/docker/plugins"), docker.mark)
        try:
            for case in cases(to):
                if case.kind != "plain" or case.title not in only:
                    continue
                ours = replace(case, driver=name, options=[f"sink={case.driver}", *case.options])
                spent = []
                for _ in range(runs):
                    before = cpu_ns(plugin.pid)
                    both = measure_engine(docker, ours, case.lines, to)
                    plugins = (cpu_ns(plugin.pid) - before) / case.lines / 1000
                    theirs = measure_engine(docker, case, case.peer_lines, to)
                    spent.append((both, plugins, theirs))
                both, plugins, theirs = (statistics.median(column) for column in zip(*spent, strict=True))
                title = f"dockerd and plugin, {case.title} (of it the plugin {plugins:.1f})"
                rows.append(Row(title, "µs CPU a line", both, "dockerd", theirs))
        finally:
            plugin.close()
    return rows


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=200_000)
    parser.add_argument("--runs", type=int, default=3, help="runs of each; the median is shown")
    parser.add_argument("--beside", action="store_true", help="with a real dockerd, beside its own drivers")
    options = parser.parse_args()
    if options.beside:
        in_own_mounts("bench.plugin", sys.argv[1:])
        print_table(measure_beside(options.runs, BESIDE))
    else:
        print_table(measure(options.lines, options.runs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
