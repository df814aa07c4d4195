"""One container that a Docker Engine logs through us: its FIFO, its journal, its delivery, and who follows it.

The engine's stages (start, stop, start again with another FIFO) and the plugin's own restarts are brought
together here. Threads: requests and the pump meet under ``lock``; the delivery has a thread of its own.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from logdrivers.attributes import tagged_attributes
from logdrivers.delivery import STATE_NAME, Counters, Delivery, read_counters
from logdrivers.driver import OptionError
from logdrivers.journal import Entry, JournalReader
from logdrivers.plugin.blocks import BlockMaker
from logdrivers.plugin.intake import Intake
from logdrivers.plugin.record import REMOVED_MARK, ContainerRecord
from logdrivers.plugin.requests import Wanted
from logdrivers.plugin.source_intake import SourceFiles, SourceIntake
from logdrivers.registry import get
from logdrivers.source.options import SourceOptions, parse_source
from logdrivers.source.rate_limit import SOURCE_STATE_NAME

__all__ = ["PluginContainer"]

log = logging.getLogger(__name__)


class PluginContainer:
    """What the plugin has of one container, running or not."""

    def __init__(self, wanted: Wanted, described: dict[str, Any], spool: Path) -> None:
        """``described`` is the engine's description, kept for a restart; ``spool`` may be lost in a reboot."""
        self._wanted = wanted
        self._described = described
        self._spool = spool
        self._directory = wanted.info.directory.parent
        self._intake: Intake | None = None
        self._delivery: Delivery | None = None
        self._ending = False
        self._followers: set[Callable[[], None]] = set()
        self.engine = ""  #: the ID of the engine that has it; "" while none has said so
        self.removed = (self._directory / REMOVED_MARK).exists()  #: whether its engine has removed it
        self.discarded = False  #: whether its directory is gone and this object is of no more use
        self.fifo = ""  #: what the engine writes to; "" once it has stopped logging
        self.lock = threading.RLock()

    @property
    def name(self) -> str:
        """For log messages."""
        return f"{self._wanted.info.container_name.lstrip('/')} ({self._wanted.info.container_id[:12]})"

    @property
    def fd(self) -> int:
        """The FIFO being read, -1 if there is none."""
        return self._intake.fd if self._intake is not None else -1

    @property
    def active(self) -> bool:
        """Whether lines may still come: the FIFO is open or bytes wait in the spool."""
        return self._intake is not None

    @property
    def retry_seconds(self) -> float:
        """How long to wait before reading again after a disk refused."""
        return self._intake.retry_seconds if self._intake is not None else 0.0

    @property
    def due(self) -> float | None:
        """When to look again at the latest, by the monotonic clock; None for when there is more."""
        return self._intake.due if self._intake is not None else None

    # --- the engine's stages

    def start(self, wanted: Wanted, described: dict[str, Any], fifo: str) -> None:
        """The engine logs into ``fifo`` from now on. A FIFO from before is read to its end first.

        Raises OSError, ValueError, OptionError with nothing changed but that.
        """
        with self.lock:
            if fifo == self.fifo and self._intake is not None:
                return  # asked again: the answer was lost
            if not self._finish():
                raise OSError(f"the journal of {self.name} does not take its last lines")
            if wanted != self._wanted:
                self._stop_delivery()
                self._wanted, self._described = wanted, described
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._mark_removed(False)
            self._remember(fifo)
            try:
                self._open_intake().open(Path(fifo))
            except (OSError, ValueError):
                self._close_intake()
                self._remember("")
                raise
            self._ending = False
            self._deliver()

    def resume(self, fifo: str, engine: str = "") -> None:
        """Go on after a restart of the plugin. Raises OSError, ValueError, OptionError."""
        with self.lock:
            self.fifo, self.engine = fifo, engine
            if fifo or self._spool.exists():
                intake = self._open_intake()
                try:
                    if fifo:
                        intake.open(Path(fifo))
                except OSError as error:
                    log.warning("%s: the engine's FIFO is gone: %s", self.name, error)
                if intake.fd < 0:
                    self._finish()
            if self.active or self.held_lines() != 0:
                self._deliver()

    def stop(self) -> None:
        """The engine has written its last byte: have everything in the journal before answering."""
        with self.lock:
            if self._intake is not None and not self._intake.drain():
                self._ending = True  # a disk refuses: the pump tries on
                return
            self._finish()

    def drain(self) -> None:
        """Have everything in the journal that is in the FIFO now, as far as a disk takes it."""
        with self.lock:
            if self._intake is not None:
                self._intake.round()  # as much as a pipe holds, whoever goes on writing

    def round(self) -> int:
        """Read what is there: bytes moved. Called by the pump."""
        with self.lock:
            if self._intake is None:
                return 0
            if self._intake.fd < 0 or self._ending:
                self._finish()
                return 0
            moved = self._intake.round()
            if moved is None:
                log.info("%s: the engine has closed its FIFO", self.name)
                self._finish()
                return 0
            return moved

    def rest(self) -> None:
        """It is quiet: give back what the last lines took."""
        with self.lock:
            if self._intake is not None:
                self._intake.rest()

    def close(self) -> None:
        """The plugin ends: everything is left to its successor."""
        with self.lock:
            self._close_intake()
            self._stop_delivery()

    # --- reading

    def reader(self) -> JournalReader | None:
        """The journal with everything that is in the FIFO now; None if the driver keeps nothing."""
        self.round()
        return get(self._wanted.driver).reader(self._wanted.info)

    def follow(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called, in any thread, whenever there is more or there will be no more."""
        with self.lock:
            self._followers.add(callback)

    def unfollow(self, callback: Callable[[], None]) -> None:
        """No longer."""
        with self.lock:
            self._followers.discard(callback)

    # --- the end

    def confirm(self, engine: str) -> None:
        """An engine says the container is its own: only that one's word counts when it is gone."""
        with self.lock:
            if not self.discarded and engine != self.engine and self._directory.is_dir():
                self.engine = engine
                self._remember(self.fifo)

    def remove(self) -> None:
        """The engine has removed the container: what is not delivered is to be, then ``discard`` is next."""
        with self.lock:
            if self.discarded or self.removed or not self._directory.is_dir():
                return
            self._mark_removed(True)
            if self._delivery is None and self.held_lines() != 0:
                self._deliver()

    @property
    def ended_at(self) -> float:
        """When logging ended, in seconds since the epoch."""
        return ContainerRecord.saved_at(self._directory)

    @property
    def directory(self) -> Path:
        """The container's directory, which need not exist."""
        return self._directory

    def discard(self, target: Path) -> bool:
        """Move the directory to ``target``: whether that was done; not while logging. Raises OSError."""
        with self.lock:
            if self.active or self.discarded:
                return False
            self._stop_delivery()
            self._source_files().remove()
            with contextlib.suppress(FileNotFoundError):
                self._directory.rename(target)
            self.discarded = True
            return True

    def _mark_removed(self, removed: bool) -> None:
        if removed:
            (self._directory / REMOVED_MARK).touch(mode=0o600)
        elif self.removed:
            (self._directory / REMOVED_MARK).unlink(missing_ok=True)
        self.removed = removed

    # --- parts

    def _open_intake(self) -> Intake:
        driver, info = get(self._wanted.driver), self._wanted.info
        info.directory.mkdir(mode=0o710, parents=True, exist_ok=True)
        self._spool.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        state = self._directory / "intake.state"
        source = parse_source(info.options, info.labels)
        intake: Intake
        if source != SourceOptions():
            container_id = info.container_id
            intake = SourceIntake(
                self.name, container_id, lambda: driver.journal(info), self._source_files(), state, source
            )
        else:
            # json-file puts attributes into records of lines; ours come to it as records already.
            attrs = tagged_attributes(info) if driver.name == "json-file" else {}
            maker = BlockMaker(attrs, keep_bytes=driver.name != "json-file")
            intake = Intake(self.name, lambda: driver.journal(info), self._spool, state, maker)
        intake.on_append = self._appended
        self._intake = intake
        return intake

    def _source_files(self) -> SourceFiles:
        return SourceFiles(self._spool, self._wanted.info.directory / SOURCE_STATE_NAME)

    def _appended(self, entry: Entry) -> None:
        if self._delivery is not None:
            self._delivery.offer(entry)
        for callback in self._followers:
            callback()

    def _finish(self) -> bool:
        """Bring what is left into the journal and close; whether that worked."""
        intake = self._intake
        if intake is not None:
            if not intake.drain() or not intake.end():
                self._ending = True
                return False
            self._close_intake()
            self._source_files().remove()
            self._remember("")
        for callback in self._followers:
            callback()
        return True

    def _close_intake(self) -> None:
        intake, self._intake = self._intake, None
        if intake is not None:
            intake.close()

    def _remember(self, fifo: str) -> None:
        ContainerRecord(self._described, fifo, self.engine).save(self._directory)
        self.fifo = fifo

    # --- delivery

    def _deliver(self) -> None:
        """Start the delivery if the driver has a sink; what it cannot do costs no line."""
        if self._delivery is not None:
            self._delivery.wake()
            return
        driver, info = get(self._wanted.driver), self._wanted.info
        try:
            sink = driver.sink(info)
            reader = driver.reader(info) if sink is not None else None
            if sink is None or reader is None:
                return
            name = f"{driver.name} of {self.name}"
            self._delivery = Delivery(reader, sink, info.directory / STATE_NAME, name)
            self._delivery.start()
        except (OSError, ValueError, OptionError) as error:
            log.error("start the %s delivery of %s: %s; its lines are kept", driver.name, self.name, error)

    def counters(self) -> Counters | None:
        """How its delivery stands, running or not; None if it is not known.

        What a driver without a sink has on disk is delivered. Lines that are on disk and that no delivery has
        seen yet are held.
        """
        with self.lock:
            if self._delivery is not None:
                return self._delivery.counters()
            driver, info = get(self._wanted.driver), self._wanted.info
            try:
                reader = driver.reader(info)
                if reader is None:
                    return Counters()
                lines = reader.end_line()
                reader.close()
                if driver.sink(info) is None:
                    return Counters(lines, lines)
                counters = _read_counters(info.directory) or Counters()
            except (OSError, ValueError) as error:
                log.error("read how much of %s was delivered: %s", self.name, error)
                return None
            return replace(counters, written=max(lines, counters.written))

    def held_lines(self) -> int | None:
        """Lines on disk that the sink has not taken; None if it is not known."""
        counters = self.counters()
        return None if counters is None else counters.held

    @property
    def delivering(self) -> bool:
        """Whether a delivery is under way."""
        return self._delivery is not None

    def end_delivery(self) -> None:
        """Stop the delivery of a container that has ended, once its sink has everything."""
        with self.lock:
            if self._intake is None and self._delivery is not None and self._delivery.caught_up():
                self._stop_delivery()

    def _stop_delivery(self) -> None:
        delivery, self._delivery = self._delivery, None
        if delivery is not None:
            delivery.stop()


def _read_counters(directory: Path) -> Counters | None:
    try:
        return read_counters(directory / STATE_NAME)
    except FileNotFoundError:
        return None  # nothing was ever delivered
