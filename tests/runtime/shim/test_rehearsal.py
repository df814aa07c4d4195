"""What the template plays through before it forks: it works, and leaves nothing behind."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from runtime.shim.rehearsal import rehearse


def descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def test_it_leaves_no_thread_no_descriptor_and_no_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place, threads, open_before = Path.cwd(), threading.enumerate(), descriptors()
    directory = tmp_path / "rehearsal"
    (directory / "json-0").mkdir(parents=True)  # left by one that was killed
    rehearse(directory)
    assert not directory.exists()
    assert Path.cwd() == place
    # What tests before this one left running may end meanwhile, and may log.
    assert set(threading.enumerate()) <= set(threads)
    assert descriptors() <= open_before
    others = {thread.ident for thread in threads if thread is not threading.current_thread()}
    assert [record.getMessage() for record in caplog.records if record.thread not in others] == []


def test_a_place_that_cannot_be_used_is_said_and_does_no_harm(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    rehearse(tmp_path / "file" / "rehearsal")
    assert "shims will take more memory" in caplog.text
