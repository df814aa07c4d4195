"""Exactly once through a kill at any system call, on real journals, whatever happens at the source."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from logdrivers.statefile import StateFile
from tests.logdrivers.source.copier_case import DRIVERS, ERR, OUT, Case, Killed


class Kills:
    """After so many writes of any kind the next one is the last, and only a part of it is done."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, chance: random.Random) -> None:
        self._chance = chance
        self.left: int | None = None
        write, pwrite, save = os.write, os.pwrite, StateFile.write

        def part_write(fd: int, data: bytes) -> int:
            if self._now():
                write(fd, bytes(data)[: chance.randint(0, len(data))])
                raise Killed
            return write(fd, data)

        def part_pwrite(fd: int, data: bytes, offset: int) -> int:
            if self._now():
                if chance.random() < 0.5:  # one small record in one page: it is in, or it is not
                    pwrite(fd, data, offset)
                raise Killed
            return pwrite(fd, data, offset)

        def part_save(state: StateFile, *values: object) -> None:
            if self._now():
                if chance.random() < 0.5:
                    save(state, *values)
                raise Killed
            save(state, *values)

        monkeypatch.setattr(os, "write", part_write)
        monkeypatch.setattr(os, "pwrite", part_pwrite)
        monkeypatch.setattr(StateFile, "write", part_save)

    def _now(self) -> bool:
        if self.left is None:
            return False
        self.left -= 1
        if self.left < 0:
            self.left = None
            return True
        return False


def some_lines(chance: random.Random, number: int) -> bytes:
    out = []
    for _ in range(chance.randint(0, 6)):
        start = chance.choice([b"", b"", b" ", b"\tat ", b"Caused by: ", b"x"])
        size = chance.choice([0, 5, 90, 90, 1023, 1024, 2000, 16383, 16384, 16385, 40_000])
        out.append(start + (b"%d," % number) * (size // 4) + b"\n")
    return b"".join(out) + b"r" * chance.choice([0, 0, 9, 3000])


def some_bytes(chance: random.Random) -> bytes:
    alphabet = chance.choice([bytes(range(256)), b"\n \tab", b"\n\xff\r\x00"])
    return bytes(chance.choices(alphabet, k=chance.choice([1, 7, 300, 5000])))


OPTIONS = (
    {"max-line-size": "1k"},
    {"max-line-size": "32k", "multiline": "java", "multiline-max-lines": "3"},
    {"multiline-start": "^[^ ]", "multiline-max-size": "2k"},
    {"rate-limit": "1m"},
    {"rate-limit": "64k", "max-line-size": "2k"},
    {"rate-limit": "64k", "multiline": "indented"},
)


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: ",".join(map("=".join, options.items())))
@pytest.mark.parametrize("driver", DRIVERS)
def test_a_kill_at_any_write_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: list[float], driver: str, options: dict[str, str]
) -> None:
    kills_made = 0
    for seed in range(6):
        chance = random.Random(f"{driver} {options} {seed}")
        directory = tmp_path / str(seed)
        directory.mkdir()
        more = {"max-size": "100k", "max-file": "1000", "compress": "false"} if driver != "fluentd" else {}
        case = Case(directory, driver, {**options, **more})
        with monkeypatch.context() as patch:
            kills = Kills(patch, chance)
            for step in range(40):
                stream = chance.choice([OUT, ERR])
                any_bytes = driver == "fluentd" and chance.random() < 0.5  # the others' records are text
                case.write(stream, some_bytes(chance) if any_bytes else some_lines(chance, step))
                clock[0] += chance.choice([0.0, 0.001, 0.05, 0.3, 2.0])
                while True:
                    if chance.random() < 0.3:
                        kills.left = chance.randint(0, 12)
                    try:
                        case.copier.pump(stream, step)
                        case.copier.pump_due(step)
                        case.copier.release()
                        break
                    except Killed:
                        kills_made += 1
                        if chance.random() < 0.3:
                            kills.left = chance.randint(0, 3)
                        case.successor()
        for stream in (OUT, ERR):
            case.copier.pump(stream, 99, eof=True)
            assert case.copier.copied(stream) == len(case.sent[stream])
        case.check()
        assert case.copier.due is None
        case.copier.close()
    assert kills_made > 20
