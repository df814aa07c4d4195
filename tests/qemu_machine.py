"""A whole machine with a cgroup v2 kernel for tests on any host: qemu with this host's files, and a shell by TCP.

Its root file system is this host's, read only and shared by virtiofsd, below a layer in the machine's memory: what
is installed here is installed there, this checkout and its Python included. It sees files as they were when
it first looked. A disk of its own is at ``/data``, programs are run by ``Machine.run``, and its ports
are forwarded to this host's loopback. Its CPUs are emulated: Python takes some 15 times as long as here.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from guest_kernel import kernel, write_initrd
from held_port import hold_port

_CHECKOUT = Path(__file__).resolve().parent.parent
_PACKAGES = ("logdrivers", "runtime", "collector", "exporters", "dashboards", "taffrail")
_VIRTIOFSD = "/usr/lib/qemu/virtiofsd"
_MEMORY = "1024M"
_BOOT_SECONDS = 300
#: Needed to reach the root file system and the host; all others are loaded from there when they are needed.
_MODULES = ("virtio_pci", "virtiofs", "overlay", "virtio_net")
_APPLETS = ("sh", "mount", "mkdir", "insmod", "cp", "switch_root")
_SHELL_PORT = 7000
#: The ports that programs in the machine may listen on to be reached from here.
PORTS = (9480,)

_INIT = """#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
for module in {modules}; do insmod /modules/$module; done
mkdir /host /layer /root
mount -t virtiofs -o ro root /host
mount -t tmpfs tmpfs /layer
mkdir /layer/upper /layer/work
mount -t overlay -o lowerdir=/host,upperdir=/layer/upper,workdir=/layer/work root /root
for name in proc sys dev; do mount -o move /$name /root/$name; done
exec switch_root /root /bin/sh {directory}/boot
"""

_BOOT = """
export PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs tmpfs /run
mkdir -p /dev/pts /dev/shm /data /lib/modules
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount /dev/nvme0n1 /data
ln -s {kernel_modules} /lib/modules/
ln -sf "$(command -v busybox)" /sbin/modprobe
hostname v2machine
ip link set lo up
ip addr add 10.0.2.15/24 dev eth0
ip link set eth0 up
ip route add default via 10.0.2.2
busybox nc -ll -p {port} -e {directory}/shell &
echo machine: up
while :; do wait; sleep 1; done # PID 1 takes in whoever is left
"""

_SHELL = """#!/bin/sh
script=$(cat)
sh -c "$script" </dev/null 2>&1
status=$?
echo "
status=$status"
"""


class Machine:
    """A running machine."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="qm", dir="/tmp"))
        self._processes: list[subprocess.Popen[bytes]] = []
        self._held = {port: hold_port() for port in (_SHELL_PORT, *PORTS)}
        self._ports = {port: held.getsockname()[1] for port, held in self._held.items()}

    def start(self) -> None:
        """Boot it and wait until it takes commands; fails with what is on its console."""
        self._write_files()
        self._share_root()
        self._boot()
        deadline = time.monotonic() + _BOOT_SECONDS
        while True:
            with contextlib.suppress(OSError):
                if self.run("true", check=False, seconds=60) == "":
                    return
            if not self.runs() or time.monotonic() > deadline:
                pytest.fail(f"the machine did not come up:\n{self.console()}")
            time.sleep(0.2)

    def _write_files(self) -> None:
        modules = kernel().needed_by(*_MODULES)
        names = {"directory": self.directory, "port": _SHELL_PORT, "kernel_modules": kernel().modules}
        script = _INIT.format(modules=" ".join(module.name for module in modules), **names)
        write_initrd(self.directory / "initrd", script, _APPLETS, modules)
        (self.directory / "boot").write_text(_BOOT.format(**names))
        (self.directory / "shell").write_text(_SHELL)
        (self.directory / "shell").chmod(0o755)
        # Compiling takes long in there.
        subprocess.run(
            [sys.executable, "-m", "compileall", "-q", *_PACKAGES], check=True, cwd=_CHECKOUT, timeout=250
        )
        with (self.directory / "disk").open("wb") as disk:
            os.truncate(disk.fileno(), 1 << 30)
        subprocess.run(
            ["/sbin/mkfs.ext4", "-q", "-O", "^has_journal", self.directory / "disk"], check=True, timeout=100
        )

    def _spawn(self, name: str, command: list[str | Path]) -> None:
        with (self.directory / f"{name}.log").open("wb") as log:
            self._processes.append(
                subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            )

    def _share_root(self) -> None:
        self._spawn(
            "virtiofsd",
            # chroot: pivot_root, as the other sandbox uses, cannot leave an initial RAM file system
            [
                _VIRTIOFSD,
                f"--socket-path={self.directory}/root",
                "-o",
                "source=/,cache=always,sandbox=chroot",
            ],
        )
        deadline = time.monotonic() + 120
        while not (self.directory / "root").exists():
            if self._processes[-1].poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"virtiofsd: {(self.directory / 'virtiofsd.log').read_text()[-2000:]}")
            time.sleep(0.02)

    def _boot(self) -> None:
        command: list[str | Path] = ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max"]
        command += ["-m", _MEMORY, "-smp", "2", "-nodefaults", "-display", "none", "-no-reboot"]
        command += ["-serial", "stdio", "-kernel", kernel().image, "-initrd", self.directory / "initrd"]
        # On a busy host the timer may not have come by the time the kernel looks whether it works, and panics.
        options = "console=ttyS0 panic=-1 psi=1 quiet no_timer_check cgroup_no_v1=all hugepages=4"
        command += ["-append", options]
        # virtiofsd works in the machine's memory
        command += ["-object", f"memory-backend-memfd,id=memory,size={_MEMORY},share=on"]
        command += ["-numa", "node,memdev=memory"]
        command += ["-chardev", f"socket,id=root,path={self.directory}/root"]
        command += ["-device", "vhost-user-fs-pci,chardev=root,tag=root"]
        command += ["-drive", f"file={self.directory}/disk,format=raw,if=none,id=data,cache=unsafe"]
        command += ["-device", "nvme,serial=data,drive=data"]
        # Nothing in there reaches this host or beyond.
        forwarded = [f"hostfwd=tcp:127.0.0.1:{here}-:{there}" for there, here in self._ports.items()]
        command += ["-netdev", ",".join(["user,id=net,restrict=on", *forwarded])]
        command += ["-device", "virtio-net-pci,netdev=net"]
        self._spawn("console", command)

    def runs(self) -> bool:
        """Whether it is still there; a kernel that panics ends it."""
        return self._processes[-1].poll() is None

    def console(self) -> str:
        """What it wrote on its console lately."""
        return (self.directory / "console.log").read_text(errors="replace")[-5000:]

    def address(self, port: int) -> str:
        """Where one of ``PORTS`` is to be found here, as ``HOST:PORT``."""
        return f"127.0.0.1:{self._ports[port]}"

    def run(self, script: str, check: bool = True, seconds: float = 400) -> str:
        """Run a script by the machine's shell as root; what it printed, both streams."""
        with socket.create_connection(("127.0.0.1", self._ports[_SHELL_PORT]), timeout=seconds) as shell:
            shell.sendall(script.encode())
            shell.shutdown(socket.SHUT_WR)
            with shell.makefile("rb") as answer:
                printed = answer.read().decode(errors="replace")
        output, _, status = printed.rpartition("\nstatus=")
        if not status:
            raise ConnectionError("no status: the machine does not listen yet")
        assert not check or int(status) == 0, f"{script}\nstatus {status.strip()}: {output}"
        return output

    def close(self) -> None:
        """Switch it off."""
        for process in reversed(self._processes):
            process.kill()
            process.wait(60)
        for held in self._held.values():
            held.close()
        shutil.rmtree(self.directory, ignore_errors=True)


@pytest.fixture(scope="module")
def v2_machine() -> Iterator[Machine]:
    """A booted machine with nothing running in it."""
    machine = Machine()
    try:
        machine.start()
        yield machine
    finally:
        machine.close()
