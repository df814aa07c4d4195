"""A whole Taffrail of the test's own: directories, bridge and ports that collide with nobody's."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from collector.cgroup.layout import UNIFIED, parse_cgroup
from taffrail.demo import busybox_rootfs


def wait_until(condition: Callable[[], object], what: str, seconds: float = 150.0) -> None:
    """Wait until ``condition`` holds; fail saying what did not come."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"did not come in {seconds:.0f} s: {what}"
        time.sleep(0.1)


class Page:
    """A page of metrics in the text format."""

    def __init__(self, text: str) -> None:
        self._lines = [line for line in text.splitlines() if not line.startswith("#")]

    def values(self, name: str, *labels: str) -> list[float]:
        """The values of the series of this name that carry all of these ``key="value"`` labels."""
        found = [line for line in self._lines if re.match(rf"{name}[{{ ]", line)]
        return [float(line.rsplit(" ", 1)[1]) for line in found if all(label in line for label in labels)]


class Running:
    """``taffrail up`` and what a person would do with it."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="tf", dir="/tmp"))
        self.settings = [
            f"paths.run={self.root}/run",
            f"paths.state={self.root}/state",
            f"engine.bridge=tf{uuid.uuid4().hex[:8]}",
            f"collector.engines={self.root}/run/engine.sock",
            "collector.cgroups=false",  # what others run on this host is no business of these tests
            "collector.host=testhost",
            "http.address=127.0.0.1:0",
            "inputs.gelf=127.0.0.1:0",
            "inputs.forward=127.0.0.1:0",
        ]
        self.process: subprocess.Popen[str] | None = None

    def command(self, *words: str) -> list[str]:
        settings = [part for value in self.settings for part in ("--set", value)]
        return [sys.executable, "-P", "-m", "taffrail", *settings, *words]

    def up(self, *words: str) -> str:
        """Start it; returns what it printed when it was ready."""
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                self.command("up", *words), stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self.process.stdout is not None
        lines = []
        patience = threading.Timer(150, self.process.send_signal, [signal.SIGINT])
        patience.start()
        try:
            while line := self.process.stdout.readline():
                lines.append(line)
                if line.lstrip().startswith("try "):
                    return "".join(lines)
        finally:
            patience.cancel()
        pytest.fail(f"taffrail up ended:\n{self.log.read_text()[-5000:]}")

    @property
    def log(self) -> Path:
        return self.root / "up.log"

    def interrupt(self) -> int:
        """Ctrl-C; the exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        status = self.process.wait(150)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status

    def taffrail(self, *words: str, check: bool = True) -> str:
        answer = subprocess.run(
            self.command(*words), capture_output=True, text=True, check=False, timeout=120
        )
        assert not check or answer.returncode == 0, answer.stderr
        return answer.stdout

    def docker(self, *words: str, check: bool = True, stdin: bytes | None = None) -> str:
        answer = subprocess.run(
            ["docker", "-H", f"unix://{self.root}/run/engine.sock", *words],
            capture_output=True,
            check=False,
            input=stdin,
            timeout=120,
            env={**os.environ, "DOCKER_CONFIG": str(self.root / "docker-config")},
        )
        assert not check or answer.returncode == 0, answer.stderr.decode()
        return answer.stdout.decode()

    def import_image(self, reference: str) -> None:
        self.docker("import", "-", reference, stdin=busybox_rootfs())

    def agent_pid(self) -> int:
        """The agent's process under ``up``; 0 while there is none."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        for pid in map(int, children.split()):
            with contextlib.suppress(OSError):  # it has ended since
                if Path(f"/proc/{pid}/cmdline").read_text().endswith("\0agent\0"):
                    return pid
        return 0

    def cpu_seconds(self, container: str) -> float:
        """CPU time that the kernel has counted for a running container's cgroup."""
        pid = self.docker("inspect", "--format", "{{.State.Pid}}", container).strip()
        paths = parse_cgroup(Path(f"/proc/{pid}/cgroup").read_bytes())
        root = Path("/sys/fs/cgroup")
        if "cpuacct" in paths:
            usage = root / "cpuacct" / paths["cpuacct"].lstrip("/") / "cpuacct.usage"
            return int(usage.read_text()) / 1e9
        stat = root / paths[UNIFIED].lstrip("/") / "cpu.stat"
        return int(stat.read_text().split()[1]) / 1e6

    def address(self, name: str) -> str:
        return str(json.loads((self.root / "run" / "agent.json").read_text())[name])

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://{self.address('http')}{path}", timeout=120) as answer:
            return str(answer.read().decode())

    def metrics(self) -> Page:
        return Page(self.get("/metrics"))

    def close(self) -> None:
        """Stop everything and leave nothing in the kernel."""
        try:
            if self.process is not None and self.process.poll() is None:
                self.interrupt()
        finally:
            down = subprocess.run(
                self.command("down", "-t", "0"), capture_output=True, text=True, check=False, timeout=150
            )
            shutil.rmtree(self.root, ignore_errors=True)
        assert down.returncode == 0, down.stderr


IMAGE = "test/busybox:1"


@pytest.fixture(scope="session")
def image() -> str:
    return IMAGE


@pytest.fixture(scope="session")
def eventually() -> Callable[..., None]:
    return wait_until


@pytest.fixture(scope="session")
def read_page() -> type[Page]:
    """Takes a page of metrics apart."""
    return Page


@pytest.fixture
def taffrail() -> Iterator[Running]:
    """Not yet started; call ``up``."""
    running = Running()
    yield running
    running.close()


@pytest.fixture(scope="module")
def make_taffrail() -> Iterator[Callable[[], Running]]:
    """Makes as many as a module's fixtures need, not yet started; they are closed after the module's last test."""
    with contextlib.ExitStack() as stack:

        def make() -> Running:
            running = Running()
            stack.callback(running.close)
            return running

        yield make


@pytest.fixture(scope="module")
def shared_taffrail() -> Iterator[Running]:
    """Started, with the image imported; for all tests of a module, which use names of their own."""
    running = Running()
    try:
        running.up()
        running.import_image(IMAGE)
        yield running
    finally:
        running.close()


@pytest.fixture
def page_in_chromium(tmp_path: Path) -> Callable[[str], str]:
    """A page by its URL as Chromium has it after some seconds of its own time."""

    def dom(url: str) -> str:
        switches = (
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-sync",
        )
        quiet = (
            "--disable-background-networking",
            "--disable-component-update",
            f"--user-data-dir={tmp_path}/chromium",
        )
        words = (
            "chromium",
            *switches,
            *quiet,
            "--virtual-time-budget=8000",
            "--timeout=60000",
            "--dump-dom",
            url,
        )
        return subprocess.run(words, capture_output=True, text=True, check=True, timeout=120).stdout

    return dom
