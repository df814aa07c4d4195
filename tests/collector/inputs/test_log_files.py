"""Files of a log that are none: a container's owner may have put anything in their place."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from collector.inputs.log_files import open_generations


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def device(path: Path) -> None:
    os.mknod(path, 0o020600, os.makedev(1, 5))  # as /dev/zero


def socket(path: Path) -> None:
    os.mknod(path, 0o140600)


@pytest.mark.parametrize("name", ["c.log", "c.log.1", "c.log.2.gz"])
@pytest.mark.parametrize("make", [os.mkfifo, device, os.mkdir, socket])
def test_what_is_no_file_is_refused_and_not_waited_for(
    tmp_path: Path, make: Callable[[Path], None], name: str
) -> None:
    for other in ("c.log", "c.log.1"):
        if other != name:
            (tmp_path / other).write_text("x\n")
    make(tmp_path / name)
    before = open_files()
    for _ in range(3):
        with pytest.raises(OSError, match=name):
            open_generations(tmp_path / "c.log")
    assert open_files() == before, "those before it are closed again"


def test_a_link_to_a_file_is_followed(tmp_path: Path) -> None:
    """The kubelet makes them."""
    (tmp_path / "0.log").write_text("x\n")
    (tmp_path / "c.log").symlink_to("0.log")
    ((found,), _) = open_generations(tmp_path / "c.log")
    assert found.read(0, 10) == b"x\n"
    found.close()


@pytest.mark.parametrize("name", ["c.log", "c.log.1", "c.log.2.gz"])
def test_of_a_users_logs_only_files_of_theirs_are_read(tmp_path: Path, name: str) -> None:
    """Anybody may start a program called conmon with ``-l k8s-file:/etc/shadow``."""
    for each in {"c.log", "c.log.1", name}:
        (tmp_path / each).write_bytes(gzip.compress(b"x\n") if each.endswith(".gz") else b"x\n")
        os.chown(tmp_path / each, 1234, 1234)
    found, _ = open_generations(tmp_path / "c.log", user=1234)
    assert len(found) == len({"c.log", "c.log.1", name})
    for generation in found:
        generation.close()
    (tmp_path / "secret").write_bytes((tmp_path / name).read_bytes())
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to("secret")  # which is root's
    with pytest.raises(PermissionError, match=r"a log of user 1234, but the file is user 0's"):
        open_generations(tmp_path / "c.log", user=1234)
