"""The journald driver: Docker's fields at a socket of ours, entries of any size, and a journald that is away."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from logdrivers import journald
from logdrivers.block import Block, Encoding, Partial, Stream
from logdrivers.codecs import json_file
from logdrivers.codecs.journald import decode_entry, field_name
from logdrivers.driver import Info, OptionError, Sink, SinkDown
from logdrivers.journal import Mark
from logdrivers.journald import JournaldDriver

NS = 1_795_203_851_793_023_000


class Journald:
    """Receives entries as journald does: datagrams, and sealed files handed over."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "socket"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.path))
        self.path.chmod(0o666)
        self.entries: list[dict[str, bytes]] = []
        self.files = 0
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()

    def _receive(self) -> None:
        while True:
            try:
                data, descriptors, _, _ = socket.recv_fds(self._socket, 1 << 20, 1)
            except OSError:
                return
            if descriptors:
                assert data == b""
                with os.fdopen(descriptors[0], "rb") as file:
                    file.seek(0)
                    data = file.read()
            elif not data:
                return
            with self._changed:
                self.files += len(descriptors)
                self.entries.append(dict(decode_entry(data)))
                self._changed.notify()

    def wait(self, count: int) -> list[dict[str, bytes]]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.entries) >= count, 100), self.entries
            found, self.entries = self.entries, []
            return found

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"", str(self.path))
        self._thread.join()  # whoever waits at a socket keeps it open
        self._socket.close()
        self.path.unlink()


@pytest.fixture
def directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def received(directory: Path) -> Iterator[Journald]:
    one = Journald(directory)
    yield one
    one.close()


def info(directory: Path, **options: str) -> Info:
    chosen = {key.replace("_", "-"): value for key, value in options.items()}
    return Info(
        "0123456789abcdef" * 4, "/web", "sha256:1", "shop/web", ("sh",), 0, directory, chosen,
        labels={"app.kubernetes.io/name": "two\nlines", "_x": "y"}, env={"E": "v"},
    )  # fmt: skip


def lines(*texts: bytes, stream: Stream = Stream.STDOUT) -> Block:
    data = b"".join(text + b"\n" for text in texts)
    return Block(data, Encoding.LINES, stream, NS, NS, len(texts))


def piece(data: bytes, ordinal: int, last: bool, mark: str = "a") -> Block:
    return Block(data, Encoding.LINES, Stream.STDOUT, NS, NS, 1, Partial(mark * 64, ordinal, last))


def sink(path: Path, **options: str) -> Sink:
    return JournaldDriver(str(path)).sink(info(Path("/none"), **options))


def test_fields_are_dockers(received: Journald) -> None:
    out = sink(received.path, labels="app.kubernetes.io/name,_x", env="E", tag="{{.Name}}/t")
    out.send(
        [
            lines(b"plain", b""),
            lines(b"\xff=\r", stream=Stream.STDERR),
            piece(b"p", 1, False),
            piece(b"q", 2, True),
        ]
    )
    entries = received.wait(5)
    epochs = {entry.pop("CONTAINER_LOG_EPOCH") for entry in entries}
    assert len(epochs) == 1
    common = {
        "CONTAINER_ID": b"0123456789ab",
        "CONTAINER_ID_FULL": b"0123456789abcdef" * 4,
        "CONTAINER_NAME": b"web",
        "CONTAINER_TAG": b"web/t",
        "SYSLOG_IDENTIFIER": b"web/t",
        "IMAGE_NAME": b"shop/web",
        "SYSLOG_TIMESTAMP": b"2026-11-20T19:44:11.793023Z",
        "APP_KUBERNETES_IO_NAME": b"two\nlines",
        "X": b"y",
        "E": b"v",
    }
    of_pieces = {"CONTAINER_PARTIAL_ID": b"a" * 64}
    first = {
        "CONTAINER_PARTIAL_MESSAGE": b"true",
        "CONTAINER_PARTIAL_LAST": b"false",
        "CONTAINER_PARTIAL_ORDINAL": b"1",
    }
    last = {"CONTAINER_PARTIAL_LAST": b"true", "CONTAINER_PARTIAL_ORDINAL": b"2"}
    expected = [
        (b"6", b"plain", {}),
        (b"6", b"", {}),
        (b"3", b"\xff=\r", {}),
        (b"6", b"p", of_pieces | first),
        (b"6", b"q", of_pieces | last),
    ]
    assert entries == [
        common | more | {"PRIORITY": priority, "MESSAGE": text, "CONTAINER_LOG_ORDINAL": b"%d" % number}
        for number, (priority, text, more) in enumerate(expected, 1)
    ]
    out.close()


def test_json_file_records_are_entries_too(received: Journald) -> None:
    data = json_file.Encoder().encode(lines(b"a", b"b", stream=Stream.STDERR))
    out = sink(received.path)
    out.send([Block(data, Encoding.JSON_FILE, Stream.STDERR, NS, NS, 2)])
    assert [(e["MESSAGE"], e["PRIORITY"]) for e in received.wait(2)] == [(b"a", b"3"), (b"b", b"3")]
    out.close()


def test_what_no_datagram_holds_goes_as_a_file(received: Journald, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journald, "_SEND_BUFFER", 64 << 10)
    out = sink(received.path)
    texts = [b"a", b"x" * 500_000, b"b", b"y" * (1 << 20)]
    out.send([lines(*texts)])
    assert [entry["MESSAGE"] for entry in received.wait(4)] == texts
    assert received.files == 2
    out.close()


def test_many_lines_wait_for_the_socket(received: Journald) -> None:
    texts = [b"line %d" % n for n in range(5000)]
    out = sink(received.path)
    out.send([lines(*texts)])
    assert [entry["MESSAGE"] for entry in received.wait(5000)] == texts
    out.close()


def test_a_journald_that_is_away_is_a_sink_that_is_down_and_comes_back(directory: Path) -> None:
    first = Journald(directory)
    out = sink(first.path)
    out.send([lines(b"a")])
    assert first.wait(1)[0]["CONTAINER_LOG_ORDINAL"] == b"1"
    first.close()
    for _ in range(2):
        with pytest.raises(SinkDown, match=f"cannot send to journald at {first.path}"):
            out.send([lines(b"b")])
    again = Journald(directory)
    out.send([lines(b"b")])
    assert again.wait(1)[0]["CONTAINER_LOG_ORDINAL"] == b"2"
    again.close()
    out.close()


def test_a_journald_that_hangs_costs_the_deadline(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journald, "_WRITE_SECONDS", 0.2)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(str(directory / "socket"))
        out = sink(directory / "socket")
        with pytest.raises(SinkDown, match=r"no datagram taken for journald at .* in 0.2 s"):
            out.send([lines(*[b"x"] * 5000)])
        out.close()


def test_a_host_without_journald_is_told_so_at_start(directory: Path) -> None:
    driver = JournaldDriver(str(directory / "socket"))
    driver.validate({"labels": "a", "tag": "{{.Name}}"})
    with pytest.raises(OptionError, match=r"^journald is not enabled on this host$"):
        driver.journal(info(directory))
    one = Journald(directory)
    journal = driver.journal(info(directory))
    journal.append(lines(b"a"), Mark(2, 0))
    journal.close()
    one.close()
    driver.journal(info(directory)).close()  # what was kept waits for a journald


@pytest.mark.parametrize("options", [{"foo": "1"}, {"syslog-address": "udp://h"}], ids=str)
def test_refusals_are_dockers(docker_engine: Any, options: dict[str, str]) -> None:
    with pytest.raises(OptionError) as caught:
        JournaldDriver().validate(options)
    assert str(caught.value) == docker_engine.refusal("journald", options)


@pytest.mark.parametrize(
    ("name", "field"),
    [("app", "APP"), ("a.b-c/d", "A_B_C_D"), ("__x", "X"), ("1a", "1A"), ("é", ""), ("aé", "A_"), ("", "")],
)
def test_names_become_field_names(name: str, field: str) -> None:
    assert field_name(name) == field


def test_dockers_driver_and_ours_send_the_same(directory: Path, received: Journald) -> None:
    """20.10 has no time, epoch and number of its own in an entry; ours are those of later Engines."""
    root = Path(tempfile.mkdtemp(dir="/tmp"))
    engine = sys.modules["docker_engine"].DockerEngine(root, journald=directory)
    try:
        options = {"labels": "app", "env": "TEAM", "tag": "{{.Name}}/{{.ID}}"}
        script = (
            "printf 'plain \\377 \\001\\n\\n\\r\\n'; head -c 16384 /dev/zero | tr '\\0' x; echo;"
            " sleep 0.2; echo err >&2; sleep 0.2; printf 'no newline'"
        )
        container = engine.container("journald", options, script)
        theirs = received.wait(7)
        out = JournaldDriver(str(received.path)).sink(container)
        out.send(
            [
                lines(b"plain \xff \x01", b"", b"\r"),
                piece(b"x" * 16384, 1, False),
                piece(b"", 2, True),
                lines(b"err", stream=Stream.STDERR),
                piece(b"no newline", 1, False, "b"),
            ]
        )
        ours = received.wait(7)
        out.close()
        away = received.path.rename(directory / "away")
        assert engine.refusal("journald", {}) == "journald is not enabled on this host"
        away.rename(received.path)
    finally:
        engine.close()
        shutil.rmtree(root, ignore_errors=True)
    later = {"SYSLOG_TIMESTAMP", "CONTAINER_LOG_EPOCH", "CONTAINER_LOG_ORDINAL"}
    assert {key for entry in ours for key in entry} - {key for entry in theirs for key in entry} == later
    # Between streams a Docker Engine keeps no order: one after the other.
    ours, theirs = (sorted(entries, key=lambda entry: entry["PRIORITY"]) for entries in (ours, theirs))
    assert [without(entry, later) for entry in ours] == [without(entry, later) for entry in theirs]


def without(entry: dict[str, bytes], names: set[str]) -> dict[str, bytes]:
    return {k: v for k, v in entry.items() if k not in names and k != "CONTAINER_PARTIAL_ID"}
