"""Asks the agents for what is on the screen, in threads of its own, so that keys never wait for an answer.

The past of containers, processes, threads and connections is asked of the agent; what this ``top`` has shown
itself is kept besides, with more detail than any history has.
"""

from __future__ import annotations

import http.client
import threading
import time
import zlib
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple, Protocol

import orjson

from taffrail.errors import CommandError
from taffrail.top.fleet import Fleet
from taffrail.top.model import Frame, Subject
from taffrail.top.past_rows import past_note, past_rows

__all__ = ["Client", "Source"]

#: What is kept: ten minutes of seconds of a list, a few lists, and so many bytes of each, compressed.
_FRAMES, _LISTS, _BYTES = 600, 8, 8 * 1024 * 1024
#: A frame stands for a moment at most this long after it.
_NEAR_NS = 5_000_000_000
#: Clocks that differ by less are the same: an answer takes its time.
_SAME_CLOCK_NS = 1_000_000_000

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
        self,
        clients: Mapping[str, Client],
        deliver: Callable[[Subject, Frame], None],
        interval: float = 1.0,
    ) -> None:
        """``clients`` by the names given to the hosts; ``""`` for this host's alone."""
        self._clients = clients
        self._deliver = deliver
        self._interval = interval
        self._offsets: dict[str, int] = {}  # how far ahead each host's clock is, in nanoseconds
        self._fleet = Fleet(tuple(clients), self._containers) if "" not in clients else None
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
        if subject.kind == "containers":
            if self._fleet is not None:
                return self._fleet.frame(time_ns, self._interval)
            return self._containers("", time_ns)
        return self._told(lambda: self._now(subject) if time_ns is None else self._then(subject, time_ns))

    def _containers(self, host: str, time_ns: int | None) -> Frame:
        """The containers of one host."""
        subject = Subject("containers", host=host)
        return self._told(lambda: self._listed(subject, time_ns))

    def _told(self, ask: Callable[[], Frame]) -> Frame:
        try:
            return ask()
        except CommandError as error:
            return Frame(time.time_ns(), problem=str(error), failed=True)
        except (OSError, http.client.HTTPException) as error:
            return Frame(time.time_ns(), problem=f"the agent does not answer: {error}", failed=True)
        except (KeyError, TypeError, ValueError, orjson.JSONDecodeError) as error:
            problem = f"the agent's answer is not what was expected: {error!r}"
            return Frame(time.time_ns(), problem=problem, failed=True)

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

    def _listed(self, subject: Subject, time_ns: int | None) -> Frame:
        if time_ns is not None:
            query = {"time": str(self._there(subject.host, time_ns))}
            return _frame(self._ask(subject.host, "/api/v1/history/at", query), subject)
        began = time.time_ns()
        frame = _frame(self._ask(subject.host, "/api/v1/stats", {"with_host": "1"}), subject)
        self._offsets[subject.host] = frame.time_ns - (began + time.time_ns()) // 2
        return replace(frame, ahead_ns=self._ahead(subject.host))

    def _now(self, subject: Subject) -> Frame:
        if subject.kind in _PATHS:
            query = {"pid": subject.id} | ({"start": str(subject.start_ticks)} if subject.start_ticks else {})
            answer = self._ask(subject.host, _PATHS[subject.kind], query)
        else:
            answer = self._ask(subject.host, f"/api/v1/{subject.kind}", {"container": subject.id})
        frame = _frame(answer, subject)
        self._keep(subject, frame)
        return frame

    def _then(self, subject: Subject, time_ns: int) -> Frame:
        there_ns = self._there(subject.host, time_ns)
        for kept in reversed(self._kept.get(subject, ())):
            if kept.time_ns <= there_ns:
                if there_ns - kept.time_ns <= _NEAR_NS:
                    return Frame(kept.time_ns, orjson.loads(zlib.decompress(kept.rows)), kept.host)
                break
        if subject.kind == "files":
            return Frame(time_ns, problem="no files were looked at then, and no history of files is kept")
        query = {"time": str(there_ns)}
        if subject.kind == "threads":
            query |= {"pid": subject.id} | (
                {"start": str(subject.start_ticks)} if subject.start_ticks else {}
            )
        else:
            query["container"] = subject.id
        answer = self._ask(subject.host, f"/api/v1/history/{subject.kind}", query)
        return Frame(
            time_ns, past_rows(subject, answer), str(answer.get("host") or ""), past_note(subject, answer)
        )

    def _ahead(self, host: str) -> int:
        offset = self._offsets.get(host, 0) if host else 0  # this host's clock is ours
        return offset if abs(offset) > _SAME_CLOCK_NS else 0

    def _there(self, host: str, time_ns: int) -> int:
        """Our time by a host's clock."""
        return time_ns + self._ahead(host)

    def _ask(self, host: str, path: str, query: dict[str, str]) -> dict[str, object]:
        answer = self._clients[host].json(path, query)
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
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise TypeError(f"{subject.kind}: expected a list of objects")
    return Frame(
        moment if isinstance(moment, int) else time.time_ns(),
        rows,
        str(answer.get("host") or ""),
        str(answer.get("socket_error") or ""),
    )
