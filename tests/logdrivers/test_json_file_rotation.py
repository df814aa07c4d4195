"""Rotation of the json-file journal: Docker's files, whatever interrupts it, and positions that stay valid."""

from pathlib import Path

import pytest

from logdrivers.codecs import json_file as codec
from logdrivers.journal import Mark, Position
from logdrivers.journals.rotated_journal import RotatedJournal
from logdrivers.json_file import log_path
from tests.logdrivers.json_file_logs import DRIVER, all_logs, info_for, numbered


def oracle_files(records: list[bytes], max_size: int, max_file: int) -> list[bytes]:
    """Docker's rotation, one record after the other; the newest file first. One is kept even for one file."""
    files = [b""]
    for record in records:
        if len(files[0]) >= max_size:
            files = [b"", *files][: max(2, max_file)]
        files[0] += record
    return files


@pytest.mark.parametrize("max_file", [1, 2, 4])
@pytest.mark.parametrize("max_size", [1, 99, 100, 101, 350, 1000, 100_000])
@pytest.mark.parametrize("lines_per_block", [1, 7, 50])
def test_rotation_leaves_dockers_files(
    tmp_path: Path, max_size: int, max_file: int, lines_per_block: int
) -> None:
    info = info_for(tmp_path, max_size=str(max_size), max_file=str(max_file))
    journal = DRIVER.journal(info)
    records: list[bytes] = []
    for first in range(0, 50, lines_per_block):
        block = numbered(first, min(lines_per_block, 50 - first))
        records += codec.Encoder().encode(block).splitlines(keepends=True)
        journal.append(block, Mark(first, 0))
    journal.close()
    path = log_path(info)
    names = [path, *(Path(f"{path}.{n}") for n in range(1, max(2, max_file)))]
    assert [name.read_bytes() for name in names if name.exists()] == oracle_files(records, max_size, max_file)
    assert not Path(f"{path}.{max(2, max_file)}").exists()


def test_old_generations_are_compressed_with_dockers_header(tmp_path: Path) -> None:
    info = info_for(tmp_path, max_size="1k", max_file="4", compress="true")
    journal = DRIVER.journal(info)
    for first in range(0, 40, 4):
        journal.append(numbered(first, 4), Mark(first, 0))
    journal.close()
    kept = all_logs(info)
    assert kept == [f"line {n} of the container's output\n" for n in range(40 - len(kept), 40)]
    names = sorted(name.name.removeprefix(log_path(info).name) for name in tmp_path.glob("*.log*"))
    assert names == ["", ".1.gz", ".2.gz", ".3.gz"]
    header = Path(f"{log_path(info)}.1.gz").read_bytes()
    assert header[3] & 4
    assert b'"lastTime":"2026-11-20T19:43:32.00302672Z"' in header[12 : 12 + header[10] + 256 * header[11]]


def test_a_rotation_killed_between_any_two_steps_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call that changes a name is made the last one before a kill, in turn."""

    class Killed(BaseException):
        pass

    for max_file in (1, 3):
        step = 0
        while True:
            info = info_for(tmp_path / f"{max_file}-{step}", max_size="300", max_file=str(max_file))
            journal = DRIVER.journal(info)
            journal.append(numbered(0, 10), Mark(10, 0))
            calls = 0
            with monkeypatch.context() as patch:

                def counting(name: str, limit: int = step) -> None:
                    original = getattr(Path, name)

                    def call(self: Path, *args: object, **kwargs: object) -> object:
                        nonlocal calls
                        if calls == limit:
                            raise Killed
                        calls += 1
                        return original(self, *args, **kwargs)

                    patch.setattr(Path, name, call)

                for name in ("rename", "replace", "unlink"):
                    counting(name)
                try:
                    journal.append(numbered(10, 4), Mark(14, 0))
                    finished = True
                except Killed:
                    finished = False
            if finished:
                journal.close()
                break
            again = DRIVER.journal(info)
            resume = again.resume()
            number = resume.mark.stdout + resume.records
            if number < 14:
                again.append(numbered(number, 14 - number), Mark(14, 0))
            again.append(numbered(14, 20), Mark(34, 0))
            assert again.written()[0] == 34
            kept = all_logs(info)
            assert kept == [f"line {n} of the container's output\n" for n in range(34 - len(kept), 34)]
            again.close()
            step += 1
        assert step > 1


def test_positions_stay_valid_through_rotation_and_compression(tmp_path: Path) -> None:
    info = info_for(tmp_path, max_size="500", max_file="5", compress="true")
    journal = DRIVER.journal(info)
    reader = DRIVER.reader(info)
    journal.append(numbered(0, 3), Mark(3, 0))
    at = reader.read(reader.first(), 1).entries[0].end
    assert at == Position(1, at.offset)
    for number in range(3, 12):
        journal.append(numbered(number, 1), Mark(number + 1, 0))
    journal.close()
    other = DRIVER.reader(info)
    logs = [
        record.log.decode() for entry in other.read(at).entries for record in codec.decode(entry.block.data)
    ]
    assert logs == [f"line {n} of the container's output\n" for n in range(3, 12)]
    assert isinstance(journal, RotatedJournal)
    reader.close()
    other.close()
