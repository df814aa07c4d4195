"""A private Docker Engine, and the plugin as a process of its own that can be killed."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from taffrail.demo import busybox_rootfs

PLUGIN_SOCKETS = Path("/run/docker/plugins")


def wait_until(condition: Callable[[], object], what: str, seconds: float = 100.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"did not come in {seconds:.0f} s: {what}"
        time.sleep(0.02)


class Docker:
    """A running dockerd with the image ``bb:1``, and the real command line for it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._log = (root / "log").open("ab")
        self.start()
        self.run("import", "-", "bb:1", input=busybox_rootfs())

    def start(self) -> None:
        self.process = subprocess.Popen(
            ["dockerd", "--data-root", self.root / "data", "--exec-root", self.root / "exec",
             "-p", self.root / "pid", "-H", f"unix://{self.root}/s",
             "--iptables=false", "--bridge=none", "--live-restore"],
            stdout=self._log, stderr=self._log,
        )  # fmt: skip
        deadline = time.monotonic() + 120
        while self.run("version", check=False).returncode:
            assert self.process.poll() is None, (self.root / "log").read_text()[-3000:]
            assert time.monotonic() < deadline, "dockerd did not start"
            time.sleep(0.1)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(120)

    def command(self, *words: str) -> list[str]:
        return ["docker", "-H", f"unix://{self.root}/s", *words]

    def run(self, *words: str, check: bool = True, **more: Any) -> subprocess.CompletedProcess[bytes]:
        more.setdefault("timeout", 250)  # less than a test has
        done = subprocess.run(self.command(*words), capture_output=True, check=False, **more)
        assert not check or done.returncode == 0, (words, done.stdout[-300:], done.stderr[-2000:])
        return done

    def close(self) -> None:
        for name in self.run("ps", "-aq", check=False).stdout.decode().split():
            self.run("rm", "-f", name, check=False)
        self.process.terminate()
        self.process.wait(120)
        self._log.close()
        for mount in ("exec/netns/default", "exec/netns", "data"):
            subprocess.run(["umount", "-q", "-l", self.root / mount], check=False, capture_output=True)


class Plugin:
    """``taffrail plugin`` under a name of its own, for containers of one dockerd."""

    def __init__(self, docker: Docker, root: Path, *arguments: str) -> None:
        self.docker = docker
        self._arguments = arguments
        self.root = root
        self.name = f"tf{uuid.uuid4().hex[:10]}"
        self.made: list[str] = []
        self.start()

    def start(self) -> None:
        with (self.root / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "taffrail", "--set", f"paths.state={self.root}/state",
                 "--set", f"paths.run={self.root}/run", "plugin", "--name", self.name, *self._arguments],
                stdout=log, stderr=log,
            )  # fmt: skip

    def serving(self) -> None:
        """Wait until it listens."""
        wait_until(self._listens, f"the plugin's socket: {self.log()}")

    def _listens(self) -> bool:
        """Whether there is more than the socket of one that was killed."""
        with socket.socket(socket.AF_UNIX) as engine:
            return not engine.connect_ex(str(PLUGIN_SOCKETS / f"{self.name}.sock"))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        self.process.terminate()
        assert self.process.wait(100) == 0, self.log()

    def log(self) -> str:
        return (self.root / "log").read_text()

    def container(self, script: str, *words: str, **options: str) -> str:
        """Start a container of the script, detached; its id."""
        self.serving()
        given = [
            part
            for key, value in options.items()
            for part in ("--log-opt", f"{key.replace('_', '-')}={value}")
        ]
        made = self.docker.run(
            "run",
            "-d",
            "--network",
            "none",
            "--log-driver",
            self.name,
            *given,
            *words,
            "bb:1",
            "sh",
            "-c",
            script,
        )
        self.made.append(made.stdout.decode().strip())
        return self.made[-1]

    def logs(self, container: str, *words: str) -> subprocess.CompletedProcess[bytes]:
        self.serving()
        return self.docker.run("logs", *words, container)

    def directory(self, container: str) -> Path:
        return self.root / "state/plugin" / self.name / "containers" / container

    def close(self) -> None:
        for name in self.made:
            self.docker.run("rm", "-f", name, check=False)
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            assert self.process.wait(100) == 0, self.log()
        (PLUGIN_SOCKETS / f"{self.name}.sock").unlink(missing_ok=True)


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[Docker]:
    root = Path(tempfile.mkdtemp(dir="/tmp", prefix="tfp"))
    engine = Docker(root)
    yield engine
    engine.close()
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def make_plugin(docker_engine: Docker) -> Iterator[Callable[..., Plugin]]:
    """Plugins started with these arguments of the command."""
    made: list[Plugin] = []

    def make(*arguments: str) -> Plugin:
        made.append(Plugin(docker_engine, Path(tempfile.mkdtemp(dir="/tmp", prefix="tfp")), *arguments))
        return made[-1]

    try:
        yield make
    finally:
        for plugin in made:
            plugin.close()
            shutil.rmtree(plugin.root, ignore_errors=True)


@pytest.fixture
def plugin(make_plugin: Callable[..., Plugin]) -> Plugin:
    return make_plugin("--docker-socket", "none")
