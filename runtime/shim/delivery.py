"""A driver's sink inside a shim: delivery runs in a thread beside the pump and may outlast the container.

What is not delivered when the shim leaves stays in the journal, counted as held, and the next delivery of
that container's journal goes on with it. How lines are delivered is ``logdrivers/delivery.py``.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from logdrivers.delivery import STATE_NAME, Delivery
from logdrivers.driver import Driver
from logdrivers.journal import Entry
from runtime.shim.spec import ShimSpec

__all__ = ["BATCH_SECONDS", "LINGER_SECONDS", "ShimDelivery"]

log = logging.getLogger(__name__)

#: How long a shim stays after its container for the sink's sake.
LINGER_SECONDS = 10.0
#: How long the batch then on its way may take: a sink gets one that is cut off again, as a whole.
BATCH_SECONDS = 10.0


class ShimDelivery:
    """The delivery of one container, or nothing for a driver whose lines stay on the host."""

    def __init__(self, spec: ShimSpec, driver: Driver) -> None:
        self._spec = spec
        self._driver = driver
        self._delivery: Delivery | None = None
        self._leave_at = 0.0
        self._finishing = False
        self._fresh: list[Entry] = []  # appended, not handed over yet

    def start(self) -> bool:
        """Start delivering, if the driver has a sink; whether it has."""
        info = self._spec.info
        sink = self._driver.sink(info)
        reader = self._driver.reader(info) if sink is not None else None
        if sink is None or reader is None:
            return False
        name = f"{self._spec.driver} of {self._spec.container_id[:12]}"
        self._delivery = Delivery(reader, sink, info.directory / STATE_NAME, name)
        self._delivery.start()
        return True

    def offer(self, entry: Entry) -> None:
        """An entry was appended to the journal; ``push`` hands it over."""
        self._fresh.append(entry)

    def push(self) -> None:
        """Hand over what was appended. Call before waiting: a thread woken earlier would wait for us instead."""
        if self._fresh:
            if self._delivery is not None:
                self._delivery.offer(*self._fresh)
            self._fresh.clear()

    def end(self) -> None:
        """The container has ended: what is in the journal is all there will be."""
        self.push()
        self._leave_at = time.monotonic() + LINGER_SECONDS

    def busy(self) -> bool:
        """Whether there is still something to deliver and time to do it."""
        self.push()
        delivery = self._delivery
        if delivery is None or delivery.caught_up():
            return False
        late = time.monotonic() >= self._leave_at
        if self._finishing:
            return not late and not delivery.over()
        if late:
            self.finish()
        return True

    def finish(self) -> None:
        """Begin no further batch; ``busy`` until the sink has the one on its way, or fails, or takes too long."""
        if self._delivery is not None and not self._finishing:
            self._finishing = True
            self._leave_at = time.monotonic() + BATCH_SECONDS
            self._delivery.finish()

    def behind(self) -> bool:
        """Whether lines wait for the sink."""
        self.push()
        return self._delivery is not None and not self._delivery.caught_up()

    def close(self) -> None:
        """Stop delivering; what is left stays in the journal."""
        self.push()
        delivery, self._delivery = self._delivery, None
        if delivery is not None:
            delivery.stop()
            held = delivery.counters().held
            if held:
                log.warning(
                    "container %s: %d lines wait in the journal for %s",
                    self._spec.container_id[:12],
                    held,
                    self._spec.driver,
                )

    def counters(self) -> dict[str, Any]:
        """Lines delivered, held and dropped; empty without a sink."""
        if self._delivery is None:
            return {}
        self.push()
        counters = self._delivery.counters()
        return {
            "delivered": counters.delivered,
            "held": counters.held,
            "dropped": counters.dropped,
            "sink_up": counters.sink_up,
            "sink_error": counters.last_error,
        }
