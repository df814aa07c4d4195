"""The containers of several hosts in one list, whatever becomes of each of them.

All are asked at the same time; one that does not answer is a row that says so, until it does again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from taffrail.top.model import Frame, Row

__all__ = ["Fleet"]

#: How long the others wait for a slow host before they are shown without it.
_WAIT_SECONDS = 1.0
#: And how long its rows of before are shown for it.
_STALE_NS = 5_000_000_000

Ask = Callable[[str, int | None], Frame]


class _Question:
    """One question to one host, answered in a thread of its own."""

    def __init__(self, ask: Ask, host: str, time_ns: int | None) -> None:
        self.time_ns = time_ns
        self.answered = threading.Event()
        self.frame: Frame | None = None
        self._ask, self._host = ask, host
        threading.Thread(target=self._run, name=f"asking {host}", daemon=True).start()

    def _run(self) -> None:
        self.frame = self._ask(self._host, self.time_ns)
        self.answered.set()


class Fleet:
    """Several hosts. ``ask`` answers for one of them and never raises."""

    def __init__(self, hosts: Sequence[str], ask: Ask) -> None:
        self._hosts = hosts
        self._ask = ask
        self._pending: dict[str, _Question] = {}
        self._last: dict[str, tuple[int, Frame]] = {}  # by the monotonic clock: the newest good answer

    def frame(self, time_ns: int | None, patience: float = _WAIT_SECONDS) -> Frame:
        """The rows of all hosts that answer in time; a row with the state ``down`` for each that does not."""
        for host in self._hosts:
            pending = self._pending.get(host)
            if pending is None or pending.time_ns != time_ns:
                self._pending[host] = _Question(self._ask, host, time_ns)
        deadline = time.monotonic() + (min(patience, _WAIT_SECONDS) if time_ns is None else 10.0)
        rows: list[Row] = []
        problems: list[str] = []
        for host in self._hosts:
            question = self._pending[host]
            question.answered.wait(max(0.0, deadline - time.monotonic()))
            frame = question.frame
            if frame is not None:
                del self._pending[host]
            found, problem = self._of(host, frame, time_ns)
            rows += found
            problems += [f"{host}: {problem}"] if problem else []
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        moment = time.time_ns() if time_ns is None else time_ns
        return Frame(moment, rows, f"{len(self._hosts)} hosts", "".join(problems[:1]) + more)

    def _of(self, host: str, frame: Frame | None, time_ns: int | None) -> tuple[list[Row], str]:
        """One host's rows, and what is wrong with it."""
        now = time.monotonic_ns()
        if frame is None:
            last = self._last.get(host)
            if time_ns is None and last is not None and now - last[0] < _STALE_NS:
                return _named(host, last[1].rows), ""
            return [_down(host)], "does not answer"
        if frame.failed:
            return [_down(host)], frame.problem
        if time_ns is None:
            self._last[host] = now, frame
        clock = (
            f"its clock is {abs(frame.ahead_ns) / 1e9:.0f} s {'ahead' if frame.ahead_ns > 0 else 'behind'}"
        )
        return _named(host, frame.rows), frame.problem or (clock if frame.ahead_ns else "")


def _named(host: str, rows: Sequence[Row]) -> list[Row]:
    """The rows under the name that was given to their host."""
    return [{**row, "host": host} | ({"name": host} if row.get("id") == "/" else {}) for row in rows]


def _down(host: str) -> Row:
    return {"id": "/", "name": host, "host": host, "state": "down"}
