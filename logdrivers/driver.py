"""The contract of a log driver: where its container's lines are kept, and where they are carried to.

A driver is a journal (always) and a sink (where lines leave the host). json-file's journal is its own
file and it has no sink; gelf and fluentd have our segments as a journal and a sink each. The part that
moves blocks from journal to sink, retries, and counts (``logdrivers/delivery.py``) is the same for all:
a sink only encodes and sends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from logdrivers.block import Block
from logdrivers.journal import Journal, JournalReader

__all__ = ["EMPTY_LINE", "Driver", "Info", "OptionError", "Rejected", "Sink", "SinkDown"]


#: The cause under which lines without text are counted where a protocol has no message for them.
EMPTY_LINE = "empty_line"


class OptionError(ValueError):
    """A log option that the driver refuses. The text is what the user of ``docker run`` reads."""


class SinkDown(Exception):
    """The sink cannot be reached or did not answer in time. Nothing is lost: the batch is sent again."""


class Rejected(Exception):
    """The sink answered that it will never take (a part of) this batch; the rest of it was taken."""

    def __init__(self, cause: str, lines: int, others: Mapping[str, int] | None = None) -> None:
        self.causes = {cause: lines} | dict(others or {})  #: lines by cause
        self.cause = cause  #: a short word, the value of the ``cause`` label of the dropped counter
        self.lines = sum(self.causes.values())
        super().__init__(f"{self.lines} lines rejected: {', '.join(self.causes)}")

    @classmethod
    def check(cls, causes: Mapping[str, int]) -> None:
        """Raise it for the causes that have lines; return if none has."""
        found = {cause: lines for cause, lines in causes.items() if lines}
        if found:
            cause = next(iter(found))
            raise cls(cause, found.pop(cause), found)


@dataclass(frozen=True, slots=True)
class Info:
    """What a driver may know of its container (Docker's ``logger.Info``), made once per start."""

    container_id: str  #: 64 hexadecimal digits
    container_name: str  #: as the Engine API has it, with the leading ``/``
    image_id: str  #: ``sha256:…``
    image_name: str  #: as the user typed it
    command: Sequence[str]  #: entrypoint and arguments
    created_ns: int
    directory: Path  #: the container's log directory, this driver's own
    options: Mapping[str, str] = field(default_factory=dict)  #: ``--log-opt``, validated
    labels: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    hostname: str = ""  #: the host's name
    daemon_name: str = "docker"


class Sink(Protocol):
    """Carries blocks off the host. Called from one thread; may block, but every wait has a deadline."""

    def send(self, blocks: Sequence[Block]) -> None:
        """Return once the sink has taken all of the blocks (acknowledged, where the protocol can).

        Connects on first use and after every failure. Raises SinkDown or Rejected.
        """

    def close(self) -> None:
        """Give up the connection at once."""


class Driver(Protocol):
    """One kind of log driver; ``logdrivers/registry.py`` lists ours, entry points bring others."""

    name: str

    def validate(self, options: Mapping[str, str]) -> None:
        """Raise OptionError, with Docker's words where Docker has them, for an option it refuses."""

    def journal(self, info: Info) -> Journal:
        """Open (or make) the container's journal for writing."""

    def reader(self, info: Info) -> JournalReader | None:
        """Open the journal for reading, or None if this driver keeps nothing (``none``)."""

    def sink(self, info: Info) -> Sink | None:
        """Make the sink, not yet connected; None if lines stay on the host."""
