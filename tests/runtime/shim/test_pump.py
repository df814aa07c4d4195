"""When the pump looks again: nothing that cannot be done now makes it spin."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from logdrivers.block import Stream
from logdrivers.driver import Info
from logdrivers.journals.segments import SegmentJournal
from logdrivers.source.copier import Copier
from logdrivers.source.ledger import Ledger
from logdrivers.source.options import parse_source
from logdrivers.source.spool import Spool
from runtime.shim import streams
from runtime.shim.pump import Pump
from runtime.shim.reactor import Reactor
from runtime.shim.spec import ShimSpec

ID = "cd" * 32


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    made = Reactor()
    yield made
    made.close()


@pytest.fixture
def spec(tmp_path: Path) -> ShimSpec:
    (tmp_path / "log").mkdir()
    info = Info(ID, "/web", "", "image", ("sh",), 0, tmp_path / "log", {})
    made = ShimSpec(
        container_id=ID,
        bundle=tmp_path,
        run_dir=tmp_path,
        driver="local",
        info=info,
        runtime_root=tmp_path,
        uid=os.getuid(),
        gid=os.getgid(),
    )
    streams.make(made)
    return made


@pytest.fixture
def copier(spec: ShimSpec) -> Iterator[Copier]:
    """One that has read what may be half a traceback from either stream, and waits for more of it."""
    made = Copier(
        ID,
        lambda: SegmentJournal(spec.info.directory),
        lambda stream, base: Spool(spec.spool_path(stream.text), base),
        Ledger(spec.ledger_path),
        parse_source({"multiline": "java", "multiline-timeout": "10ms"}, {}),
    )
    for stream in (Stream.STDOUT, Stream.STDERR):
        made.spools[stream].append(b"failed\n  at a\n")
        made.pump(stream, time.time_ns())
    yield made
    made.close()


def past_due(copier: Copier) -> None:
    assert copier.due is not None
    time.sleep(max(0.0, copier.due + 0.1 - time.monotonic()))


def test_a_message_that_waits_is_over_in_time_though_a_client_is_behind(
    spec: ShimSpec, copier: Copier, reactor: Reactor
) -> None:
    pump = Pump(spec, copier, reactor)
    pump.paused = lambda: True
    past_due(copier)
    assert pump.round() == 0
    assert copier.journal.written()[0] == 2
    assert pump.wait_seconds(0) == 0.1
    pump.close()


def test_a_message_that_waits_for_room_on_the_disk_is_tried_as_often_as_the_rest(
    spec: ShimSpec, copier: Copier, reactor: Reactor, monkeypatch: pytest.MonkeyPatch
) -> None:
    pump = Pump(spec, copier, reactor)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(SegmentJournal, "_write", full)
        past_due(copier)
        pump.round()
        assert pump.refused
        seconds = pump.wait_seconds(0)
        assert seconds is not None
        assert seconds > 0
    pump.close()
