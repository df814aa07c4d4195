"""Minimal OCI bundles of a static busybox, and shims to run them under the real OCI runtime."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

from logdrivers.driver import Info
from runtime.shim.messages import TEMPLATE_SOCKET, connect, receive, send
from runtime.shim.shims import Shims
from runtime.shim.spec import ShimSpec

T = TypeVar("T")

APPLETS = (
    *("sh", "cat", "echo", "sleep", "seq", "yes", "head", "kill", "id", "dd", "printf", "stty", "test"),
    *("mkdir", "awk", "usleep", "tail", "tr"),
)


def rootfs(directory: Path) -> Path:
    """A root file system with busybox and links to its applets."""
    bin_dir = directory / "bin"
    bin_dir.mkdir(parents=True)
    busybox = shutil.which("busybox")
    assert busybox is not None, "these tests need busybox-static"
    shutil.copy(busybox, bin_dir / "busybox")
    for name in APPLETS:
        (bin_dir / name).symlink_to("busybox")
    for name in ("proc", "dev", "tmp", "sys"):
        (directory / name).mkdir()
    return directory


def config(root: Path, args: Sequence[str], cgroup: str, **process: Any) -> dict[str, Any]:
    """An OCI runtime specification."""
    return {
        "ociVersion": "1.0.2",
        "root": {"path": str(root), "readonly": False},
        "hostname": "test",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": list(args),
            "env": ["PATH=/bin"],
            "cwd": "/",
            **process,
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance"]},
        ],
        "linux": {
            "cgroupsPath": cgroup,
            "namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts")],
            "resources": {"devices": [{"allow": True, "access": "rwm"}]},
        },
    }


class Bundles:
    """Makes bundles under a directory, and clears away whatever containers they became."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.runtime_root = directory / "runc"
        self._root = rootfs(directory / "rootfs")
        self._ids: list[str] = []
        self._cgroup = f"/taffrail-shim-{uuid.uuid4().hex[:10]}"

    def spec(self, script: str | Sequence[str], **options: Any) -> ShimSpec:
        """A container that runs a shell script or an argument list. ``oci`` changes its process object."""
        container_id = uuid.uuid4().hex * 2
        self._ids.append(container_id)
        args = ["/bin/sh", "-c", script] if isinstance(script, str) else list(script)
        process = options.pop("oci", {})
        memory = options.pop("memory", None)
        if options.get("tty"):
            process = {"terminal": True, **process}
        bundle = self.directory / "bundles" / container_id
        bundle.mkdir(parents=True)
        value = config(self._root, args, f"{self._cgroup}/{container_id[:12]}", **process)
        if memory:
            value["linux"]["resources"]["memory"] = {"limit": memory, "swap": memory}
        (bundle / "config.json").write_text(json.dumps(value))
        run_dir = self.directory / "run" / "containers" / container_id
        run_dir.mkdir(parents=True)
        info = Info(
            container_id=container_id,
            container_name="/test",
            image_id="sha256:" + "0" * 64,
            image_name="busybox",
            command=args,
            created_ns=0,
            directory=self.directory / "logs" / container_id,
            options=options.pop("log_options", {}),
        )
        options.setdefault("driver", "json-file")
        return ShimSpec(
            container_id=container_id,
            bundle=bundle,
            run_dir=run_dir,
            info=info,
            runtime_root=self.runtime_root,
            **options,
        )

    def respec(self, spec: ShimSpec, script: str) -> ShimSpec:
        """The same container, running another script from its next start on."""
        path = spec.bundle / "config.json"
        value = json.loads(path.read_text())
        value["process"]["args"] = ["/bin/sh", "-c", script]
        path.write_text(json.dumps(value))
        return spec

    def shims(self) -> Shims:
        """An engine's side, on the directory that all engines of this test share."""
        return Shims(self.directory / "run")

    def play(self, scenario: Callable[[Shims], Awaitable[T]]) -> T:
        """Run a scenario with an engine's side of its own, which lets go of everything afterwards."""

        async def whole() -> T:
            shims = self.shims()
            await shims.start()
            try:
                async with asyncio.timeout(250):
                    return await scenario(shims)
            finally:
                await shims.close()

        return asyncio.run(whole())

    def template_after(self, prelude: str) -> subprocess.Popen[bytes]:
        """A template that runs Python statements before it is one, and serves when this returns."""
        run_dir = self.directory / "run"
        run_dir.mkdir(exist_ok=True)
        code = (
            f"import sys\n{prelude}\nfrom runtime.shim import template\nsys.exit(template.main(sys.argv))\n"
        )
        root = Path(__file__).resolve().parents[3]
        with (run_dir / "template.log").open("ab") as log:
            template = subprocess.Popen(
                [sys.executable, "-c", code, str(run_dir)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=root,
                env={**os.environ, "PYTHONPATH": str(root)},
            )

        def serves() -> bool:
            with contextlib.suppress(OSError), connect(run_dir, TEMPLATE_SOCKET) as sock:
                send(sock, {"op": "hello"})
                return "pid" in receive(sock)[0]
            return False

        self.wait_until(serves)
        return template

    def engine_that_runs(self, spec: ShimSpec) -> subprocess.Popen[bytes]:
        """Another process with its own ``Shims``, which starts the container and then waits for it."""
        path = self.directory / "spec.json"
        path.write_text(json.dumps(spec.to_json()))
        code = (
            "import asyncio, json, sys\n"
            "from pathlib import Path\n"
            "from runtime.shim.shims import Shims, ShimSpec\n"
            "async def main():\n"
            "    shims = Shims(Path(sys.argv[1]))\n"
            "    await shims.start()\n"
            "    handle = await shims.run(ShimSpec.from_json(json.loads(Path(sys.argv[2]).read_text())))\n"
            "    print(handle.pid, handle.shim_pid, flush=True)\n"
            "    await handle.wait()\n"
            "asyncio.run(main())\n"
        )
        root = Path(__file__).resolve().parents[3]
        return subprocess.Popen(
            [sys.executable, "-c", code, str(self.directory / "run"), str(path)],
            stdout=subprocess.PIPE,
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root)},
        )

    @staticmethod
    def records(spec: ShimSpec, stream: str = "stdout") -> list[str]:
        """The texts of one stream in the container's json-file, a list item per record."""
        path = spec.info.directory / f"{spec.container_id}-json.log"
        with path.open() as file:
            return [entry["log"] for entry in map(json.loads, file) if entry["stream"] == stream]

    @staticmethod
    def wait_until(condition: Callable[[], object], seconds: float = 100.0) -> None:
        """Wait for a condition that other processes bring about."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "the condition did not come true"
            time.sleep(0.01)

    def template_pid(self) -> int:
        """The template's process."""
        return next(iter(self.template_pids()))

    def template_pids(self) -> list[int]:
        """All of them."""
        return [pid for pid in self.processes() if _comm(pid) == "taffrail-templ"]

    def processes(self) -> list[int]:
        """Template and shims of this test: their arguments name its directory."""
        mark = str(self.directory / "run").encode()
        return [pid for pid in _pids() if mark in _arguments(pid)]

    def clear(self) -> None:
        """Delete every container that is left; end the template and the shims."""
        for container_id in self._ids:
            if (self.runtime_root / container_id).exists():
                command = ["runc", "--root", str(self.runtime_root), "delete", "--force", container_id]
                subprocess.run(command, check=False, capture_output=True)
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.wait_until(lambda: not self.processes())
        everywhere = Path("/sys/fs/cgroup")
        for path in (*everywhere.glob(f"*{self._cgroup}"), *everywhere.glob(self._cgroup[1:])):
            path.rmdir()


def _pids() -> Iterator[int]:
    return (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())


def _comm(pid: int) -> str:
    try:
        return (Path("/proc") / str(pid) / "comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _arguments(pid: int) -> bytes:
    try:
        if "State:\tZ" in (Path("/proc") / str(pid) / "status").read_text():
            return b""
        return (Path("/proc") / str(pid) / "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


@pytest.fixture
def bundles() -> Iterator[Bundles]:
    directory = Path(tempfile.mkdtemp(prefix="tf-", dir="/tmp"))
    made = Bundles(directory)
    yield made
    made.clear()
    shutil.rmtree(directory)
