"""A private Docker Engine whose log drivers ours are compared with, one for all tests that ask for it."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from logdrivers.codecs import json_file
from logdrivers.driver import Info
from taffrail.demo import busybox_rootfs

_WITH_JOURNALD = (
    "mount -t tmpfs none /run/systemd && mkdir /run/systemd/journal && "
    'mount --bind "$0" /run/systemd/journal && exec "$@"'
)


class DockerEngine:
    """A running dockerd without bridge or packet filter, with the image ``test/busybox``."""

    def __init__(self, root: Path, journald: Path | None = None) -> None:
        """``journald``: a directory that it finds as /run/systemd/journal, in a mount namespace of its own."""
        self.host = f"unix://{root}/s"
        self.root = root
        self._log = (root / "log").open("wb")
        elsewhere = ["unshare", "-m", "sh", "-c", _WITH_JOURNALD, journald] if journald else []
        self._process = subprocess.Popen(
            [*elsewhere, "dockerd", "--data-root", root / "data", "--exec-root", root / "exec", "-p", root / "pid",
             "-H", self.host, "--iptables=false", "--bridge=none"],
            stdout=self._log, stderr=self._log,
        )  # fmt: skip
        try:
            deadline = time.monotonic() + 120
            while self.run("version", check=False).returncode:
                assert self._process.poll() is None, (root / "log").read_text()[-3000:]
                assert time.monotonic() < deadline, "dockerd did not start"
                time.sleep(0.1)
            self.run("import", "-", "test/busybox", input=busybox_rootfs())
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """The engine's process."""
        return self._process.pid

    def run(self, *words: str, check: bool = True, **more: Any) -> subprocess.CompletedProcess[bytes]:
        """Run the docker command on it, for less time than a test has."""
        more.setdefault("timeout", 250)
        return subprocess.run(["docker", "-H", self.host, *words], capture_output=True, check=check, **more)

    def container(self, driver: str, options: dict[str, str], script: str, *more: str) -> Info:
        """Run a script to its end under the driver; the container as a driver knows it, its files kept."""
        words = [part for key, value in options.items() for part in ("--log-opt", f"{key}={value}")]
        made = self.run(
            "run", "-d", "--network", "none", "--log-driver", driver, *words,
            "--label", "app=a<b\tc", "-e", "TEAM=blue", *more, "test/busybox", "sh", "-c", script,
        )  # fmt: skip
        container_id = made.stdout.decode().strip()
        self.run("wait", container_id)
        facts = json.loads(self.run("inspect", container_id).stdout)[0]
        return Info(
            container_id,
            facts["Name"],
            facts["Image"],
            facts["Config"]["Image"],
            [facts["Path"], *facts["Args"]],
            json_file.parse_time(facts["Created"].encode()),
            self.root / "data" / "containers" / container_id,
            options,
            facts["Config"]["Labels"],
            dict(entry.split("=", 1) for entry in facts["Config"]["Env"]),
            hostname=Path("/proc/sys/kernel/hostname").read_text().strip(),
        )

    def refusal(self, driver: str, options: dict[str, str]) -> str:
        """Why it does not run a container with these options: the text behind its own words; "" if it does."""
        words = [part for key, value in options.items() for part in ("--log-opt", f"{key}={value}")]
        done = self.run(
            "run", "--rm", "--network", "none", "--log-driver", driver, *words, "test/busybox", "true",
            check=False,
        )  # fmt: skip
        if not done.returncode:
            return ""
        text = done.stderr.decode().partition("Error response from daemon: ")[2].split("\n")[0]
        return text.removeprefix("failed to initialize logging driver: ").removesuffix(".")

    def close(self) -> None:
        """End it with its containers and mounts."""
        names = self.run("ps", "-aq", check=False).stdout.decode().split()
        if names:
            self.run("rm", "-f", *names, check=False)
        self._process.terminate()
        self._process.wait(120)
        self._log.close()
        for mounted in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
            point = mounted.split(" ")[4]
            if point.startswith(f"{self.root}/"):
                subprocess.run(["umount", "-l", point], check=False)


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[DockerEngine]:
    root = Path(tempfile.mkdtemp(dir="/tmp"))
    engine = DockerEngine(root)
    try:
        yield engine
    finally:
        engine.close()
        shutil.rmtree(root, ignore_errors=True)
