"""Restart policies: whether a container that ended is started again, and after how long.

Pure decisions, no clock and no I/O: ``runtime/container.py`` asks and acts. The rules and the delays are
Docker's (``restartmanager``): 100 ms, doubled each time, at most one minute, and back to 100 ms after a
run of ten seconds or more.
"""

from __future__ import annotations

from dataclasses import dataclass

from runtime.config import RestartPolicy as Asked
from runtime.errors import BadRequest

__all__ = ["RestartPolicy", "next_delay"]

FIRST_DELAY_S = 0.1
MAX_DELAY_S = 60.0
STABLE_RUN_NS = 10 * 1_000_000_000
POLICIES = ("no", "always", "unless-stopped", "on-failure")


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """``--restart``. ``maximum`` 0 means without limit."""

    name: str = "no"
    maximum: int = 0

    @classmethod
    def of(cls, asked: Asked) -> RestartPolicy:
        """Check what was asked for; BadRequest for an unknown policy or a misplaced limit."""
        name = asked.name or "no"
        if name not in POLICIES:
            raise BadRequest(f"invalid restart policy: unknown policy '{name}'; use one of {_listed()}")
        if asked.maximum_retry_count < 0:
            raise BadRequest("invalid restart policy: maximum retry count cannot be negative")
        if asked.maximum_retry_count and name != "on-failure":
            raise BadRequest("invalid restart policy: maximum retry count can only be used with 'on-failure'")
        return cls(name, asked.maximum_retry_count)

    def render(self) -> dict[str, object]:
        """The policy as the Engine API writes it."""
        return {"Name": self.name, "MaximumRetryCount": self.maximum}

    def again(self, exit_code: int, restarts: int, stopped_by_user: bool) -> bool:
        """Whether a container that ended now is started again."""
        if stopped_by_user:
            return False
        if self.name in ("always", "unless-stopped"):
            return True
        if self.name == "on-failure" and exit_code != 0:
            return self.maximum == 0 or restarts < self.maximum
        return False

    def at_boot(self, was_running: bool, stopped_by_user: bool, exit_code: int, restarts: int) -> bool:
        """Whether a container that is down when the engine starts is started.

        ``always`` comes back even after ``docker stop``, ``unless-stopped`` does not.
        """
        if self.name == "always":
            return True
        if self.name == "unless-stopped":
            return not stopped_by_user
        return self.name == "on-failure" and was_running and self.again(exit_code, restarts, stopped_by_user)


def _listed() -> str:
    return ", ".join(repr(name) for name in POLICIES[:-1]) + f", or {POLICIES[-1]!r}"


def next_delay(previous_s: float, ran_ns: int) -> float:
    """Seconds to wait before the next start. ``previous_s`` is the last delay, 0 before the first."""
    if previous_s <= 0 or ran_ns >= STABLE_RUN_NS:
        return FIRST_DELAY_S
    return min(previous_s * 2, MAX_DELAY_S)
