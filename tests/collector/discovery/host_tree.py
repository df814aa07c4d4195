"""Makes a host's /proc, /sys and files as engines lay them out, below a directory of the test's own."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from collector.roots import Roots

V1 = ("cpu,cpuacct", "memory", "pids", "blkio")


@dataclass
class HostTree:
    """A host with one kind of cgroups: ``v1``, ``hybrid`` or ``v2``."""

    directory: Path
    mode: str
    pids: int = field(default=1000)

    def __post_init__(self) -> None:
        mounts = []
        if self.mode != "v2":
            mounts += [
                f"3{n} 1 0:3{n} / /sys/fs/cgroup/{c} rw - cgroup cgroup rw,{c}" for n, c in enumerate(V1)
            ]
        if self.mode == "hybrid":
            mounts.append("40 1 0:40 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw")
        if self.mode == "v2":
            mounts.append("40 1 0:40 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw")
        self.write("proc/self/mountinfo", "\n".join(mounts) + "\n")
        self.write("proc/stat", "cpu 1 2 3\nbtime 1700000000\n")
        for point in self.hierarchies:
            point.mkdir(parents=True, exist_ok=True)

    @property
    def roots(self) -> Roots:
        return Roots(self.directory / "proc", self.directory / "sys", self.directory / "root")

    @property
    def hierarchies(self) -> list[Path]:
        top = self.directory / "sys/fs/cgroup"
        names = {"v1": V1, "hybrid": (*V1, "unified"), "v2": ("",)}[self.mode]
        return [top / name for name in names]

    def write(self, path: str, content: str | dict[str, Any] | list[Any]) -> Path:
        file = self.directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        return file

    def link(self, path: str, target: str) -> None:
        file = self.directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.symlink_to(target)

    def cgroup(self, path: str, *pids: int) -> None:
        """A cgroup on every hierarchy, with its processes."""
        for hierarchy in self.hierarchies:
            directory = hierarchy / path.lstrip("/")
            directory.mkdir(parents=True, exist_ok=True)
            (directory / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))

    def remove(self, path: str) -> None:
        for hierarchy in self.hierarchies:
            directory = hierarchy / path.lstrip("/")
            (directory / "cgroup.procs").unlink()
            directory.rmdir()

    def process(self, *command: str, parent: int = 1, cwd: str = "/", user: int = 0) -> int:
        """A process; returns its number."""
        self.pids += 1
        fields = " ".join(["S", str(parent), *["0"] * 17, "4200", *["0"] * 30])
        self.write(f"proc/{self.pids}/stat", f"{self.pids} (a b) {fields}\n")
        self.write(f"proc/{self.pids}/status", f"Name:\ta b\nUid:\t{user}\t0\t0\t0\n")
        self.write(f"proc/{self.pids}/cmdline", "".join(f"{word}\0" for word in command))
        self.link(f"proc/{self.pids}/cwd", cwd)
        return self.pids

    def conmon(self, container_id: str, bundle: str, log: str, name: str, user: int = 0) -> int:
        """podman's and CRI-O's keeper."""
        return self.process(
            *(
                "/usr/bin/conmon",
                "--api-version",
                "1",
                "-c",
                container_id,
                "-u",
                container_id,
                "-r",
                "/usr/bin/crun",
            ),
            *("-b", bundle, "-p", "/run/pidfile", "-n", name, "--exit-dir", "/run/libpod/exits", "-l", log),
            *("--exit-command-arg", "-n"),
            user=user,
        )

    def shim(self, namespace: str, container_id: str, bundle: str) -> int:
        """containerd's and Docker's keeper, which works in its bundle."""
        return self.process(
            *("/usr/bin/containerd-shim-runc-v2", "-namespace", namespace, "-id", container_id),
            *("-address", "/run/containerd/containerd.sock"),
            cwd=bundle,
        )
