"""A container's health: what its check asks for, and what becomes of its status by a probe's result.

Pure decisions, no clock and no I/O; defaults, limits and words are Docker's (``daemon/health.go`` of its
20.10). Running probes is ``runtime/health_monitor.py``'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from runtime.config import ContainerConfig, Healthcheck
from runtime.errors import BadRequest

__all__ = [
    "HEALTHY",
    "STARTING",
    "UNHEALTHY",
    "Check",
    "Health",
    "Result",
    "check_durations",
    "duration_text",
]

STARTING = "starting"
HEALTHY = "healthy"
UNHEALTHY = "unhealthy"

_SECOND = 1_000_000_000
_INTERVAL_NS = 30 * _SECOND
_TIMEOUT_NS = 30 * _SECOND
_START_INTERVAL_NS = 5 * _SECOND
_RETRIES = 3
_MINIMUM_NS = 1_000_000
_SHELL = ("/bin/sh", "-c")
_LOG = 5  #: results kept


def check_durations(asked: Healthcheck | None) -> None:
    """Raise BadRequest, in Docker's words, for a duration below a millisecond or negative retries."""
    if asked is None:
        return
    durations = {
        "Interval": asked.interval_ns,
        "Timeout": asked.timeout_ns,
        "StartPeriod": asked.start_period_ns,
        "StartInterval": asked.start_interval_ns,
    }
    for name, nanoseconds in durations.items():
        if nanoseconds and nanoseconds < _MINIMUM_NS:
            raise BadRequest(f"{name} in Healthcheck cannot be less than 1ms")
    if asked.retries < 0:
        raise BadRequest("Retries in Healthcheck cannot be negative")


@dataclass(frozen=True, slots=True)
class Check:
    """A health check with its defaults filled in; times in nanoseconds."""

    command: tuple[str, ...]
    interval_ns: int
    timeout_ns: int
    start_period_ns: int
    start_interval_ns: int
    retries: int

    @classmethod
    def of(cls, config: ContainerConfig) -> Check | None:
        """The container's check; None without one, for ``NONE`` and for a kind nobody knows."""
        asked = config.healthcheck
        if asked is None or not asked.test or asked.test[0] not in ("CMD", "CMD-SHELL"):
            return None
        words = asked.test[1:]
        if asked.test[0] == "CMD-SHELL":
            words = (*(config.raw.get("Shell") or _SHELL), *words)
        return cls(
            words,
            asked.interval_ns or _INTERVAL_NS,
            asked.timeout_ns or _TIMEOUT_NS,
            asked.start_period_ns,
            asked.start_interval_ns or _START_INTERVAL_NS,
            asked.retries or _RETRIES,
        )

    def wait_ns(self, status: str, ran_ns: int) -> int:
        """How long to wait before the next probe of a container that has run for ``ran_ns``."""
        in_start = status == STARTING and ran_ns < self.start_period_ns
        return self.start_interval_ns if in_start else self.interval_ns


@dataclass(frozen=True, slots=True)
class Result:
    """One probe. Times are nanoseconds since the epoch."""

    start_ns: int
    end_ns: int
    exit_code: int  #: -1: it could not be run, or took too long
    output: str


@dataclass(frozen=True, slots=True)
class Health:
    """``State.Health`` of a container with a check."""

    status: str = STARTING
    failing_streak: int = 0
    log: tuple[Result, ...] = ()

    def begun(self) -> Health:
        """At a start: nothing is known yet, the log of earlier runs stays."""
        return Health(STARTING, 0, self.log)

    def stopped(self) -> Health:
        """While nobody probes, as in a paused or ended container: Docker calls it unhealthy, without an event."""
        return replace(self, status=UNHEALTHY)

    def after(self, result: Result, check: Check, started_ns: int) -> Health:
        """With one more result. Failures within the start period of a starting container do not count."""
        log = (*self.log, result)[-_LOG:]
        if result.exit_code == 0:
            return Health(HEALTHY, 0, log)
        if self.status == STARTING and result.start_ns - started_ns < check.start_period_ns:
            return replace(self, log=log)
        streak = self.failing_streak + 1
        return Health(UNHEALTHY if streak >= check.retries else self.status, streak, log)

    def to_json(self) -> dict[str, Any]:
        """What is kept on disk."""
        return asdict(self)

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Health:
        """Read it again. Raises KeyError or TypeError for something else."""
        return cls(body["status"], body["failing_streak"], tuple(Result(**item) for item in body["log"]))


def duration_text(nanoseconds: int) -> str:
    """A duration of at least a millisecond as Go prints it: ``500ms``, ``1.5s``, ``1m30s``, ``1h0m0s``."""
    if nanoseconds < _SECOND:
        return f"{_fraction(nanoseconds, 1_000_000)}ms"
    minutes, rest = divmod(nanoseconds, 60 * _SECOND)
    seconds = f"{_fraction(rest, _SECOND)}s"
    if not minutes:
        return seconds
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{seconds}" if hours else f"{minutes}m{seconds}"


def _fraction(value: int, unit: int) -> str:
    whole, rest = divmod(value, unit)
    digits = f"{rest:0{len(str(unit)) - 1}d}".rstrip("0")
    return f"{whole}.{digits}" if digits else str(whole)
