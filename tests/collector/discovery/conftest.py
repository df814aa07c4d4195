"""A private Docker Engine, one for all tests of discovery."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass
class Dockerd:
    """A running dockerd with the image ``bb:1``, and the real command line for it."""

    root: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        return self.root / "docker.sock"

    def start(self) -> None:
        """Start it and wait until it answers."""
        with open(self.root / "log", "ab") as log:
            self.process = subprocess.Popen(
                [
                    "dockerd",
                    *("--data-root", str(self.root / "d"), "--exec-root", str(self.root / "e")),
                    *("-p", str(self.root / "pid"), "-H", f"unix://{self.socket}"),
                    *("--iptables=false", "--bridge=none", "--live-restore"),
                ],
                stdout=log,
                stderr=log,
            )
        end = time.monotonic() + 120
        while self.docker("version", check=False).returncode != 0:
            assert self.process.poll() is None, (self.root / "log").read_text()[-2000:]
            assert time.monotonic() < end, "dockerd did not answer"
            time.sleep(0.1)

    def stop(self) -> None:
        """End it; containers go on running (live restore)."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(120)

    def docker(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the docker command on it, for less time than a test has."""
        command = ["docker", "-H", f"unix://{self.socket}", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=check, timeout=250)


@pytest.fixture(scope="session")
def dockerd_session() -> Iterator[Dockerd]:
    root = Path(tempfile.mkdtemp(dir="/tmp", prefix="tfd"))
    engine = Dockerd(root)
    try:
        engine.start()
        tree = root / "bb"
        (tree / "bin").mkdir(parents=True)
        shutil.copy("/bin/busybox", tree / "bin/busybox")
        for applet in ("sh", "sleep", "cat", "true", "head", "tail"):
            (tree / "bin" / applet).symlink_to("busybox")
        with tarfile.open(root / "bb.tar", "w") as archive:
            archive.add(tree, ".")
        engine.docker("import", str(root / "bb.tar"), "bb:1")
        yield engine
    finally:
        names = engine.docker("ps", "-aq", check=False).stdout.split()
        if names:
            engine.docker("rm", "-f", *names, check=False)
        engine.stop()
        for mounted in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
            point = mounted.split(" ")[4]
            if point.startswith(f"{root}/"):
                subprocess.run(["umount", "-l", point], check=False)
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def dockerd(dockerd_session: Dockerd) -> Iterator[Dockerd]:
    """The engine, running, without a container before and after."""
    yield dockerd_session
    if dockerd_session.process is None or dockerd_session.process.poll() is not None:
        dockerd_session.start()  # the test that stopped it did not come so far
    names = dockerd_session.docker("ps", "-aq").stdout.split()
    if names:
        dockerd_session.docker("rm", "-f", *names)
