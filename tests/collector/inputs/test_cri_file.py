"""The kubelet's and podman's logs through rotation."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

from collector.inputs.cri_file import CriFileTail
from collector.sink import Source
from logdrivers.block import Encoding

SOURCE = Source("c", "web", "image", "host", "cri")


def lines(*numbers: int) -> bytes:
    return b"".join(b"2026-11-20T19:43:32.%09dZ stdout F %d\n" % (number, number) for number in numbers)


def numbers(intake: Any) -> list[int]:
    return [int(message) for message in intake.messages()]


def read(tail: CriFileTail) -> None:
    while tail.turn():
        pass


def test_rotation_as_the_kubelet_does_it(tmp_path: Path, intake: Any) -> None:
    path = tmp_path / "0.log"
    tail = CriFileTail(path, "k", SOURCE, intake)
    path.write_bytes(lines(*range(10)))
    read(tail)
    rotated = tmp_path / "0.log.20261120-194332"
    with path.open("ab") as file:
        file.write(lines(10))
    path.rename(rotated)
    path.write_bytes(lines(11))
    read(tail)
    assert numbers(intake) == list(range(12))
    assert (tail.counters.rotations, tail.counters.unverified_rotations) == (1, 0)
    tail.close()

    second = tmp_path / "0.log.20261120-195000"  # two rotations and a compression while nobody reads
    with gzip.open(f"{rotated}.gz", "wb") as packed:
        packed.write(rotated.read_bytes())
    rotated.unlink()
    with path.open("ab") as file:
        file.write(lines(12))
    path.rename(second)
    path.write_bytes(lines(13))
    (tmp_path / "1.log").write_bytes(lines(99))  # of the container's next start
    tail = CriFileTail(path, "k", SOURCE, intake)
    read(tail)
    assert numbers(intake) == list(range(14))
    assert tail.counters.unverified_rotations == 0
    tail.close()


def test_a_log_with_a_past_is_read_from_its_oldest_file(tmp_path: Path, intake: Any) -> None:
    path = tmp_path / "0.log"
    with gzip.open(tmp_path / "0.log.20261120-100000.gz", "wb") as packed:
        packed.write(lines(0, 1))
    (tmp_path / "0.log.20261120-110000").write_bytes(lines(2))
    path.write_bytes(lines(3) + b"torn off")
    tail = CriFileTail(path, "k", SOURCE, intake)
    read(tail)
    assert numbers(intake) == [0, 1, 2, 3]
    with path.open("ab") as file:
        file.write(b" and nonsense\n" + lines(4))
    read(tail)
    assert numbers(intake) == [0, 1, 2, 3, 4]
    assert tail.counters.lost_lines == {"invalid": 1}
    marker = b"taffrail: 1 line dropped here: bytes that are no record of the log's format\n"
    assert [block.data for _, block in intake.blocks if block.encoding is Encoding.LINES] == [marker]
    tail.close()
