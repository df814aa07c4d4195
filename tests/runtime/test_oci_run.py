"""Specs made by runtime.oci.spec, run by the real runc."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runtime.errors import BadRequest
from runtime.images.image import Image
from runtime.oci.spec import SpecMount
from runtime.rootfs import ContainerRootfs

MB = 1 << 20


def sh(script: str, **body: Any) -> dict[str, Any]:
    return {"Cmd": ["sh", "-c", script], **body}


#: Of the one tree of a host of v2.
UNIFIED = Path("/sys/fs/cgroup/cgroup.controllers").exists()


def cgroup_path(pid: int, controller: str) -> str:
    """A process's place below the hierarchy of a controller, as the collector finds it: by /proc/PID/cgroup."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(",") or (UNIFIED and not controllers):
            return path
    raise AssertionError(f"pid {pid} is in no cgroup of {controller}")


def cgroup_file(pid: int, controller: str, name: str) -> str:
    """A file of a process's cgroup."""
    root = Path("/sys/fs/cgroup") / ("" if UNIFIED else controller)
    return (root / cgroup_path(pid, controller).lstrip("/") / name).read_text().strip()


def test_output_and_exit_code(bundles: Any) -> None:
    done = bundles.run(sh("echo out; echo err >&2; exit 7"))
    assert (done.code, done.out, done.err) == (7, "out\n", "err\n")


def test_environment_directory_and_hostname(bundles: Any) -> None:
    done = bundles.run(
        sh("echo $GREETING $NAME $HOME; pwd; hostname", Env=["NAME=x"], WorkingDir="/made/by/runc")
    )
    first, directory, hostname = done.out.splitlines()
    assert (first, directory) == ("hello x /root", "/made/by/runc")
    assert hostname == bundles.ids[0][:12]
    assert bundles.run(sh("hostname", Hostname="myhost")).out == "myhost\n"


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("web", "uid=1001(web) gid=1002(web) groups=29(audio),1002(web)"),
        ("1001", "uid=1001(web) gid=1002(web) groups=29(audio),1002(web)"),
        ("web:logs", "uid=1001(web) gid=40(logs) groups=40(logs)"),
        ("4242:7", "uid=4242 gid=7 groups=7"),
    ],
)
def test_user(bundles: Any, user: str, expected: str) -> None:
    done = bundles.run({"Cmd": ["id"], "User": user})
    name, gid, groups = done.out.split()
    assert (name, gid) == tuple(expected.split()[:2])
    wanted = expected.split()[2].removeprefix("groups=").split(",")
    assert sorted(groups.removeprefix("groups=").split(",")) == sorted(wanted)


def test_unknown_user_and_group(bundles: Any) -> None:
    with pytest.raises(BadRequest, match="unable to find user nobody: no matching entries in passwd file"):
        bundles.run({"Cmd": ["id"], "User": "nobody"})
    with pytest.raises(BadRequest, match="unable to find group staff: no matching entries in group file"):
        bundles.run({"Cmd": ["id"], "User": "web:staff"})


def test_memory_limit_and_swap_twice_it(bundles: Any) -> None:
    _, pid = bundles.start(sh("sleep 600", HostConfig={"Memory": 64 * MB}))
    if UNIFIED:
        assert cgroup_file(pid, "memory", "memory.max") == str(64 * MB)
        assert cgroup_file(pid, "memory", "memory.swap.max") == str(64 * MB)
        return
    assert cgroup_file(pid, "memory", "memory.limit_in_bytes") == str(64 * MB)
    assert cgroup_file(pid, "memory", "memory.memsw.limit_in_bytes") == str(128 * MB)


def test_cpu_quota_shares_and_pids(bundles: Any) -> None:
    _, pid = bundles.start(
        sh("sleep 600", HostConfig={"NanoCpus": 500_000_000, "CpuShares": 512, "PidsLimit": 17})
    )
    assert cgroup_file(pid, "pids", "pids.max") == "17"
    if UNIFIED:
        assert cgroup_file(pid, "cpu", "cpu.max") == "50000 100000"
        assert (
            1 < int(cgroup_file(pid, "cpu", "cpu.weight")) < 100
        )  # of 1024 shares; runtimes' formulas differ
        return
    assert cgroup_file(pid, "cpu", "cpu.cfs_quota_us") == "50000"
    assert cgroup_file(pid, "cpu", "cpu.cfs_period_us") == "100000"
    assert cgroup_file(pid, "cpu", "cpu.shares") == "512"


def test_cgroup_path_holds_the_id(bundles: Any) -> None:
    container_id, pid = bundles.start(sh("sleep 600"))
    assert cgroup_path(pid, "memory") == f"{bundles.cgroup}/{container_id}"


@pytest.mark.parametrize(
    "attempt",
    [
        "unshare -m true",
        "unshare -U true",
        "mount -t tmpfs none /tmp",
        "hostname other",
    ],
)
def test_blocked_by_default(bundles: Any, attempt: str) -> None:
    done = bundles.run(sh(f"{attempt} 2>&1; echo code $?"))
    assert "not permitted" in done.out or "permission denied" in done.out


def test_proc_is_masked_and_readonly(bundles: Any) -> None:
    done = bundles.run(
        sh("cat /proc/kcore | wc -c; touch /proc/sys/kernel/domainname; ls /sys/firmware | wc -l")
    )
    assert done.out.split() == ["0", "0"]
    assert "Read-only file system" in done.err


def test_privileged_sees_devices_and_may_mount(bundles: Any) -> None:
    done = bundles.run(
        sh("mount -t tmpfs none /tmp && echo mounted; ls /dev/loop-control", HostConfig={"Privileged": True})
    )
    assert done.out == "mounted\n/dev/loop-control\n"


def test_capabilities(bundles: Any) -> None:
    def bounding(**host: Any) -> int:
        out = bundles.run(sh("grep CapBnd /proc/self/status", HostConfig=host)).out
        return int(out.split()[1], 16)

    assert bounding() == 0xA80425FB
    assert bounding(CapDrop=["ALL"], CapAdd=["net_raw"]) == 1 << 13
    assert bounding(CapAdd=["SYS_TIME"]) == 0xA80425FB | 1 << 25
    with pytest.raises(BadRequest, match='invalid CapAdd: unknown capability: "CAP_FLY"'):
        bounding(CapAdd=["fly"])


def test_readonly_root_tmpfs_and_bind(bundles: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("from the host\n")
    done = bundles.run(
        sh(
            "touch /x; touch /run/y && echo tmpfs; cat /data/file; touch /data/z",
            HostConfig={"ReadonlyRootfs": True, "Tmpfs": {"/run": "size=64k"}},
        ),
        mounts=[SpecMount("/data", str(tmp_path), options=("rbind", "rprivate", "ro"))],
    )
    assert done.out == "tmpfs\nfrom the host\n"
    assert done.err.count("Read-only file system") == 2


def test_etc_files_ulimits_and_sysctls(bundles: Any, busybox_image: Image, short_dir: Path) -> None:
    rootfs = ContainerRootfs(short_dir / "etc-files", busybox_image.layer_dirs)
    etc = rootfs.write_etc("named", "127.0.0.1\tlocalhost\n", "nameserver 192.0.2.53\n")
    done = bundles.run(
        sh(
            "cat /etc/hostname /etc/hosts /etc/resolv.conf; ulimit -n; cat /proc/sys/net/ipv4/ip_default_ttl",
            HostConfig={
                "Ulimits": [{"Name": "nofile", "Soft": 123, "Hard": 456}],
                "Sysctls": {"net.ipv4.ip_default_ttl": "33"},
            },
        ),
        etc=etc,
    )
    assert done.out == "named\n127.0.0.1\tlocalhost\nnameserver 192.0.2.53\n123\n33\n"


def test_init_reaps_and_passes_the_exit_code(bundles: Any) -> None:
    done = bundles.run(
        sh("cat /proc/1/comm; exit 3", HostConfig={"Init": True}), init_path=Path("/usr/bin/docker-init")
    )
    assert (done.code, done.out) == (3, "docker-init\n")


def test_device(bundles: Any) -> None:
    host = {
        "Devices": [
            {"PathOnHost": "/dev/loop-control", "PathInContainer": "/dev/control", "CgroupPermissions": "r"}
        ]
    }
    done = bundles.run(sh("head -c 0 </dev/control && echo readable; ls -l /dev/control", HostConfig=host))
    assert done.out.startswith("readable\n")
    assert f"{os.major(Path('/dev/loop-control').stat().st_rdev)}, " in done.out


def test_host_network_shares_the_hosts(bundles: Any) -> None:
    done = bundles.run(sh("ls -L /proc/self/ns/net -i", HostConfig={"NetworkMode": "host"}))
    assert str(Path("/proc/self/ns/net").stat().st_ino) in done.out


def test_image_entrypoint_and_command(bundles: Any, make_image: Callable[..., Image]) -> None:
    image = make_image(['ENTRYPOINT ["echo", "entry"]', 'CMD ["default"]', "USER web", "WORKDIR /home/web"])
    assert bundles.run({}, image).out == "entry default\n"
    assert bundles.run({"Cmd": ["own"]}, image).out == "entry own\n"
    assert bundles.run({"Entrypoint": ["pwd"]}, image).out == "/home/web\n"
