"""The group ``disk`` on a made mount table, and where containers' files are."""

from __future__ import annotations

import logging
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from collector.container import Container, LogSource
from collector.disk.group import DiskGroup, files_bytes
from collector.disk.places import source_of, upper_directory, volumes
from collector.disk.walker import Walker
from collector.roots import Roots
from logdrivers.mountinfo import parse_mountinfo

OVERLAY = (
    "1 0 0:50 / / rw,relatime - overlay overlay rw,lowerdir=/l/a:/l/b,upperdir={upper},workdir=/w\n"
    "2 1 0:51 / /proc rw - proc proc rw\n"
)


def test_the_writable_layer_is_the_overlays_upper_directory() -> None:
    assert upper_directory(parse_mountinfo(OVERLAY.format(upper="/o/diff").encode())) == "/o/diff"
    escaped = OVERLAY.format(upper="/with\\040space/a\\054b").encode()
    assert upper_directory(parse_mountinfo(escaped)) == "/with space/a,b"
    assert upper_directory(parse_mountinfo(OVERLAY.format(upper="relative").encode())) == ""
    assert upper_directory(parse_mountinfo(b"1 0 254:0 / / rw - ext4 /dev/vda rw\n")) == ""
    readonly = b"1 0 0:50 / / ro - overlay overlay ro,lowerdir=/a:/b\n"
    assert upper_directory(parse_mountinfo(readonly)) == ""
    assert upper_directory([]) == ""


def test_volumes_of_every_engine_by_name() -> None:
    table = (
        "1 0 254:0 /var/lib/docker/volumes/db/_data /data rw - ext4 /dev/vda rw\n"
        "2 0 254:0 /var/lib/docker/volumes/db/_data /again rw - ext4 /dev/vda rw\n"
        "3 0 254:0 /pods/u/volumes/kubernetes.io~empty-dir/cache /cache rw shared:1 - ext4 /dev/vda rw\n"
        "4 0 254:0 /home/user/src /src rw - ext4 /dev/vda rw\n"
        "5 0 0:9 /volumes/nas/_data /nas rw - nfs4 server:/x rw\n"
        "6 0 254:0 /var/lib/docker/containers/x/hosts /etc/hosts rw - ext4 /dev/vda rw\n"
    )
    assert volumes(parse_mountinfo(table.encode())) == {"db": "/data", "cache": "/cache"}


def test_the_device_is_that_of_the_nearest_mount() -> None:
    mounts = parse_mountinfo(
        b"1 0 254:0 / / rw - ext4 /dev/vda rw\n2 1 254:1 / /var/lib rw - xfs /dev/vdb rw\n"
        b"3 1 254:2 / /var/lib/docker-other rw - xfs /dev/vdc rw\n"
    )
    assert source_of("/var/lib/docker/overlay2/x/diff", mounts) == "/dev/vdb"
    assert source_of("/srv", mounts) == "/dev/vda"
    assert source_of("/srv", []) == ""


class Host:
    """A host's procfs with one container in it, all below one directory."""

    def __init__(self, directory: Path) -> None:
        self.proc = directory / "proc"
        self.root = directory / "root"
        self.upper = self.root / "o/diff"
        self.volume = self.proc / "7/root/data"
        self.log = self.root / "log"
        for path in (self.upper, self.volume, self.log, self.proc / "1"):
            path.mkdir(parents=True)
        (self.proc / "1/mountinfo").write_text("1 0 254:0 / / rw - ext4 /dev/vda rw\n")
        (self.proc / "7/mountinfo").write_text(
            OVERLAY.format(upper="/o/diff") + "9 1 254:0 /volumes/db/_data /data rw - ext4 /dev/vda rw\n"
        )
        self.now = 0.0
        self.group = DiskGroup(Roots(self.proc, Path("/sys"), self.root), 300, Walker(1.0), lambda: self.now)

    def read(self, **changes: Any) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        log = LogSource("json-file", "/log/x-json.log")
        container = Container(**{"id": "ab" * 32, "name": "web", "pid": 7, "log": log, **changes})
        target: Any = SimpleNamespace(container=container)
        return {(family, labels): value for family, labels, value in self.group.read(target)}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


DEVICE = (("device", "/dev/vda"),)


def write(path: Path, size: int) -> int:
    """Make a file that is on the disk; the bytes it takes there, which are the file system's affair."""
    with path.open("wb") as file:
        file.write(os.urandom(size))
        os.fsync(file.fileno())
    return path.stat().st_blocks * 512


def du(path: Path) -> int:
    done = subprocess.run(["du", "-sx", "-B1", path], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[0])


def test_layer_log_and_volume(host: Host) -> None:
    host.read()
    assert write(host.upper / "ten", 10 << 20) >= 10 << 20
    assert write(host.volume / "five", 5 << 20) >= 5 << 20
    logs = sum(write(host.log / name, 1 << 20) for name in ("x-json.log", "x-json.log.1", "x-json.log.2.gz"))
    write(host.log / "other", 1 << 20)
    host.now = 1000
    rooms = [os.statvfs(host.upper)]
    found = host.read()
    rooms.append(os.statvfs(host.upper))
    assert {
        key: value
        for key, value in found.items()
        if key[0].endswith(("usage_bytes", "log_bytes", "volume_bytes"))
    } == {
        ("container_fs_usage_bytes", DEVICE): du(host.upper),
        ("container_log_bytes", ()): logs,
        ("container_volume_bytes", (("volume", "db"),)): du(host.volume),
    }
    assert found["container_fs_limit_bytes", DEVICE] == rooms[0].f_blocks * rooms[0].f_frsize
    assert found["container_fs_inodes_total", DEVICE] in {room.f_files for room in rooms}


def test_a_volume_of_several_containers_is_walked_once(host: Host) -> None:
    first = host.read()
    write(host.volume / "five", 5 << 20)
    key = ("container_volume_bytes", (("volume", "db"),))
    host.now = 149
    assert host.read(id="cd" * 32)[key] == first[key]
    host.now = 151
    assert host.read()[key] == du(host.volume) >= first[key] + (5 << 20)


def test_a_journal_with_the_log_in_it_is_counted_once(host: Host) -> None:
    write(host.log / "x-json.log", 1 << 20)
    whole = host.read(log=LogSource("gelf", "", "/log"))
    assert host.read(log=LogSource("json-file", "/log/x-json.log", "/log/")) == whole
    assert ("container_log_bytes", ()) not in host.read(log=LogSource("syslog"))


def test_a_part_that_cannot_be_read_leaves_the_others(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    host.upper.rmdir()
    with caplog.at_level(logging.WARNING):
        names = {family for family, _ in host.read()}
        host.read()
    assert names == {"container_log_bytes", "container_volume_bytes"}
    assert [record.message.split(":")[0] for record in caplog.records] == [
        "cannot measure the writable layer of container web"
    ]


def test_bare_cgroups_and_containers_that_do_not_run_have_none(host: Host) -> None:
    assert host.read(id="/system.slice/x.service") == {}
    assert host.read(pid=0) == {}
    with pytest.raises(FileNotFoundError):
        host.read(pid=8)


def test_a_log_without_rotated_files(tmp_path: Path) -> None:
    size = write(tmp_path / "a.log", 8192)
    assert files_bytes(str(tmp_path / "a.log")) == size > 0


def test_a_process_that_ended_and_was_not_reaped_is_gone() -> None:
    pid = os.posix_spawn("/bin/true", ["true"], {})
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        target: Any = SimpleNamespace(container=Container("c" * 64, "c", engine="docker", pid=pid))
        with pytest.raises(ProcessLookupError):
            DiskGroup(Roots(), 300, Walker(1.0)).read(target)
    finally:
        os.waitpid(pid, 0)
