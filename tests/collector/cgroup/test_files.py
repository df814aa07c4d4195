import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.cgroup.files import FlatKeys, number, number_or_max, open_file, read_all, read_once

LINES = st.dictionaries(
    st.text("abcdefgh_", min_size=1, max_size=3), st.integers(0, 2**63), min_size=1, max_size=12
)


@given(LINES, st.lists(st.text("abcdefgh_", min_size=1, max_size=3), max_size=5, unique=True))
def test_wanted_keys_have_their_values_and_absent_ones_none(lines: dict[str, int], keys: list[str]) -> None:
    data = "".join(f"{key} {value}\n" for key, value in lines.items()).encode()
    reader = FlatKeys(*(key.encode() for key in keys))
    for _ in range(2):  # learnt, then remembered
        assert reader.values(data) == [lines.get(key) for key in keys]


def test_another_order_of_keys_is_learnt_anew() -> None:
    reader = FlatKeys(b"b", b"x", b"a")
    assert reader.values(b"a 1\nb 2\n") == [2, None, 1]
    assert reader.values(b"b 3\na 4\n") == [3, None, 4]
    assert reader.values(b"b 5\na 6\nx 7\n") == [5, 7, 6]


@pytest.mark.parametrize("data", [b"", b"one", b"a 1 b", b"a x\n"])
def test_what_is_not_flat_keyed_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"expected|invalid literal"):
        FlatKeys(b"a").values(data)


def test_numbers_and_limits() -> None:
    assert number(b"12\n") == 12
    assert number_or_max(b"max\n") is None
    assert number_or_max(b"7\n") == 7
    with pytest.raises(ValueError, match=r"b'maximum': expected one decimal number"):
        number_or_max(b"maximum")


def test_absent_is_not_failed(tmp_path: Path) -> None:
    assert open_file(tmp_path, "nothing") == -1
    assert open_file(None, "nothing") == -1
    assert read_once(tmp_path, "nothing") is None
    (tmp_path / "directory").mkdir()
    with pytest.raises(IsADirectoryError):
        read_once(tmp_path, "directory")


def test_a_long_file_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "long").write_bytes(b"x" * 100_000)
    fd = open_file(tmp_path, "long")
    try:
        assert len(read_all(fd)) == 100_000
    finally:
        os.close(fd)
