"""Delivers what shims left behind: lines in the journals of containers that have ended, and of removed ones.

A shim stays some seconds after its container; what its sink has not taken by then is the engine's to deliver,
for as long as the journal holds it. When a container is removed its journal moves here first, so that
``--rm`` and ``docker rm`` lose nothing either. What is over the budget goes, the oldest container first,
and is counted in ``dropped.state``.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import shutil
import socket
import threading
import time
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import orjson

from logdrivers.delivery import STATE_NAME, Counters, Delivery, read_counters
from logdrivers.driver import Info, OptionError
from logdrivers.journals.reader_cursors import DELIVERY, cursors, remove_cursor
from logdrivers.journals.segment_reader import journal_directory
from logdrivers.registry import get
from logdrivers.source.rate_limit import RemovedDrops
from logdrivers.statefile import StateFile, read_state
from runtime.disk import directory_size

__all__ = ["DROPPED_NAME", "RATE_LIMITED_NAME", "Remainders", "dropped_lines", "has_journal", "held_lines"]

log = logging.getLogger(__name__)

#: Bytes that journals of removed containers may take on disk.
MAX_BYTES = 1 << 30
DROPPED_NAME = "dropped.state"
RATE_LIMITED_NAME = "rate_limited.state"
_DESCRIPTION = "remainder.json"
_CHECK_SECONDS = 1.0
_RETRY_CHECKS = 10
#: How long a removal waits for who delivered before, and how long the batch on its way has to get there.
_AT_ONCE_SECONDS = 0.3
_BATCH_SECONDS = 15.0


@dataclass(slots=True)
class _Remainder:
    """One journal with lines to deliver."""

    driver: str
    info: Info
    buried: bool  #: the container is gone, the directory is ours
    delivery: Delivery | None = None


@dataclass(slots=True)
class _Successor:
    """A buried journal whose last batch may still be on its way, by a delivery of ours or by the shim."""

    remainder: _Remainder
    delivery: Delivery | None
    shim: socket.socket | None  #: it ends with the shim
    give_up_at: float

    def over(self) -> bool:
        """Whether nobody sends any more, or has had time enough."""
        if time.monotonic() < self.give_up_at:
            return not (self.delivery and not self.delivery.over()) and not (self.shim and _lives(self.shim))
        return True

    def close(self) -> None:
        """Cut off whoever still sends."""
        if self.delivery is not None:
            self.delivery.stop()
        if self.shim is not None:
            with contextlib.suppress(OSError):  # it has gone
                self.shim.sendall(b'{"op":"stop_delivery"}\n')
            self.shim.close()
        self.delivery = self.shim = None


class Remainders:
    """The engine's deliveries. Every method may be called from any thread and may block for a sink's deadline."""

    def __init__(self, directory: Path, max_bytes: int = MAX_BYTES) -> None:
        """``directory`` is where journals of removed containers are kept. Raises OSError."""
        self.directory = self._directory = directory
        self._max_bytes = max_bytes
        directory.mkdir(parents=True, exist_ok=True, mode=0o710)
        self._dropped = StateFile(directory / DROPPED_NAME, "Q")
        #: What rate limits dropped of containers that are gone.
        self.rate_limited = RemovedDrops(directory / RATE_LIMITED_NAME)
        self._lock = threading.RLock()
        self._budget_lock = threading.Lock()
        self._remainders: dict[str, _Remainder] = {}
        self._refused: dict[str, _Remainder] = {}  # whose delivery could not begin, to be tried again
        self._successors: dict[str, _Successor] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="remainders", daemon=True)

    def start(self) -> None:
        """Go on with what an engine before this one had buried."""
        for place in sorted(self._directory.iterdir()):
            if not (place / _DESCRIPTION).exists():
                continue  # a burial that a kill cut short: its container is still there and goes on with it
            try:
                description = orjson.loads((place / _DESCRIPTION).read_bytes())
                info = _info_of(description["info"], place)
            except (OSError, ValueError, KeyError, TypeError) as error:
                log.error("cannot deliver what %s holds: %s", place, error)
                continue
            self._begin(place.name, _Remainder(description["driver"], info, buried=True))
        self._thread.start()

    def close(self) -> None:
        """Stop delivering; what is left stays."""
        self._stop.set()
        with self._lock:
            remainders, self._remainders = self._remainders, {}
            successors, self._successors = self._successors, {}
        for successor in successors.values():
            successor.close()
        for remainder in remainders.values():
            _stop_delivery(remainder)
        if self._thread.ident is not None:
            self._thread.join(10)
        self._dropped.close()
        self.rate_limited.close()

    def take(self, driver: str, info: Info) -> None:
        """A container has ended and its shim is gone: deliver what its journal still holds."""
        if _held(driver, info):
            self._begin(info.container_id, _Remainder(driver, info, buried=False))

    def release(self, container_id: str) -> None:
        """A shim takes the journal over again: let go of it."""
        with self._lock:
            remainder = self._remainders.pop(container_id, None)
            self._refused.pop(container_id, None)
            successor = self._successors.pop(container_id, None)
        if remainder is not None:
            _stop_delivery(remainder)
        if successor is not None:
            successor.close()

    def bury(self, driver: str, info: Info, shim: socket.socket | None = None) -> None:
        """The container is being removed: keep its journal until it is delivered. Raises OSError.

        ``shim`` is a connection to a shim that was told to finish: what it or we are sending is not sent twice.
        """
        with self._lock:
            before = self._remainders.pop(info.container_id, None)
        delivery = before.delivery if before else None
        if delivery is not None:
            delivery.finish()
        successor = _Successor(
            _Remainder(driver, info, True), delivery, shim, time.monotonic() + _BATCH_SECONDS
        )
        at_once = time.monotonic() + _AT_ONCE_SECONDS
        while not successor.over() and time.monotonic() < at_once:
            time.sleep(0.01)
        if successor.over():
            successor.close()
        self.release(info.container_id)
        try:
            kept = self._move_here(driver, info)
        except BaseException:
            successor.close()
            raise
        if kept is None:
            successor.close()
            return
        successor.remainder.info = kept
        if successor.over():
            self._begin(info.container_id, successor.remainder)
        else:
            with self._lock:
                self._successors[info.container_id] = successor
        self._keep_budget()

    def _move_here(self, driver: str, info: Info) -> Info | None:
        """Move the journal and what was noted of it; where it is then, None if nothing in it is to be delivered."""
        place = self._directory / info.container_id
        if not place.exists() and not _held(driver, info):
            return None
        place.mkdir(exist_ok=True, mode=0o710)
        kept = replace(info, directory=place)
        for name in (STATE_NAME, journal_directory(place).name):
            if (info.directory / name).exists():
                (info.directory / name).rename(place / name)
        for cursor in cursors(journal_directory(place)):
            if cursor.name != DELIVERY:  # it read where the journal was, and has counted what it missed
                remove_cursor(journal_directory(place), cursor.name)
        # Last: only a burial that is complete is gone on with after a kill.
        new = place / f"{_DESCRIPTION}.new"
        new.write_bytes(orjson.dumps({"driver": driver, "info": _plain(kept)}))
        new.replace(place / _DESCRIPTION)
        return kept

    # --- inside ---

    def _begin(self, key: str, remainder: _Remainder) -> None:
        try:
            driver = get(remainder.driver)
            sink, reader = driver.sink(remainder.info), driver.reader(remainder.info)
            if sink is None or reader is None:
                return
            name = f"{remainder.driver} of {key[:12]} (ended)"
            remainder.delivery = Delivery(reader, sink, remainder.info.directory / STATE_NAME, name)
        except (OptionError, OSError, ValueError) as error:
            log.error("cannot deliver what %s holds: %s", remainder.info.directory, error)
            if isinstance(error, OSError):
                with self._lock:
                    self._refused[key] = remainder  # a full disk gets room again
            return
        with self._lock:
            closed = self._stop.is_set()
            if not closed:
                self._remainders[key] = remainder
        if closed:
            remainder.delivery.stop()  # nobody else would
        else:
            remainder.delivery.start()

    def _watch(self) -> None:
        for check in itertools.count(1):
            if self._stop.wait(_CHECK_SECONDS):
                return
            if check % _RETRY_CHECKS == 0:
                with self._lock:
                    refused, self._refused = self._refused, {}
                for key, one in refused.items():
                    self._begin(key, one)
            with self._lock:
                over = [key for key, one in self._successors.items() if one.over()]
                successors = {key: self._successors.pop(key) for key in over}
            for key, successor in successors.items():
                successor.close()
                self._begin(key, successor.remainder)
            with self._lock:
                done = [
                    (key, one)
                    for key, one in self._remainders.items()
                    if one.delivery is not None and one.delivery.caught_up()
                ]
                for key, _ in done:
                    del self._remainders[key]
            for key, one in done:
                _stop_delivery(one)
                if one.buried:
                    log.info("everything of container %s is delivered", key[:12])
                    shutil.rmtree(one.info.directory, ignore_errors=True)

    def _keep_budget(self) -> None:
        with self._budget_lock:  # two that drop the same would count it twice
            places = self._places()
            total = sum(size for _, _, size in places)
            for _, place, size in places:
                if total <= self._max_bytes:
                    return
                total -= size
                self.release(place.name)
                lines = _held_at(place)
                log.error("%d lines of removed container %s are dropped: over %d bytes wait for their sinks",
                          lines, place.name[:12], self._max_bytes)  # fmt: skip
                self._dropped.write((self._dropped.values or (0,))[0] + lines)
                shutil.rmtree(place, ignore_errors=True)

    def _places(self) -> list[tuple[float, Path, int]]:
        """When each buried journal was last changed, the oldest first; where it is; its bytes."""
        found = []
        for place in self._directory.iterdir():
            with contextlib.suppress(FileNotFoundError):  # it was delivered meanwhile
                if place.is_dir():
                    found.append((place.stat().st_mtime, place, directory_size(place)))
        return sorted(found)


def held_lines(directory: Path) -> int:
    """Lines of removed containers that wait in ``directory`` for their sinks."""
    places = [place for place in directory.iterdir() if place.is_dir()] if directory.is_dir() else []
    return sum(_held_at(place) for place in places)


def dropped_lines(directory: Path) -> int:
    """Lines of removed containers that the budget took, by what an engine noted in ``directory``."""
    try:
        values = read_state(directory / DROPPED_NAME, "Q")
    except FileNotFoundError:
        return 0
    return int(values[0]) if values else 0


def has_journal(directory: Path) -> bool:
    """Whether a container's log directory may hold lines for a sink."""
    return (directory / STATE_NAME).exists() or journal_directory(directory).is_dir()


def _held(name: str, info: Info) -> int:
    """Lines the journal holds that its sink has not taken; 0 for a driver without a sink.

    The journal says what was written: a delivery may never have begun (the disk was full), its file may be
    damaged, and it has not heard of what was appended behind its back, as the line for a gap is.
    """
    counters = _counters_at(info.directory) or Counters()
    return replace(counters, written=max(counters.written, _written(name, info))).held


def _written(name: str, info: Info) -> int:
    """Lines in the journal since the container was made, if they are for a sink."""
    try:
        driver = get(name)
        sink, reader = driver.sink(info), driver.reader(info)
        lines = reader.end_line() if sink is not None and reader is not None else 0
    except (OptionError, OSError, ValueError) as error:
        log.error("find what %s holds for its sink: %s", info.directory, error)
        return 0
    for opened in (sink, reader):
        if opened is not None:
            opened.close()
    return lines


def _held_at(directory: Path) -> int:
    """Lines held by what a delivery noted; 0 if it did not, or nobody can read it."""
    counters = _counters_at(directory)
    return counters.held if counters else 0


def _counters_at(directory: Path) -> Counters | None:
    """What a delivery noted; None if it did not, or nobody can read it."""
    try:
        return read_counters(directory / STATE_NAME)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        log.error("read how much %s holds for its sink: %s", directory, error)
        return None


def _lives(shim: socket.socket) -> bool:
    """Whether the other side of a connection is still there; what it says is passed over."""
    try:
        while shim.recv(4096, socket.MSG_DONTWAIT):  # select(2) takes no descriptor above 1023
            pass
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def _stop_delivery(remainder: _Remainder) -> None:
    if remainder.delivery is not None:
        remainder.delivery.stop()


def _plain(info: Info) -> dict[str, Any]:
    return {
        field.name: value
        if isinstance(value := getattr(info, field.name), str | int)
        else _list_or_dict(value)
        for field in fields(Info)
        if field.name != "directory"
    }


def _list_or_dict(value: Any) -> object:
    return dict(value) if hasattr(value, "keys") else list(value)


def _info_of(value: dict[str, Any], directory: Path) -> Info:
    return Info(**{**value, "command": tuple(value["command"]), "directory": directory})
