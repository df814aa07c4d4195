"""Whether the wall clock may be believed when something is to be removed for its age.

A clock that leapt a week ahead, while we ran or while nobody did, must not take a week of history and logs with
it. What may be removed for its size is not asked for here: limits of size hold with any clock.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import orjson

__all__ = ["ClockTrust", "kernel_says_synchronized"]

log = logging.getLogger(__name__)

#: Seconds that the clock may drift from the time since boot between two questions.
TOLERANCE = 60.0
#: After a step of the clock nothing is removed for its age for this long; seconds.
DISTRUST = 3600.0
#: A clock that is so far ahead after a boot was wrong, or the host was off: which of them, it does not say; seconds.
LEAP = 86400.0
#: Seconds that such a clock has to be watched without anybody setting it back.
WATCHED = 6 * 3600.0
#: Seconds after which what was seen is written again.
_SAVED_EVERY = 60.0


@dataclass(frozen=True, slots=True)
class _Seen:
    """A look at the clocks, as the file keeps it."""

    wall: float  #: seconds since the epoch
    since_boot: float  #: seconds
    boot: str  #: names the run of the kernel that ``since_boot`` counts from; empty if that is not known
    left: float  #: seconds that the clock still has to be watched
    after_boot: bool  #: whether that is for a leap while nobody looked, which a synchronized clock explains


def kernel_says_synchronized() -> bool:
    """Whether somebody keeps the clock to a reference, as the kernel was told (adjtimex(2))."""
    from collector.host.groups.clock import synchronized  # only a clock in doubt needs it

    return synchronized()


def _since_boot() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class ClockTrust:
    """Compares the wall clock with the time since boot, which nobody sets, and with what it said before the start.

    Safe to use from any thread; whoever removes by age in one process shares one.
    """

    def __init__(
        self,
        file: Path | None = None,
        boot: str = "",
        *,
        synchronized: Callable[[], bool] = kernel_says_synchronized,
        since_boot: Callable[[], float] = _since_boot,
    ) -> None:
        """``file`` remembers the last look; without it the newest file beside or below says when that was.

        ``boot`` names the running kernel's boot. Without ``file`` only steps while this process runs are seen.
        """
        self.failures = 0  #: times the file could not be read or written
        self._file = file
        self._boot = boot
        self._synchronized = synchronized
        self._since_boot = since_boot
        self._lock = threading.Lock()
        self._seen: _Seen | None = None
        self._saved = 0.0
        self._remembered = self._load()  # now: who writes below the file's directory has not begun

    @property
    def trusted(self) -> bool:
        """The last answer; True before anybody asked."""
        return self._seen is None or not self._seen.left

    def trusts(self, now_ns: int) -> bool:
        """Whether something may be removed for its age. ``now_ns`` is what the clock says now."""
        with self._lock:
            look = _Seen(now_ns / 1e9, self._since_boot(), self._boot, 0.0, False)
            before = self._seen
            now = self._begin(look) if before is None else self._go_on(before, look)
            if now.left and now.after_boot and self._synchronized():
                now = replace(now, left=0.0, after_boot=False)
            if before is not None and before.left and not now.left:
                log.info("the clock is believed again, what is too old by it is removed")
            self._seen = now
            told = before is None or bool(before.left) != bool(now.left)
            if told or now.since_boot >= self._saved + _SAVED_EVERY:
                self._save(now)
            return not now.left

    def _go_on(self, before: _Seen, look: _Seen) -> _Seen:
        passed = look.since_boot - before.since_boot
        left = max(0.0, before.left - passed)
        return _stepped(replace(look, left=left, after_boot=left > 0 and before.after_boot), before)

    def _begin(self, look: _Seen) -> _Seen:
        """The first look of this process."""
        before = self._remembered
        if before is None:
            return look
        look = replace(look, left=before.left, after_boot=before.left > 0 and before.after_boot)
        if before.boot and before.boot == look.boot:
            return _stepped(look, before)
        leap = look.wall - before.wall
        if leap <= LEAP or self._synchronized():
            return look
        # A wait that goes on is not begun anew: a host that is switched on for an hour a week removes things, too.
        left = before.left if before.left and before.after_boot else WATCHED
        look = replace(look, left=left, after_boot=True)
        log.warning(
            "the clock is %.1f days ahead of when it was last seen here, before a boot: nothing is removed for its "
            "age until it is synchronized or was watched for %.1f h, limits of size hold",
            leap / 86400,
            look.left / 3600,
        )
        return look

    def _load(self) -> _Seen | None:
        if self._file is None:
            return None
        try:
            one = orjson.loads(self._file.read_bytes())
            return _Seen(
                float(one["wall"]),
                float(one["since_boot"]),
                str(one["boot"]),
                min(max(float(one["left"]), 0.0), WATCHED),
                bool(one["after_boot"]),
            )
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError, KeyError) as error:
            self.failures += 1
            log.warning("cannot read when the clock was last seen from %s: %s", self._file, error)
        newest = _newest_change(self._file.parent)
        return _Seen(newest, 0.0, "", 0.0, False) if newest else None

    def _save(self, seen: _Seen) -> None:
        if self._file is None:
            return
        self._saved = seen.since_boot
        draft = self._file.with_suffix(".new")
        try:
            draft.write_bytes(orjson.dumps(asdict(seen)))
            draft.replace(self._file)
        except OSError as error:
            self.failures += 1
            log.warning("cannot write when the clock was last seen to %s: %s", self._file, error)


def _stepped(look: _Seen, before: _Seen) -> _Seen:
    """A look after one of the same boot: in doubt where the clocks do not agree on the time between."""
    step = (look.wall - before.wall) - (look.since_boot - before.since_boot)
    if abs(step) <= TOLERANCE:
        return look
    log.warning(
        "the clock was stepped by %.0f s, nothing is removed for its age for %.0f s",
        step,
        max(look.left, DISTRUST),
    )
    return replace(look, left=max(look.left, DISTRUST))


def _newest_change(directory: Path) -> float:
    """When a file below was last written; seconds since the epoch, 0 without any."""
    newest = 0.0
    for path in directory.rglob("*"):
        try:
            if path.is_file():
                newest = max(newest, path.stat().st_mtime)
        except OSError as error:
            log.info("cannot ask %s when it was written: %s", path, error)
    return newest
