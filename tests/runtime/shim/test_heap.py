"""When a shim gives its memory back: after much output, when it is quiet, until the sink has everything."""

from __future__ import annotations

import pytest

from runtime.shim import heap
from runtime.shim.heap import HeapTrim


class Scene:
    """A heap with a clock that the test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.behind = False
        self.trims = 0
        monkeypatch.setattr(heap.time, "monotonic", lambda: self.now)
        self.heap = HeapTrim(lambda: self.behind, self._trim)

    def _trim(self) -> None:
        self.trims += 1

    def wait(self, moved: int = 0, wait: float | None = None) -> float | None:
        """One round; then as much time passes as it wants to wait."""
        seconds = self.heap.seconds(moved, wait)
        self.now += seconds or 0.0
        return seconds


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(monkeypatch)


def test_little_output_never_wakes_the_shim(scene: Scene) -> None:
    assert scene.wait(1000) is None
    assert scene.wait() is None
    assert scene.trims == 0


def test_after_much_output_it_trims_once_it_is_quiet(scene: Scene) -> None:
    assert scene.wait(1 << 20, 0.0) == 0.0  # the pump goes on at once
    assert scene.wait() == 1.0
    assert scene.wait() is None
    assert scene.trims == 1
    assert scene.wait() is None
    assert scene.trims == 1


def test_output_that_comes_meanwhile_puts_it_off(scene: Scene) -> None:
    scene.wait(1 << 20)
    assert scene.wait(10) == 1.0
    assert scene.trims == 0
    assert scene.wait() is None
    assert scene.trims == 1


def test_while_the_sink_is_behind_it_trims_less_and_less_and_once_more_after_that(scene: Scene) -> None:
    scene.behind = True
    scene.wait(1 << 20)
    assert [scene.wait() for _ in range(8)] == [2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 64.0, 64.0]
    assert scene.trims == 8
    scene.behind = False
    assert scene.wait() is None
    assert scene.trims == 9
    assert scene.wait() is None
    assert scene.trims == 9


def test_it_does_not_lengthen_the_wait_of_the_pump(scene: Scene) -> None:
    assert scene.wait(1 << 20, 5.0) == 1.0
    assert scene.wait(0, 0.5) == 0.5
    assert scene.trims == 0
    assert scene.wait(0, 5.0) == 5.0
    assert scene.trims == 1
