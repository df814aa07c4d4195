"""A record survives a kill at any byte of its being written, and readers never see a mixture."""

import os
import signal
import time
from pathlib import Path

import pytest

from logdrivers.statefile import StateFile, read_state

FIELDS = "QQ16s"


def test_what_was_written_last_is_found_again(tmp_path: Path) -> None:
    path = tmp_path / "s"
    state = StateFile(path, FIELDS)
    assert state.values is None
    assert read_state(path, FIELDS) is None
    for i in range(5):
        state.write(i, i * 2, b"x" * 16)
        assert read_state(path, FIELDS) == (i, i * 2, b"x" * 16)
    state.flush()
    state.close()
    again = StateFile(path, FIELDS)
    assert again.values == (4, 8, b"x" * 16)
    again.close()


def test_a_write_torn_at_any_byte_leaves_the_record_before(tmp_path: Path) -> None:
    path = tmp_path / "s"
    state = StateFile(path, FIELDS)
    state.write(1, 1, b"a" * 16)
    before = path.read_bytes()
    state.write(2, 2, b"b" * 16)
    after = path.read_bytes()
    state.close()
    changed = [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
    assert changed
    for cut in range(changed[0], changed[-1] + 1):
        path.write_bytes(after[:cut] + before[cut:])
        assert read_state(path, FIELDS) == (1, 1, b"a" * 16)
        torn = StateFile(path, FIELDS)
        torn.write(3, 3, b"c" * 16)
        torn.close()
        assert read_state(path, FIELDS) == (3, 3, b"c" * 16)


@pytest.mark.parametrize("content", [b"x" * 256, b"TFSTATE1" + bytes(300)])
def test_a_file_of_another_shape_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "s"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="not a state file of 40-byte records"):
        StateFile(path, FIELDS)
    with pytest.raises(ValueError, match="not a state file"):
        read_state(path, FIELDS)
    assert path.read_bytes() == content


def test_both_records_damaged_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "s"
    state = StateFile(path, FIELDS)
    state.write(1, 1, b"")
    state.close()
    data = bytearray(path.read_bytes())
    data[-50] ^= 1
    for i in range(64, len(data)):
        data[i] ^= 0x55
    path.write_bytes(data)
    with pytest.raises(ValueError, match="neither record has a valid checksum"):
        read_state(path, FIELDS)


def test_kill_minus_nine_and_concurrent_readers_see_whole_records(tmp_path: Path) -> None:
    path = tmp_path / "s"
    StateFile(path, FIELDS).close()
    last = 0
    for _ in range(5):
        child = os.fork()
        if child == 0:
            state = StateFile(path, FIELDS)
            number = state.values[0] if state.values else 0
            while True:
                number += 1
                state.write(number, number * 2, b"%016d" % number)
        try:
            deadline = time.monotonic() + 20
            seen = last
            while seen < last + 1000 and time.monotonic() < deadline:
                values = read_state(path, FIELDS)
                if values is not None:
                    assert values == (values[0], values[0] * 2, b"%016d" % values[0])
                    assert values[0] >= seen
                    seen = values[0]
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        values = read_state(path, FIELDS)
        assert values is not None
        assert values == (values[0], values[0] * 2, b"%016d" % values[0])
        assert values[0] > last
        last = values[0]


@pytest.mark.parametrize("grown", [0, 1024], ids=["as-written", "grown-by-a-version-that-refused-it"])
def test_a_record_of_an_older_version_is_taken_over_with_zeros_behind_it(tmp_path: Path, grown: int) -> None:
    path = tmp_path / "s"
    older = StateFile(path, "Q8s")
    for number in range(3):
        older.write(number, b"cause")
    older.close()
    with path.open("ab") as file:
        file.write(bytes(grown))
    assert read_state(path, "Q8sQ4s", ("Q", "Q8s")) == (2, b"cause\0\0\0", 0, bytes(4))
    assert read_state(path, "Q8sQ4s", ("Q8s",)) == (2, b"cause\0\0\0", 0, bytes(4)), "reading changes nothing"
    now = StateFile(path, "Q8sQ4s", ("Q8s",))
    assert now.values == (2, b"cause\0\0\0", 0, bytes(4))
    now.write(3, b"cause", 4, b"new")
    now.close()
    assert read_state(path, "Q8sQ4s") == (3, b"cause\0\0\0", 4, b"new\0")
    assert [file.name for file in tmp_path.iterdir()] == ["s"]


def test_a_damaged_record_of_an_older_version_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "s"
    older = StateFile(path, "Q8s")
    older.write(1, b"cause")
    older.close()
    data = bytearray(path.read_bytes())
    data[64:] = b"x" * len(data[64:])
    path.write_bytes(data)
    with pytest.raises(ValueError, match="not a state file of 32-byte records"):
        StateFile(path, "Q8sQ", ("Q8s",)).close()
    with pytest.raises(ValueError, match="neither record has a valid checksum"):
        read_state(path, "Q8sQ", ("Q8s",))
