"""A driver's sink inside a shim: delivery runs in a thread beside the pump and may outlast the container.

What is not delivered when the shim leaves stays in the journal, where the next delivery goes on.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from logdrivers.driver import Driver
from runtime.shim_spec import ShimSpec

__all__ = ["ShimDelivery"]

log = logging.getLogger(__name__)

#: How long a shim stays after its container for the sink's sake.
LINGER_SECONDS = 10.0


class ShimDelivery:
    """Nothing, for a driver without a sink."""

    def __init__(self, spec: ShimSpec, driver: Driver) -> None:
        self._spec = spec
        self._driver = driver
        self._leave_at = 0.0
        self.written = (0, 0)

    def start(self) -> None:
        """Start delivering, if the driver has a sink."""

    def end(self) -> None:
        """The container has ended: what is in the journal is all there will be."""
        self._leave_at = time.monotonic() + LINGER_SECONDS

    def busy(self) -> bool:
        """Whether there is still something to deliver and time to do it."""
        return False

    def close(self) -> None:
        """Stop delivering."""

    def counters(self) -> dict[str, Any]:
        """Of the delivery."""
        return {}
