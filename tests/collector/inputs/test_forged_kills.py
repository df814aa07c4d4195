"""What is no kill, or tells of nobody: records of programs, and cgroups with odd names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from collector.discovery.registry import Containers
from collector.enrich import Sources
from collector.inputs.kernel_log import KernelLog
from collector.sink import Source
from logdrivers.block import Block

KILL = (
    "Out of memory: Killed process 7 (x) total-vm:1kB, anon-rss:1kB, file-rss:0kB, shmem-rss:0kB, "
    "UID:0 pgtables:1kB oom_score_adj:0"
)


class Intake:
    """Counts what is stored."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []

    def append(self, source: Source, block: Block, checkpoint: tuple[str, bytes] | None = None) -> None:
        self.blocks.append(block)

    def checkpoint(self, key: str) -> bytes | None:
        return None


def followed(proc: Path, *records: str) -> tuple[KernelLog, Intake]:
    containers, intake = Containers(), Intake()
    log = KernelLog(containers, intake, Sources(containers, "host"), proc)
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_DIRECT)  # a record a read
    for record in records:
        os.write(writing, record.encode())
    log.read(reading)
    os.close(reading)
    os.close(writing)
    return log, intake


def test_what_a_program_wrote_to_the_kernels_log_is_no_kill(tmp_path: Path) -> None:
    """The kernel marks it as the program's, whatever that said it was."""
    log, intake = followed(tmp_path, f"12,1,5,-;{KILL}\n", f"4,2,6,-;{KILL}\n")
    assert (log.kills, log.failures, len(intake.blocks)) == (1, 0, 1)


@pytest.mark.parametrize("cgroup", [b"5:memory:/x/a\x0cb\n0::/\n", b"5:memory:/\xff\n", b"nonsense\n"])
def test_a_kill_in_a_cgroup_with_an_odd_name_is_stored(tmp_path: Path, cgroup: bytes) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7/cgroup").write_bytes(cgroup)
    log, intake = followed(tmp_path, f"4,1,5,-;{KILL}\n", f"4,2,6,-;{KILL}\n")
    assert (log.kills, log.failures, len(intake.blocks)) == (2, 0, 2)


def test_the_kernel_says_who_wrote(tmp_path: Any) -> None:
    """A record this test writes to the real log, which forges nothing, has the facility of programs."""
    with open("/dev/kmsg", "rb", buffering=0, opener=_seek_end) as log:
        with open("/dev/kmsg", "wb", buffering=0) as device:
            device.write(f"<4>taffrail test {tmp_path.name}\n".encode())
        while tmp_path.name.encode() not in (record := os.read(log.fileno(), 8192)):
            pass
    assert int(record.partition(b",")[0]) >> 3 == 1


def _seek_end(path: str, flags: int) -> int:
    fd = os.open(path, flags | os.O_NONBLOCK)
    os.lseek(fd, 0, os.SEEK_END)
    return fd
