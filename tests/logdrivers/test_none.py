"""none keeps nothing but its counts and marks."""

from pathlib import Path

from logdrivers.block import Block, Encoding, Partial, Stream
from logdrivers.driver import Info
from logdrivers.journal import Mark
from logdrivers.none import NoneDriver


def test_lines_are_counted_and_marks_kept_over_a_restart(tmp_path: Path) -> None:
    driver = NoneDriver()
    driver.validate({"anything": "goes"})
    info = Info("c" * 64, "/x", "sha256:1", "i", ("sh",), 0, tmp_path / "log")
    journal = driver.journal(info)
    journal.append(Block(b"a\nb\n", Encoding.LINES, Stream.STDOUT, 1, 1, 2), Mark(4, 0))
    piece = Block(b"xyz", Encoding.LINES, Stream.STDERR, 1, 1, 1, Partial("0" * 64, 2, True))
    journal.append(piece, Mark(4, 4))
    journal.close()
    journal = driver.journal(info)
    assert journal.resume().mark == Mark(4, 4)
    assert journal.written() == (3, 8)
    journal.give_up(Mark(9, 4))
    assert journal.resume().mark == Mark(9, 4)
    journal.close()
    assert driver.reader(info) is None
    assert driver.sink(info) is None
    assert sum(path.stat().st_size for path in info.directory.iterdir()) < 1000
