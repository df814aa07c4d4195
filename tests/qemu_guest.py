"""A real cgroup v2 kernel for tests on any host: Debian's cloud kernel under qemu, with loads that are known.

The initial file system is static busybox and the script below. The guest runs its loads, copies ``/proc`` and
``/sys/fs/cgroup`` twice, writes both as a tar onto a disk and ends. Its CPU is emulated, so that no
virtualisation by the machine is needed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from guest_kernel import kernel, write_initrd

from collector.container import Container
from collector.roots import Roots

_BOOT_SECONDS = 400
_POD = "0c1a5f6e_5b1c_4d5e_9d3e_6f2f3a1b7c11"

IDS = {"burner": "a1" * 32, "holder": "b2" * 32, "victim": "c3" * 32, "writer": "d4" * 32}
#: Name to path below the hierarchy's root; 64 hexadecimal digits name the container.
CGROUPS = {
    "burner": f"/system.slice/docker-{IDS['burner']}.scope",
    "holder": f"/taffrail/{IDS['holder']}",
    "victim": f"/taffrail/{IDS['victim']}",
    "writer": f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{_POD}.slice"
    f"/cri-containerd-{IDS['writer']}.scope",
}

#: What the loads are made of, for the tests to compare with.
HELD_BYTES = 30 << 20
HOLDER_LIMIT = 64 << 20
HOLDER_PIDS = 3
VICTIM_LIMIT = 16 << 20
WRITTEN_BYTES = (
    1 << 20
)  #: with ``WRITES`` direct writes before the first snapshot, the same before the second
WRITES = 16
APART_SECONDS = 4

_APPLETS = (
    "sh",
    "mount",
    "mkdir",
    "mkfifo",
    "cat",
    "cp",
    "dd",
    "tr",
    "cut",
    "grep",
    "sleep",
    "tar",
    "reboot",
)
_INIT = """#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t cgroup2 cgroup2 /sys/fs/cgroup
tree=/sys/fs/cgroup

# A cgroup with every controller, which all of its ancestors have to hand down.
make() {{
    at=$tree
    for part in $(echo "$1" | tr / ' '); do
        echo '+cpu +memory +io +pids' >$at/cgroup.subtree_control
        at=$at/$part
        mkdir -p $at
    done
}}

# start NAME CGROUP PROGRAM: run it by a shell inside, and remember its PID.
start() {{
    make $2
    eval "$4"
    sh -c 'echo $$ >'$tree$2/$5'cgroup.procs; '"$3" &
    eval pid_$1=$!
    echo "$1 $!" >>/copies/pids
}}

copy() {{
    mkdir -p /copies/$1/proc/self /copies/$1/proc/1/net /copies/$1/proc/sys/kernel/random /copies/$1/sys/fs
    cd /copies/$1
    for file in cpuinfo meminfo diskstats self/mountinfo 1/net/dev sys/kernel/osrelease sys/kernel/hostname \\
        sys/kernel/random/boot_id; do
        cat /proc/$file >proc/$file
    done
    for pid in $pid_burner $pid_holder $pid_victim $pid_writer; do
        mkdir proc/$pid
        cat /proc/$pid/cgroup >proc/$pid/cgroup
    done
    cp /proc/stat /proc/uptime proc/
    cp -r $tree sys/fs/ 2>/dev/null # the files that are only written refuse
}}

write() {{ dd if=/dev/zero of=/dev/nvme0n1 bs={block} count={writes} oflag=direct 2>/dev/null; }}

mkdir /copies
mkfifo /full /write /exceed
start burner {burner} 'while :; do :; done' 'echo 50000 100000 >$at/cpu.max'
start holder {holder} 'sleep 9999 <>/full & dd if=/dev/zero of=/full bs={held} count=1 & wait' \\
    'echo {holder_limit} >$at/memory.max; echo 12 >$at/pids.max'
start victim {victim} 'read go </exceed; dd if=/dev/zero of=/dev/null bs=48M count=1; echo >/exceed; sleep 9999' \\
    'echo {victim_limit} >$at/memory.max'
# Moves deeper like an init system in a container.
start writer {writer} 'while read go </write; do
    dd if=/dev/zero of=/dev/nvme0n1 bs={block} count={writes} oflag=direct; echo >/write; done' \\
    'mkdir $at/init.scope' init.scope/
echo >/write; read done </write
# Until the memory is held: then the pipe is full.
while [ $(grep -w ^anon $tree{holder}/memory.stat | cut -d' ' -f2) -lt {held} ]; do sleep 0.1; done
copy first
echo >/write; read done </write
echo >/exceed; read done </exceed
sleep {apart}
copy second
tar -c -f /dev/nvme1n1 -C /copies .
echo guest: done
reboot -f
"""


@dataclass(frozen=True, slots=True)
class Guest:
    """Two copies of the guest's trees, and the processes that made the loads."""

    directory: Path
    pids: dict[str, int]  #: by the names of ``CGROUPS``; the first process of each
    cgroups: dict[str, str] = field(default_factory=lambda: CGROUPS)
    ids: dict[str, str] = field(default_factory=lambda: IDS)
    held_bytes: int = HELD_BYTES
    holder_limit: int = HOLDER_LIMIT
    holder_pids: int = HOLDER_PIDS
    victim_limit: int = VICTIM_LIMIT
    written_bytes: int = WRITTEN_BYTES
    writes: int = WRITES
    apart_seconds: int = APART_SECONDS

    def roots(self, copy: int) -> Roots:
        """The trees as they were before (0) and after (1)."""
        directory = self.directory / ("first", "second")[copy]
        return Roots(directory / "proc", directory / "sys", directory)

    def uptime_ns(self, copy: int) -> int:
        """The guest's clock when a copy was made."""
        text = (self.roots(copy).proc / "uptime").read_text()
        return int(float(text.split()[0]) * 1e9)

    def containers(self) -> list[Container]:
        """The loads as discovery would have found them."""
        return [
            Container(IDS[name], name, engine="docker", pid=pid, cgroup=CGROUPS[name], network_mode="none")
            for name, pid in self.pids.items()
        ]


def _script() -> str:
    return _INIT.format(
        **CGROUPS,
        block=WRITTEN_BYTES // WRITES,
        writes=WRITES,
        held=HELD_BYTES,
        holder_limit=HOLDER_LIMIT,
        victim_limit=VICTIM_LIMIT,
        apart=APART_SECONDS,
    )


def _run(directory: Path) -> str:
    """Boot, wait for the end; what the guest wrote on its console."""
    write_initrd(directory / "initrd", _script(), _APPLETS)
    for name, size in (("load", 4 << 20), ("copies", 32 << 20)):
        with (directory / name).open("wb") as disk:
            os.truncate(disk.fileno(), size)
    command: list[str | Path] = ["qemu-system-x86_64", "-accel", "tcg", "-m", "256", "-smp", "1"]
    # The guest's time is the instructions it has run, 16 ns each: what else the host does changes nothing.
    command += ["-icount", "shift=4,sleep=off", "-rtc", "clock=vm"]
    command += ["-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio", "-nic", "none"]
    command += ["-kernel", kernel().image, "-initrd", directory / "initrd"]
    command += ["-append", "console=ttyS0 panic=-1 psi=1 quiet cgroup_no_v1=all"]
    for name in ("load", "copies"):
        command += ["-drive", f"file={directory / name},format=raw,if=none,id={name}"]
        command += ["-device", f"nvme,serial={name},drive={name}"]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as guest:
        try:
            console, _ = guest.communicate(timeout=_BOOT_SECONDS)
        except subprocess.TimeoutExpired:
            guest.kill()
            console, _ = guest.communicate()
        finally:
            guest.kill()
    return console.decode(errors="replace")


@pytest.fixture(scope="session")
def v2_guest() -> Iterator[Guest]:
    """What a cgroup v2 kernel says of known loads, before and after ``APART_SECONDS``; read only."""
    directory = Path(tempfile.mkdtemp(prefix="qemu", dir="/tmp"))
    try:
        console = _run(directory)
        if "guest: done" not in console:
            pytest.fail(f"the guest did not finish its script:\n{console[-5000:]}")
        unpacked = directory / "unpacked"
        unpacked.mkdir()
        subprocess.run(["tar", "-x", "-f", directory / "copies", "-C", unpacked], check=True, timeout=300)
        words = [line.split() for line in (unpacked / "pids").read_text().splitlines()]
        pids = {name: int(pid) for name, pid in words}
        yield Guest(unpacked, pids)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
