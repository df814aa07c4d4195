"""A clock for the copier, and what killed processes leave to the kernel, done for those killed within a test."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from logdrivers.source import copier as copier_module

_OPEN = Path("/proc/self/fd")


@pytest.fixture(autouse=True)
def _descriptors_of_the_dead(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Close what a copier that was "killed" has open: a kernel would."""
    before = set(_OPEN.iterdir())
    yield
    for entry in set(_OPEN.iterdir()) - before:
        with contextlib.suppress(OSError):
            if entry.readlink().is_relative_to(tmp_path_factory.getbasetemp()):
                os.close(int(entry.name))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic seconds the copier sees."""
    now = [1000.0]
    monkeypatch.setattr(copier_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now
