"""Real podman and real containerd, each with directories of its own, without images from anywhere."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tarfile
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path


def busybox(tree: Path) -> Path:
    """A root file system with a shell."""
    (tree / "bin").mkdir(parents=True)
    shutil.copy("/bin/busybox", tree / "bin/busybox")
    for applet in ("sh", "sleep", "cat", "true", "echo"):
        (tree / "bin" / applet).symlink_to("busybox")
    return tree


@dataclass
class Podman:
    """podman with storage of its own and the image ``localhost/bb:1``."""

    root: Path

    def __post_init__(self) -> None:
        tree = busybox(self.root / "bb")
        with tarfile.open(self.root / "bb.tar", "w") as archive:
            archive.add(tree, ".")
        self("import", str(self.root / "bb.tar"), "bb:1")

    def __call__(self, *words: str, check: bool = True) -> str:
        done = subprocess.run(
            [*self.command, *words], capture_output=True, text=True, check=False, timeout=120
        )
        assert not check or done.returncode == 0, done.stderr
        return done.stdout.strip()

    @property
    def command(self) -> list[str]:
        return [
            *("podman", "--root", str(self.root / "s"), "--runroot", str(self.root / "r")),
            *("--tmpdir", str(self.root / "t"), "--cgroup-manager=cgroupfs", "--runtime", "runc"),
            *("--events-backend", "file"),
        ]

    @property
    def place(self) -> tuple[str, ...]:
        """Where its containers' cgroups are."""
        return ("--cgroup-parent", f"/tf-{self.root.name}")

    def run(self, name: str, script: str, *more: str) -> str:
        """Start a container, detached; returns its id."""
        limits = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096")  # no more than we may give
        place = ("--network", "none", *self.place)
        log = () if "--log-driver" in more else ("--log-driver", "k8s-file")
        words = (
            "run",
            "-d",
            "--name",
            name,
            *limits,
            *place,
            *log,
            *more,
            "localhost/bb:1",
            "sh",
            "-c",
            script,
        )
        return self(*words)

    def close(self) -> None:
        self("rm", "-f", "-a", "-t", "0", check=False)
        _tidy(self.root, f"tf-{self.root.name}")


@dataclass
class RootlessPodman(Podman):
    """podman of a user without rights, in its usual places below a home and a runtime directory of the test's own.

    It is started in a cgroup that was given to the user, as systemd gives a user one on v2.
    """

    user: str = "games"  # of every Debian, and nobody's

    def __post_init__(self) -> None:
        for name in ("home", "run"):
            (self.root / name).mkdir(mode=0o700)
        self._procs = []
        for hierarchy in sorted(path for path in Path("/sys/fs/cgroup").iterdir() if path.is_dir()):
            given = hierarchy / f"tf-{self.root.name}"
            given.mkdir()
            for name in ("cpuset.cpus", "cpuset.mems"):
                if (given / name).exists():
                    (given / name).write_text((hierarchy / name).read_text())
            self._procs.append(given / "cgroup.procs")
            for path in (given, *given.iterdir()):
                shutil.chown(path, self.user)
        super().__post_init__()

    def __call__(self, *words: str, check: bool = True) -> str:
        for path in (self.root, self.root / "home", self.root / "run"):
            shutil.chown(path, self.user, self.user)
        return super().__call__(*words, check=check)

    @property
    def command(self) -> list[str]:
        into = 'for procs in $PROCS; do echo $$ > $procs; done; cd $HOME; exec "$@"'
        return [
            *("env", f"HOME={self.root}/home", f"XDG_RUNTIME_DIR={self.root}/run"),
            *(f"PROCS={' '.join(map(str, self._procs))}", "sh", "-c", into, "sh"),
            *("setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups"),
            *("podman", "--cgroup-manager=cgroupfs", "--runtime", "runc"),
            *("--storage-driver", "vfs", "--events-backend", "file"),
        ]

    @property
    def place(self) -> tuple[str, ...]:
        return ()

    def close(self) -> None:
        self("rm", "-f", "-a", "-t", "0", check=False)
        for path in (self.root / "run").rglob("pause.pid"):  # which holds the user's namespace
            os.kill(int(path.read_text()), signal.SIGKILL)
        _tidy(self.root, f"tf-{self.root.name}")


@dataclass
class Containerd:
    """containerd with root, state and socket of its own."""

    root: Path
    namespace: str = field(default_factory=lambda: f"tf{uuid.uuid4().hex[:8]}")

    def __post_init__(self) -> None:
        config = self.root / "config.toml"
        config.write_text(
            f'version = 2\nroot = "{self.root}/root"\nstate = "{self.root}/state"\n'
            f'{self.configuration}[grpc]\naddress = "{self.root}/s"\n[ttrpc]\naddress = "{self.root}/t"\n'
        )
        self.rootfs = busybox(self.root / "bb")
        with (self.root / "log").open("wb") as log:
            command = [*self.launcher, "containerd", "-c", str(config)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        end = time.monotonic() + 120
        while self("version", check=False).returncode:
            assert self.process.poll() is None, (self.root / "log").read_text()[-2000:]
            assert time.monotonic() < end, "containerd did not answer"
            time.sleep(0.05)

    @property
    def cgroup(self) -> str:
        """The topmost of the cgroups that are its containers' own."""
        return self.namespace

    @property
    def configuration(self) -> str:
        """What its configuration says beside the places of its files."""
        return 'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'

    @property
    def launcher(self) -> list[str]:
        """What it is started by."""
        return []

    def __call__(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = ["ctr", "-a", str(self.root / "s"), "-n", self.namespace, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert not check or done.returncode == 0, done.stderr
        return done

    def run(self, name: str, *command: str, labels: tuple[str, ...] = ()) -> None:
        """Start a container, detached."""
        given = [word for label in labels for word in ("--label", label)]
        self("run", "-d", "--rootfs", "--null-io", *given, str(self.rootfs), name, *command)

    def remove(self, name: str) -> None:
        self("task", "kill", "-s", "KILL", name, check=False)
        self("task", "rm", "-f", name, check=False)
        self("c", "rm", name, check=False)

    def close(self) -> None:
        for name in self("c", "ls", "-q", check=False).stdout.split():
            self.remove(name)
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(120)
        _tidy(self.root, self.cgroup)


def _tidy(root: Path, cgroup: str) -> None:
    for mounted in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        point = mounted.split(" ")[4]
        if point.startswith(f"{root}/"):
            subprocess.run(["umount", "-l", point], check=False)
    shutil.rmtree(root, ignore_errors=True)
    for hierarchy in Path("/sys/fs/cgroup").iterdir():
        top = hierarchy / cgroup
        for directory in (*sorted((p for p in top.rglob("*") if p.is_dir()), reverse=True), top):
            if directory.is_dir():
                end = time.monotonic() + 60
                while directory.is_dir() and time.monotonic() < end:
                    try:
                        directory.rmdir()
                    except OSError:
                        time.sleep(0.02)
