"""What the log plugin costs per line: CPU of the ``taffrail plugin`` process, from the FIFO to journal and sink.

Frames as Docker Engine writes them, a time for each line, are written into a FIFO by this process, which plays
the engine; counted are all threads of the plugin, until it has answered StopLogging and its sink has everything.
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
from pathlib import Path
from typing import Any

from bench.engines import KINDS
from bench.sinks import receiver
from bench.table import Row, print_table
from logdrivers.block import Stream
from logdrivers.delivery import STATE_NAME, read_counters
from logdrivers.plugin.frames import encode

__all__ = ["main"]

START_NS = 1_800_000_000_000_000_000
#: An engine stamps each line of a busy container some microseconds after the one before.
STEP_NS = 4_567


def cpu_ns(pid: int) -> int:
    """CPU time of a process with its threads, those that have ended too (``/proc/PID/stat``)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")


class Plugin:
    """The process, and an engine's requests to it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._socket = root / "bench.sock"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "taffrail", "--set", f"paths.state={root}/state", "--set",
             f"paths.run={root}/run", "plugin", "--name", "bench", "--socket-dir", str(root)],
            stdout=subprocess.DEVNULL,
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


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=200_000)
    parser.add_argument("--runs", type=int, default=3, help="runs of each; the median is shown")
    options = parser.parse_args()
    print_table(measure(options.lines, options.runs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
