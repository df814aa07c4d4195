"""containerd's files in the forms they have and should not have; ``test_cri.py`` has real ones."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from collector.discovery.containerd_metadata import _cri, exit_code_of_status, parse_go_time, read_metadata


def test_times_are_gos() -> None:
    made = bytes.fromhex("01 0000000e e2932c96 2f43085 6 ffff".replace(" ", ""))
    assert parse_go_time(made) == 1_795_241_366_792_922_198
    assert parse_go_time(b"") == 0
    assert parse_go_time(b"\1" + bytes(14)) == 0  # Go's zero time, in the year 1
    with pytest.raises(ValueError, match="expected 15 bytes of version 1"):
        parse_go_time(b"\7" + bytes(14))
    with pytest.raises(ValueError, match="expected 15 bytes of version 1"):
        parse_go_time(made[:10])


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (
            '{"Version":"v1","Pid":0,"FinishedAt":1795241553676675276,"ExitCode":137,"Reason":"OOMKilled"}',
            137,
        ),
        ('{"Version":"v1","Pid":0,"FinishedAt":1795241553676675276,"ExitCode":0}', 0),
        ('{"Version":"v1","Pid":31857,"FinishedAt":0,"ExitCode":0}', None),
    ],
)
def test_an_exit_code_is_one_once_it_has_finished(tmp_path: Path, text: str, code: int | None) -> None:
    (tmp_path / "status").write_text(text)
    assert exit_code_of_status(tmp_path / "status") == code


@pytest.mark.parametrize("text", ["", "[]", '{"FinishedAt":1}', '{"FinishedAt":1,"ExitCode":null}', "{"])
def test_a_status_that_is_none_is_told_of(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "status").write_text(text)
    with caplog.at_level(logging.WARNING):
        assert exit_code_of_status(tmp_path / "status") is None
    assert f"cannot read how a container ended in {tmp_path}/status" in caplog.text


def test_no_status_and_no_database_are_no_news(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "work").symlink_to("/var/lib/containerd/io.containerd.runtime.v2.task/k8s.io/x")
    with caplog.at_level(logging.INFO):
        assert exit_code_of_status(tmp_path / "status") is None
        assert read_metadata(tmp_path, tmp_path, "k8s.io", "x").name == ""
        assert read_metadata(tmp_path, tmp_path / "none", "k8s.io", "x").labels == {}
    assert caplog.text == ""


def test_a_damaged_database_is_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    own = tmp_path / "var/lib/containerd"
    (tmp_path / "work").symlink_to("/var/lib/containerd/io.containerd.runtime.v2.task/k8s.io/x")
    (own / "io.containerd.metadata.v1.bolt").mkdir(parents=True)
    (own / "io.containerd.metadata.v1.bolt/meta.db").write_bytes(b"not bbolt" * 10000)
    with caplog.at_level(logging.WARNING):
        assert read_metadata(tmp_path, tmp_path, "k8s.io", "x").image == ""
    assert "cannot read containerd's metadata in" in caplog.text


@pytest.mark.parametrize("size", [123, 15_744, 15_800, 15_871, 200_000])
def test_the_length_of_a_containers_own_json_is_no_part_of_it(size: int) -> None:
    """In a length one byte may be a brace."""
    start = b'{"Version":"v1","Metadata":{"Name":"web","LogPath":"'
    data = start + b"x" * (size - len(start) - 3) + b'"}}'
    length, rest = b"", len(data)
    while rest:
        length += bytes((rest & 0x7F | (0x80 if rest > 0x7F else 0),))
        rest >>= 7
    url = b"github.com/containerd/cri/pkg/store/container/Metadata"
    assert _cri(b"\x0a" + bytes((len(url),)) + url + b"\x12" + length + data)["Name"] == "web"


@pytest.mark.parametrize("damaged", [b"\x0a", b"\x0a\xff\xff\xff\xff\xff\xff", b"\x1a\x01x", b"\x12\x01{}"])
def test_a_message_that_is_none_is_refused(damaged: bytes) -> None:
    assert _cri(None) == _cri(b"") == {}
    with pytest.raises(ValueError, match=r"Any|JSON|unexpected|column"):
        _cri(damaged)
