from pathlib import Path

import pytest

from collector.cgroup.layout import (
    UNIFIED,
    Layout,
    Mode,
    Mount,
    container_paths,
    parse_cgroup,
    parse_mountinfo,
)
from collector.roots import Roots

FIXTURES = Path(__file__).parents[2] / "fixtures"
ID = "4f" * 32


def fixture(name: str) -> Roots:
    return Roots(FIXTURES / name / "proc", FIXTURES / name / "sys", FIXTURES / name / "root")


@pytest.mark.parametrize("name", list(Mode))
def test_the_mode_is_told_from_the_mounts(name: str) -> None:
    assert Layout.read(fixture(name)).mode == name


def test_mountinfo_yields_only_cgroups_with_their_controllers() -> None:
    mounts = parse_mountinfo(
        b"22 27 0:21 / /proc rw - proc proc rw\n"
        b"33 32 0:29 /sub /mnt/with\\040space rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
        b"34 32 0:30 / /sys/fs/cgroup/systemd rw - cgroup systemd rw,xattr,release_agent=/x,name=systemd\n"
        b"35 32 0:31 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
    )
    assert mounts == (
        Mount(("cpu", "cpuacct"), "/mnt/with space", "/sub"),
        Mount(("name=systemd",), "/sys/fs/cgroup/systemd", "/"),
        Mount((UNIFIED,), "/sys/fs/cgroup/unified", "/"),
    )


def test_proc_cgroup_names_every_controller_and_the_unified_hierarchy() -> None:
    data = b"4:cpu,cpuacct:/a\n1:name=systemd:/b:c\n0::/d (deleted)\n"
    assert parse_cgroup(data) == {"cpu": "/a", "cpuacct": "/a", "name=systemd": "/b:c", UNIFIED: "/d"}


def test_a_malformed_cgroup_line_is_named() -> None:
    with pytest.raises(ValueError, match="'nonsense': expected 'number:controllers:path'"):
        parse_cgroup(b"nonsense\n")


@pytest.mark.parametrize(
    ("path", "own"),
    [
        (f"/docker/{ID}", f"/docker/{ID}"),
        (f"/system.slice/docker-{ID}.scope/init.scope", f"/system.slice/docker-{ID}.scope"),
        (
            f"/kubepods.slice/pod1.slice/cri-containerd-{ID}.scope",
            f"/kubepods.slice/pod1.slice/cri-containerd-{ID}.scope",
        ),
        (f"/machine.slice/libpod-{ID}.scope/container/x", f"/machine.slice/libpod-{ID}.scope"),
    ],
)
def test_an_init_system_inside_does_not_hide_the_containers_cgroup(path: str, own: str) -> None:
    assert container_paths({"memory": path, "cpu": "/", "pids": "/other"}, ID) == {"memory": own}


def test_without_the_id_in_any_path_the_root_is_left_out() -> None:
    assert container_paths({"cpu": "/custom", "memory": "/"}, ID) == {"cpu": "/custom"}


def test_a_hierarchy_mounted_from_a_child_is_addressed_relative_to_it() -> None:
    layout = Layout([Mount(("cpu",), "/sys/fs/cgroup/cpu", "/docker/outer")], Roots(sys=Path("/s")))
    assert layout.directory("cpu", "/docker/outer/inner") == Path("/s/fs/cgroup/cpu/inner")
    assert layout.directory("cpu", "/docker/outer2") is None
    assert layout.directory("memory", "/docker/outer") is None


def test_a_bind_mount_of_a_part_does_not_hide_the_whole() -> None:
    whole, part = Mount(("cpu",), "/sys/fs/cgroup/cpu", "/"), Mount(("cpu",), "/elsewhere", "/docker/x")
    for mounts in ([whole, part], [part, whole]):
        assert Layout(mounts, Roots()).directory("cpu", "/docker/x") == Path("/sys/fs/cgroup/cpu/docker/x")


def test_a_host_without_cgroups_is_refused(tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self/mountinfo").write_text("22 27 0:21 / /proc rw - proc proc rw\n")
    with pytest.raises(ValueError, match="expected at least one mounted cgroup hierarchy"):
        Layout.read(Roots(proc=tmp_path))
