"""Asks the agent for what is on the screen, in a thread of its own, so that keys never wait for an answer.

Keeps the frames it has shown, for the past of lists that no history is kept of: processes, threads, files
and connections can be gone back to as far as somebody looked at them.
"""

from __future__ import annotations

import http.client
import threading
import time
import zlib
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple, Protocol

import orjson

from taffrail.errors import CommandError
from taffrail.top.model import Frame, Subject

__all__ = ["Client", "Source"]

#: What is kept: ten minutes of seconds of a list, a few lists, and so many bytes of each, compressed.
_FRAMES, _LISTS, _BYTES = 600, 8, 8 * 1024 * 1024
#: A frame stands for a moment at most this long after it.
_NEAR_NS = 5_000_000_000

_PATHS = {"threads": "/api/v1/threads", "files": "/api/v1/files"}


class _Kept(NamedTuple):
    """A frame that was shown."""

    time_ns: int
    rows: bytes  #: JSON, compressed: the processes of a host are half a megabyte
    host: str


class Client(Protocol):
    """What is needed of ``taffrail.agent_client.AgentClient``."""

    def json(self, path: str, query: dict[str, str] | None = None) -> object:
        """A GET's body, parsed."""


class Source:
    """Fetches in the background; ``deliver`` is called in that thread with each answer."""

    def __init__(
        self, client: Client, deliver: Callable[[Subject, Frame], None], interval: float = 1.0
    ) -> None:
        self._client = client
        self._deliver = deliver
        self._interval = interval
        self._changed = threading.Condition()
        self._subject = Subject("containers")
        self._time_ns: int | None = None
        self._generation = 0
        self._stopped = False
        self._kept: OrderedDict[Subject, deque[_Kept]] = OrderedDict()
        self._thread = threading.Thread(target=self._run, name="source", daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def stop(self) -> None:
        """Ask no more; an answer under way is not waited for."""
        with self._changed:
            self._stopped = True
            self._changed.notify()

    def show(self, subject: Subject, time_ns: int | None) -> None:
        """From now on this is wanted: the present every interval, or a past moment once."""
        with self._changed:
            self._subject, self._time_ns = subject, time_ns
            self._generation += 1
            self._changed.notify()

    def fetch(self, subject: Subject, time_ns: int | None) -> Frame:
        """One answer. A failure is a frame that tells it."""
        try:
            if time_ns is None:
                return self._now(subject)
            return self._then(subject, time_ns)
        except CommandError as error:
            return Frame(time.time_ns(), problem=str(error))
        except (OSError, http.client.HTTPException) as error:
            return Frame(time.time_ns(), problem=f"the agent does not answer: {error}")
        except (KeyError, TypeError, ValueError, orjson.JSONDecodeError) as error:
            return Frame(time.time_ns(), problem=f"the agent's answer is not what was expected: {error!r}")

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._stopped:
                    return
                subject, time_ns, generation = self._subject, self._time_ns, self._generation
            frame = replace(self.fetch(subject, time_ns), asked_ns=time_ns)
            with self._changed:
                if self._stopped:
                    return
                if generation == self._generation:
                    self._deliver(subject, frame)
                    self._changed.wait(self._interval if time_ns is None else None)

    def _now(self, subject: Subject) -> Frame:
        if subject.kind == "containers":
            answer = self._ask("/api/v1/stats", {"with_host": "1"})
        elif subject.kind in _PATHS:
            query = {"pid": subject.id} | ({"start": str(subject.start_ticks)} if subject.start_ticks else {})
            answer = self._ask(_PATHS[subject.kind], query)
        else:
            answer = self._ask(f"/api/v1/{subject.kind}", {"container": subject.id})
        frame = _frame(answer, subject)
        if subject.kind != "containers":  # the agent has their history
            self._keep(subject, frame)
        return frame

    def _then(self, subject: Subject, time_ns: int) -> Frame:
        if subject.kind == "containers":
            return _frame(self._ask("/api/v1/history/at", {"time": str(time_ns)}), subject)
        frames = self._kept.get(subject, ())
        for kept in reversed(frames):
            if kept.time_ns <= time_ns:
                if time_ns - kept.time_ns <= _NEAR_NS:
                    return Frame(kept.time_ns, orjson.loads(zlib.decompress(kept.rows)), kept.host)
                break
        return Frame(time_ns, problem=f"no {subject.kind} were looked at then; containers have a history")

    def _ask(self, path: str, query: dict[str, str]) -> dict[str, object]:
        answer = self._client.json(path, query)
        if not isinstance(answer, dict):
            raise TypeError(f"{path}: expected an object")
        return answer

    def _keep(self, subject: Subject, frame: Frame) -> None:
        frames = self._kept.setdefault(subject, deque(maxlen=_FRAMES))
        frames.append(_Kept(frame.time_ns, zlib.compress(orjson.dumps(frame.rows), 1), frame.host))
        while len(frames) > 1 and sum(len(kept.rows) for kept in frames) > _BYTES:
            frames.popleft()
        self._kept.move_to_end(subject)
        while len(self._kept) > _LISTS:
            self._kept.popitem(last=False)


def _frame(answer: dict[str, object], subject: Subject) -> Frame:
    rows = answer[subject.kind]
    moment = answer.get("time_ns")
    if not isinstance(rows, list):
        raise TypeError(f"{subject.kind}: expected a list")
    return Frame(
        moment if isinstance(moment, int) else time.time_ns(),
        rows,
        str(answer.get("host") or ""),
        str(answer.get("socket_error") or ""),
    )
