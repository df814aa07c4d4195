"""Rows of statistics from one or several agents, together once a second, whatever becomes of each of them.

A thread per agent reads its stream and tries again when it ends; an agent that does not answer is an error
beside the others' rows. Choosing, sorting and printing rows is ``stats_view.py``'s and ``stats_table.py``'s.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from typing import NamedTuple

import orjson

from taffrail.errors import CommandError
from taffrail.hosts import Host
from taffrail.stats_filter import Row

__all__ = ["Frame", "frames", "one_frame"]

_PATH = "/api/v1/stats"
_AGAIN_SECONDS = 2.0


class Frame(NamedTuple):
    """All rows at one moment, and by host what kept others from being there."""

    rows: Sequence[Row]
    errors: Mapping[str, str]


def one_frame(hosts: Sequence[Host], query: dict[str, str]) -> Frame:
    """Ask every agent once, all at the same time."""
    with ThreadPoolExecutor(len(hosts)) as pool:
        answers = list(pool.map(lambda host: _ask(host, query), hosts))
    rows = [row for found, _ in answers for row in found]
    return Frame(rows, {host.name: error for host, (_, error) in zip(hosts, answers, strict=True) if error})


def frames(
    hosts: Sequence[Host], query: dict[str, str], seconds: float = 1.0
) -> Generator[Frame, None, None]:
    """A frame a second until it is closed: the newest rows of every agent. Their clients need a timeout."""
    feeds = [_Feed(host, {**query, "stream": "1"}) for host in hosts]
    for feed in feeds:
        threading.Thread(target=feed.run, name=f"stats of {feed.host.address}", daemon=True).start()
    try:
        deadline = time.monotonic() + seconds
        for feed in feeds:  # the first frame has everyone who answers within a moment
            feed.heard.wait(max(deadline - time.monotonic(), 0) if len(feeds) > 1 else None)
        while True:
            states = [(feed.host.name, *feed.state) for feed in feeds]
            rows = [row for _, found, _ in states for row in found]
            yield Frame(rows, {name: error for name, _, error in states if error})
            if len(feeds) == 1:  # as it comes: no second of delay on top
                feeds[0].wait_for_next()
            else:
                now = time.monotonic()
                deadline = max(deadline + seconds, now)
                time.sleep(deadline - now)
    finally:
        for feed in feeds:
            feed.end()


def _ask(host: Host, query: dict[str, str]) -> tuple[Sequence[Row], str]:
    try:
        return _rows(host, host.client.get(_PATH, query)), ""
    except (OSError, HTTPException, ValueError, CommandError) as error:
        return (), _explain(host, error)


def _rows(host: Host, line: bytes) -> Sequence[Row]:
    """Raises ValueError if it is not an agent's answer."""
    try:
        rows: Sequence[dict[str, object]] = orjson.loads(line)["containers"]
        return [{**row, "host": host.name or row["host"]} for row in rows]
    except (KeyError, TypeError, orjson.JSONDecodeError) as error:
        raise ValueError(f"not an agent's answer: {line[:60]!r}") from error


def _explain(host: Host, error: Exception) -> str:
    if isinstance(error, FileNotFoundError | ConnectionRefusedError):
        start = "" if host.name else ": start one with 'taffrail up'"
        return f"no agent answers on {host.address}{start} ({error})"
    if isinstance(error, CommandError) and not host.name:
        return str(error)  # the agent's own words
    return f"{host.address}: {error}" if str(error) else f"{host.address}: {type(error).__name__}"


class _Feed:
    """One agent's stream, kept open."""

    def __init__(self, host: Host, query: dict[str, str]) -> None:
        self.host = host
        self.heard = threading.Event()
        #: Rows, and what is wrong; replaced as a whole.
        self.state: tuple[Sequence[Row], str] = ((), f"{host.address}: no answer yet")
        self._query = query
        self._fresh = threading.Event()
        self._over = threading.Event()

    def run(self) -> None:
        """Read until it is to end."""
        while not self._over.is_set():
            try:
                for line in self.host.client.lines(_PATH, self._query):
                    if self._over.is_set():
                        return
                    self._tell(_rows(self.host, line), "")
                error = f"{self.host.address}: the agent ended its answer"
            except (OSError, HTTPException, ValueError, CommandError) as failure:
                error = _explain(self.host, failure)
            self._tell((), error)
            self._over.wait(_AGAIN_SECONDS)

    def end(self) -> None:
        """Have ``run`` return with the next line, or when the client's timeout is over."""
        self._over.set()

    def wait_for_next(self) -> None:
        """Until there is something newer than was waited for last."""
        self._fresh.wait()
        self._fresh.clear()

    def _tell(self, rows: Sequence[Row], error: str) -> None:
        self.state = (rows, error)
        self.heard.set()
        self._fresh.set()
