"""Container start, detached: ``docker run -d`` of ours and, given its socket, of a peer, one after the other.

Wall time counts here, since that is what the user waits for; so the two run in turns, and the median and the
best of each are shown. The parts (create, start) are measured on the API without the CLI.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.table import Row, print_table
from runtime.networks.network import Networks
from runtime.shim.template_client import TemplateClient
from taffrail.demo import busybox_rootfs

__all__ = ["main"]

IMAGE = "taffrail-bench/start:1"
BRIDGE = "tbench0"
BUDGET_MS = 90.0


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


class Engine:
    """One engine behind its socket; what is started here is removed at the end."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.made: list[str] = []

    def docker(self, *words: str, stdin: bytes | None = None) -> str:
        done = subprocess.run(
            ["docker", "-H", f"unix://{self.path}", *words], input=stdin, capture_output=True, check=False
        )
        if done.returncode:
            sys.exit(f"docker {' '.join(words)} on {self.path}: {done.stderr.decode().strip()}")
        return done.stdout.decode().strip()

    def ask(self, method: str, path: str, body: object = None) -> dict[str, str]:
        connection = _Connection(self.path)
        try:
            data = json.dumps(body).encode() if body is not None else None
            connection.request(method, path, data, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
            if answer.status >= 400:
                sys.exit(f"{method} {path} on {self.path}: {answer.status} {text.decode()}")
            return json.loads(text) if text else {}
        finally:
            connection.close()

    def prepare(self) -> None:
        self.docker("import", "-", IMAGE, stdin=busybox_rootfs())

    def run(self, network: str) -> None:
        self.made.append(self.docker("run", "-d", "--network", network, IMAGE, "sleep", "1000"))

    def create(self, network: str) -> str:
        body = {"Image": IMAGE, "Cmd": ["sleep", "1000"], "HostConfig": {"NetworkMode": network}}
        made = self.ask("POST", "/containers/create", body)["Id"]
        self.made.append(made)
        return made

    def start(self, container: str) -> None:
        self.ask("POST", f"/containers/{container}/start")

    def clear(self) -> None:
        if self.made:
            self.docker("rm", "-f", *self.made)
            self.made.clear()


def _timed(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return (time.perf_counter() - begin) * 1e3


def measure(engines: list[Engine], rounds: int, network: str) -> list[dict[str, list[float]]]:
    """Milliseconds by step and engine; the engines take turns."""
    found: list[dict[str, list[float]]] = [{"docker run -d": [], "create": [], "start": []} for _ in engines]
    for _ in range(rounds):
        for engine, times in zip(engines, found, strict=True):
            times["docker run -d"].append(_timed(lambda e=engine: e.run(network)))  # type: ignore[misc]
            made: list[str] = []
            times["create"].append(_timed(lambda e=engine, m=made: m.append(e.create(network))))  # type: ignore[misc]
            times["start"].append(_timed(lambda e=engine, m=made: e.start(m[0])))  # type: ignore[misc]
            engine.clear()
    return found


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--network", default="bridge", help="network mode of the containers")
    parser.add_argument("--peer", default="", help="socket of a Docker Engine to run beside ours")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tb", dir="/tmp") as directory:
        root = Path(directory)
        settings = [f"paths.run={root / 'r'}", f"paths.state={root / 's'}", f"engine.bridge={BRIDGE}"]
        flags = [word for item in settings for word in ("--set", item)]
        ours = subprocess.Popen([sys.executable, "-P", "-m", "taffrail", *flags, "engine"])
        try:
            path = root / "r" / "engine.sock"
            while not path.exists():
                if ours.poll() is not None:
                    return 1
                time.sleep(0.02)
            engines = [Engine(str(path))] + ([Engine(args.peer)] if args.peer else [])
            for engine in engines:
                engine.prepare()
            _show(measure(engines, args.rounds, args.network))
        finally:
            ours.terminate()
            ours.wait()
            _clear_away(root)
    return 0


def _clear_away(root: Path) -> None:
    """End the shims' template and take the bridge out of the kernel."""
    run, state = root / "r" / "engine", root / "s" / "engine"
    asyncio.run(TemplateClient(run / "shims").shutdown())
    networks = Networks(state / "network", run / "net", bridge=BRIDGE, table=BRIDGE)
    networks.start()
    networks.destroy()


def _show(found: list[dict[str, list[float]]]) -> None:
    rows = []
    for step in found[0]:
        for name, of in (("median", statistics.median), ("best", min)):
            theirs = of(found[1][step]) if len(found) > 1 else None
            budget = BUDGET_MS if step == "docker run -d" else None
            rows.append(Row(f"{step}, {name}", "ms", of(found[0][step]), "dockerd", theirs, budget))
    print_table(rows)


if __name__ == "__main__":
    sys.exit(main())
