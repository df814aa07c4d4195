"""An agent that is told of nothing finds what runs: podman's containers by their files, bare cgroups, their logs."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture
def root() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(dir="/tmp", prefix="tfa"))
    yield directory
    for mounted in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        if (point := mounted.split(" ")[4]).startswith(f"{directory}/"):
            subprocess.run(["umount", "-l", point], check=False)
    shutil.rmtree(directory, ignore_errors=True)
    for hierarchy in Path("/sys/fs/cgroup").iterdir():
        parent = hierarchy / directory.name
        end = time.monotonic() + 60
        while parent.is_dir() and time.monotonic() < end:
            for cgroup in (*parent.glob("*/"), parent):
                try:
                    cgroup.rmdir()
                except OSError:
                    time.sleep(0.02)


@pytest.fixture
def podman(root: Path) -> Iterator[Callable[..., str]]:
    tree = root / "bb/bin"
    tree.mkdir(parents=True)
    shutil.copy("/bin/busybox", tree)
    for applet in ("sh", "sleep", "echo"):
        (tree / applet).symlink_to("busybox")
    with tarfile.open(root / "bb.tar", "w") as archive:
        archive.add(root / "bb", ".")

    def run(*words: str) -> str:
        command = [
            *("podman", "--root", f"{root}/s", "--runroot", f"{root}/r", "--tmpdir", f"{root}/t"),
            *("--cgroup-manager=cgroupfs", "--runtime", "runc", "--events-backend", "file", *words),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    run("import", f"{root}/bb.tar", "bb:1")
    yield run
    run("rm", "-f", "-a", "-t", "0")


@pytest.fixture
def get(root: Path) -> Iterator[Callable[[str], str]]:
    """Ask a running agent."""
    settings = {
        "paths.run": f"{root}/run",
        "paths.state": f"{root}/state",
        "http.address": "127.0.0.1:0",
        "inputs.gelf": "",
        "inputs.forward": "",
        "prometheus.all_cgroups": "true",
    }
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    with (root / "log").open("wb") as log:
        agent = subprocess.Popen([sys.executable, "-P", "-m", "taffrail", *words, "agent"], stderr=log)
    end = time.monotonic() + 150
    try:
        while not (root / "run/agent.sock").exists():
            assert agent.poll() is None, (root / "log").read_text()[-3000:]
            assert time.monotonic() < end
            time.sleep(0.05)
        address = json.loads((root / "run/agent.json").read_text())["http"]
    except BaseException:
        agent.kill()
        agent.wait()
        raise

    def ask(path: str) -> str:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=120) as answer:
            return str(answer.read().decode())

    yield ask
    agent.send_signal(signal.SIGTERM)
    assert agent.wait(150) == 0


def test_podman_is_found_its_log_read_and_its_end_told(
    root: Path, podman: Callable[..., str], get: Callable[[str], str]
) -> None:
    def comes(condition: Callable[[], object], what: str) -> None:
        end = time.monotonic() + 150
        while not condition():
            assert time.monotonic() < end, f"{what} did not come"
            time.sleep(0.05)

    name = f"pod-{root.name}"
    key = podman(
        *("run", "-d", "--name", name, "--network", "none", "--cgroup-parent", f"/{root.name}"),
        *("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096", "--log-driver", "k8s-file"),
        *("-l", "io.kubernetes.pod.name=shop-0", "-l", "io.kubernetes.container.name=app"),
        *("localhost/bb:1", "sh", "-c", "echo hello from podman; sleep 1000"),
    )
    series = f'id="/{root.name}/libpod-{key}",image="localhost/bb:1",name="{name}"'

    def has(metric: str, *parts: str) -> bool:
        lines = [line for line in get("/metrics").splitlines() if line.startswith(metric + "{")]
        return any(all(part in line for part in parts) for line in lines)

    comes(lambda: has("container_memory_working_set_bytes", series, 'pod="shop-0"', 'container="app"'), name)
    comes(lambda: has("container_memory_usage_bytes", f'id="/{root.name}"'), "the bare cgroup it is in")
    comes(lambda: "hello from podman" in get(f"/api/v1/search?query=container:{name}"), "its log")
    rows = json.loads(get("/api/v1/stats?all=1"))["containers"]
    assert {name, f"/{root.name}"} <= {row["name"] for row in rows}
    podman("kill", name)
    comes(lambda: has("container_exit_code", f'name="{name}"'), "its exit code")
    codes = [
        line
        for line in get("/metrics").splitlines()
        if line.startswith("container_exit_code") and name in line
    ]
    assert [line.rpartition(" ")[2] for line in codes] == ["137"]
