"""Minimal OCI bundles for tests: a static busybox, own pid and mount namespaces, a cgroup with a unique name."""

from __future__ import annotations

import json
import shutil
import subprocess
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from logdrivers.driver import Info
from runtime.shim_spec import ShimSpec

APPLETS = [
    "sh",
    "cat",
    "echo",
    "sleep",
    "seq",
    "yes",
    "head",
    "true",
    "false",
    "kill",
    "ps",
    "id",
    "dd",
    "printf",
    "stty",
    "wc",
    "tr",
    "test",
    "mkdir",
    "ls",
    "awk",
    "usleep",
]


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
        value = config(self._root, args, f"/taffrail-test/{container_id[:12]}", **process)
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

    def clear(self) -> None:
        """Delete every container that is left, its cgroups with it."""
        for container_id in self._ids:
            if (self.runtime_root / container_id).exists():
                subprocess.run(
                    ["runc", "--root", self.runtime_root, "delete", "--force", container_id],
                    check=False,
                    capture_output=True,
                )
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            controllers = line.split(":")[1].removeprefix("name=")
            base = Path("/sys/fs/cgroup") / (controllers or "unified")
            for container_id in self._ids:
                for path in (base / "taffrail-test" / container_id[:12], base / "taffrail-test"):
                    try:
                        path.rmdir()
                    except OSError:
                        continue


def log_text(spec: ShimSpec) -> bytes:
    """What the container's json-file holds, decoded and joined."""
    path = spec.info.directory / f"{spec.container_id}-json.log"
    with path.open("rb") as file:
        return b"".join(json.loads(line)["log"].encode() for line in file)


def pids_of(name: str) -> list[int]:
    """Processes with that command name."""
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                if (path / "comm").read_text().strip() == name:
                    found.append(int(path.name))
            except OSError:
                continue
    return found
