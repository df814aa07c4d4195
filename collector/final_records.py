"""What a container used until its end, as one line among its logs: for who asks long after its series are gone.

The numbers are the sampler's last ones, taken before the cgroup went; following containers is the registry's.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Protocol

import orjson

from collector.container import Container
from collector.discovery.registry import RUNNING, Containers
from collector.inputs.intake import Intake, Sources
from collector.sample import Sample
from logdrivers.block import Block, Encoding, Stream

__all__ = ["FinalRecords", "final_record"]

logger = logging.getLogger(__name__)

INPUT = "final"


class Samples(Protocol):
    """What is needed of the sampler, which has to follow the registry before us."""

    def of_run(self, container: Container) -> Sample | None:
        """The last sample of a run, of one that ended, too."""


def final_record(container: Container, sample: Sample | None, ended_ns: int) -> dict[str, object]:
    """What is known of a run that ended; what was never sampled is left out."""
    code = container.exit_code
    fields: dict[str, object | None] = {
        "level": "warn" if code or container.oom_killed else "info",
        "message": f"container {container.name} ended" + ("" if code is None else f" with exit code {code}"),
        "event": "container_end",
        "exit_code": code,
        "oom_killed": container.oom_killed,
        "duration_seconds": (ended_ns - container.started_ns) / 1e9 if container.started_ns else None,
    }
    if sample is not None and sample.cpu is not None:
        fields["cpu_seconds"] = sample.cpu.usage_seconds
    if sample is not None and sample.memory is not None:
        fields["memory_peak_bytes"] = sample.memory.max_usage_bytes
        fields["oom_kills"] = sample.memory.oom_kills
    if sample is not None and sample.time_ns:
        fields["read_bytes"] = sum(device.read_bytes for device in sample.block_io)
        fields["written_bytes"] = sum(device.write_bytes for device in sample.block_io)
        fields["received_bytes"] = sum(interface.rx_bytes for interface in sample.interfaces)
        fields["sent_bytes"] = sum(interface.tx_bytes for interface in sample.interfaces)
    return {key: value for key, value in fields.items() if value is not None}


class FinalRecords:
    """Stores a line for every container that ends."""

    def __init__(self, containers: Containers, samples: Samples, intake: Intake, sources: Sources) -> None:
        """Begins to follow; make it after the sampler."""
        self.records = 0  #: lines stored
        self.failures = 0  #: lines that could not be stored
        self._samples = samples
        self._intake = intake
        self._sources = sources
        self._loop: asyncio.AbstractEventLoop | None = None
        self._since_ns = time.time_ns()
        self._ends: dict[str, int] = {}  #: no run that began by then is to be told of any more, by container
        #: When the run began that was seen to go on, and whose end is still to be told.
        self._running = {one.id: one.started_ns for one in containers.all() if one.state in RUNNING}
        self._unsubscribe = containers.subscribe(self._changed)

    async def run(self) -> None:
        """Store until cancelled; what ends before it runs is not stored."""
        self._loop = asyncio.get_running_loop()
        try:
            await asyncio.Event().wait()
        finally:
            self._unsubscribe()

    def _changed(self, event: str, container: Container) -> None:
        """In whichever thread changed the registry."""
        if container.state in RUNNING and event != "removed":
            self._running[container.id] = container.started_ns
        elif self._has_ended(container):
            ended_ns = container.finished_ns or time.time_ns()
            # A run can end before it began, where the clock was set back.
            self._ends[container.id] = max(ended_ns, container.started_ns, self._ends.get(container.id, 0))
            if self._loop is not None:
                sample = self._samples.of_run(container)
                self._loop.call_soon_threadsafe(self._store, container, sample, ended_ns)
        if event == "removed":
            self._ends.pop(container.id, None)
            self._running.pop(container.id, None)

    def _has_ended(self, container: Container) -> bool:
        """Whether this is the end of a run that was not told of yet."""
        seen = self._running.get(container.id)
        if seen is not None and not 0 < seen < container.started_ns:
            del self._running[container.id]
            return True
        # A run that was over before anybody looked, maybe with the end of the one before still to come.
        unseen = container.started_ns > self._ends.get(container.id, 0)
        return unseen and self._since_ns < container.finished_ns

    def _store(self, container: Container, sample: Sample | None, ended_ns: int) -> None:
        line = orjson.dumps(final_record(container, sample, ended_ns)) + b"\n"
        source = self._sources(container.id, container.name, container.image, INPUT)
        try:
            self._intake.append(source, Block(line, Encoding.LINES, Stream.STDERR, ended_ns, ended_ns, 1))
        except OSError as error:
            self.failures += 1
            logger.warning("cannot store the final record of container %s: %s", container.name, error)
        else:
            self.records += 1
