import pytest

from collector.cgroup.v1.blkio import parse_operations


def test_reads_and_writes_by_device() -> None:
    data = b"8:0 Read 10\n8:0 Write 20\n8:0 Sync 5\n8:0 Total 30\n8:16 Read 1\n8:16 Total 1\nTotal 31\n"
    assert parse_operations(data) == {b"8:0": [10, 20], b"8:16": [1, 0]}


def test_no_io_is_no_device() -> None:
    assert parse_operations(b"Total 0\n") == {}


def test_a_strange_line_is_named() -> None:
    with pytest.raises(ValueError, match="b'8:0 Read': expected a device, an operation and a number"):
        parse_operations(b"8:0 Read\n")
