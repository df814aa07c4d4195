"""Cgroups that a container may make for itself: names with separators of lines, trees as deep as the kernel lets."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from collector.cgroup.layout import Layout, parse_cgroup
from collector.container import Container
from collector.discovery.registry import Containers
from collector.processes.members import Members
from collector.processes.recorder import ProcessArchive, ProcessRecorder
from collector.processes.scan import Scan
from collector.roots import Roots

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def deep(cgroup: Path) -> Iterator[None]:
    """A thousand cgroups in one another; the path of the last is longer than paths may be."""
    home = Path.cwd()
    names = ["a"] * 1000 + ["b" * 200] * 11
    os.chdir(cgroup)
    try:
        for name in names:
            Path(name).mkdir()
            os.chdir(name)
        yield
        for name in reversed(names):
            os.chdir("..")
            Path(name).rmdir()
    finally:
        os.chdir(home)


def ended(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()


def test_a_process_that_cannot_be_read_hides_no_other(program: Start, tmp_path: Path) -> None:
    """Kernels refuse to tell of a cgroup whose path is longer than paths may be; hidepid refuses everything."""
    process = program("")
    for pid in ("1000", "1001", "1002"):
        (tmp_path / pid).mkdir()
        for name in ("stat", "io", "cgroup", "status", "cmdline"):
            (tmp_path / pid / name).write_bytes(Path(f"/proc/{process.pid}/{name}").read_bytes())
    (tmp_path / "1000/cgroup").unlink()
    (tmp_path / "1000/cgroup").mkdir()
    (tmp_path / "1001/io").write_text("nonsense")
    scan = Scan(tmp_path)
    scan.look(10.0)
    assert scan.unreadable == 1
    assert [sorted(pids) for pids in scan.by_cgroup(lambda _: "").values()] == [[1001, 1002]]
    ended(process)


def test_a_long_list_of_cgroups_is_read_whole(program: Start, tmp_path: Path) -> None:
    process = program("")
    (tmp_path / "1000").mkdir()
    for name in ("stat", "io"):
        (tmp_path / "1000" / name).write_bytes(Path(f"/proc/{process.pid}/{name}").read_bytes())
    paths = "".join(f"{number}:c{number}:/{'x' * 500}/{number}\n" for number in range(13))
    (tmp_path / "1000/cgroup").write_text(paths)
    scan = Scan(tmp_path)
    scan.look(10.0)
    assert list(scan.by_cgroup(lambda cgroup: parse_cgroup(cgroup)["c12"][-3:])) == ["/12"]
    ended(process)


@pytest.mark.usefixtures("deep")
def test_a_deep_tree_hides_nobodys_processes(program: Start, cgroup: Path) -> None:
    containers = Containers()
    containers.update(Container("c" * 64, "web", cgroup=f"/{cgroup.name}"))
    process = program("")
    Path("cgroup.procs").write_text(str(process.pid))
    members = Members(containers, Layout.read(Roots()), Path("/proc"))
    assert members.pids(containers.all()[0]) == []
    (cgroup / "cgroup.procs").write_text(str(process.pid))
    assert members.pids(containers.all()[0]) == [process.pid]
    ended(process)


@pytest.mark.parametrize("name", ["a\x0cb", "a\x85b", "a\u2028b", "a\x1cb"])
def test_a_name_with_a_separator_of_lines_is_one_name(
    program: Start, cgroup: Path, tmp_path: Path, name: str
) -> None:
    assert parse_cgroup(f"5:pids:/x/{name}\n0::/y\n".encode()) == {"pids": f"/x/{name}", "": "/y"}
    containers = Containers()
    containers.update(Container("c" * 64, "web", cgroup=f"/{cgroup.name}"))
    process = program("")
    (cgroup / name).mkdir()
    (cgroup / name / "cgroup.procs").write_text(str(process.pid))
    archive = ProcessArchive(tmp_path, 1 << 20)
    recorder = ProcessRecorder(containers, Roots(), archive, share=1.0)
    recorder.record()
    archive.close()
    assert list(recorder.scan.by_cgroup(recorder._owner)["c" * 64]) == [process.pid]
    ended(process)
