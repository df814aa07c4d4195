import uuid
from pathlib import Path

import pytest

from runtime.block_accounting import count_block_io


def tree(root: Path, v1: bool) -> Path:
    for name, number in (("vda", "254:0"), ("loop0", "7:0"), ("sdb", "8:16")):
        (root / "block" / name).mkdir(parents=True)
        (root / "block" / name / "dev").write_text(f"{number}\n")
    (root / "fs/cgroup").mkdir(parents=True)
    if v1:
        (root / "fs/cgroup/blkio").mkdir()
    return root


def test_a_v1_kernel_gets_a_rule_without_a_limit_for_every_disk(tmp_path: Path) -> None:
    assert count_block_io(tree(tmp_path, v1=True), "/ours") == ["8:16", "254:0"]
    written = tmp_path / "fs/cgroup/blkio/ours/blkio.throttle.read_bps_device"
    assert written.read_text() == "254:0 0\n"  # the file takes one rule a write; this was the last


def test_a_v2_kernel_is_left_alone(tmp_path: Path) -> None:
    assert count_block_io(tree(tmp_path, v1=False), "/ours") == []


def test_a_disk_that_refuses_is_said_and_costs_the_others_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tree(tmp_path, v1=True)
    (root / "block/sdb/dev").unlink()
    assert count_block_io(root, "/ours") == ["254:0"]
    assert "sdb" in caplog.text


def test_this_kernel_takes_the_rule() -> None:
    hierarchy = Path("/sys/fs/cgroup/blkio")
    name = f"taffrail-test-{uuid.uuid4().hex[:10]}"
    counted = count_block_io(Path("/sys"), f"/{name}")
    if hierarchy.is_dir():
        (hierarchy / name).rmdir()
        assert counted
    else:
        assert not counted
