"""Network interfaces of the host the agent runs on: ``netdev`` and ``netclass`` from two netlink dumps a scrape.

The series are those of ``interfaces.py``, which reads files and is asked where netlink is not there or refuses.
"""

from __future__ import annotations

import logging
import operator
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from collector.host.group import Column, Files, Labels, Reader, Readings, Series
from collector.host.groups.interfaces import (
    ATTRIBUTES,
    COLUMNS,
    NOHANDLER,
    SPEED,
    netclass_files,
    netdev_files,
)
from collector.host.links import HostLinks, LinkFacts, LinkRow

__all__ = ["netclass", "netdev", "ours"]

logger = logging.getLogger(__name__)

#: Not in netlink's answers; each changes with the interface's name or address at most.
_STATIC = ("addr_assign_type", "dev_id", "name_assign_type")
#: What netlink tells, by the file that has it; None leaves the family out, as a file without an answer does.
_TOLD: Mapping[str, Callable[[LinkFacts], int | None]] = {
    "carrier": lambda link: link.carrier if link.up else None,
    "carrier_changes": operator.attrgetter("carrier_changes"),
    "carrier_up_count": operator.attrgetter("carrier_up"),
    "carrier_down_count": operator.attrgetter("carrier_down"),
    "dormant": lambda link: int(link.dormant) if link.up else None,
    "flags": operator.attrgetter("flags"),
    "ifindex": operator.attrgetter("index"),
    "iflink": operator.attrgetter("link"),
    "link_mode": operator.attrgetter("link_mode"),
    "mtu": operator.attrgetter("mtu"),
    "netdev_group": operator.attrgetter("group"),
    "type": operator.attrgetter("type"),
    "tx_queue_len": operator.attrgetter("queue_length"),
}
#: The counters that a column of ``/proc/net/dev`` is the sum of, in the order of ``COLUMNS``.
_SUMS = (
    ("rx_bytes",),
    ("rx_packets",),
    ("rx_errors",),
    ("rx_dropped", "rx_missed_errors"),
    ("rx_fifo_errors",),
    ("rx_length_errors", "rx_over_errors", "rx_crc_errors", "rx_frame_errors"),
    ("rx_compressed",),
    ("multicast",),
    ("tx_bytes",),
    ("tx_packets",),
    ("tx_errors",),
    ("tx_dropped",),
    ("tx_fifo_errors",),
    ("collisions",),
    ("tx_carrier_errors", "tx_aborted_errors", "tx_window_errors", "tx_heartbeat_errors"),
    ("tx_compressed",),
)
_FIELDS = {name: number for number, name in enumerate(LinkRow._fields)}


def ours(files: Files) -> bool:
    """Whether the files are of the host and the network namespace that this process is in."""
    if files.proc != "/proc" or files.sys != "/sys":
        return False
    try:
        # A namespace's files in procfs have inodes of their own; its link in ns/ may be forbidden to look at.
        host, own = (Path(directory, "dev").stat().st_ino for directory in (files.net, "/proc/self/net"))
        return host == own
    except OSError:
        return False


def netdev(files: Files) -> Reader:
    """Node Exporter's ``netdev``, the loopback included."""
    links = files.shared(_Links)
    labels = _Labels()

    def by_netlink() -> Mapping[str, Series | Column]:
        counters = links.counters()
        there = [link for link in links.facts() if link.index in counters]
        names = labels.of(tuple([link.name for link in there]))
        columns = list(zip(*[counters[link.index] for link in there], strict=True))
        readings: dict[str, Series | Column] = {}
        if columns:
            for family, parts in zip(COLUMNS, _SUMS, strict=True):
                readings[family] = Column(names, _sum([columns[_FIELDS[part]] for part in parts]))
            readings[NOHANDLER] = Column(names, columns[_FIELDS["rx_nohandler"]])
        return readings

    return lambda: links.ask(by_netlink, netdev_files)


def netclass(files: Files) -> Reader:
    """Node Exporter's ``netclass``; speeds, which sysfs has in megabits, in bytes a second."""
    links = files.shared(_Links)
    classes = _Classes(files)
    return lambda: links.ask(lambda: classes.read(links.facts()), netclass_files)


class _Links:
    """Netlink as long as it answers, files else; every interface is asked for once in a scrape."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._use = ours(files)
        self._links = HostLinks()
        self._warned = False
        self._facts: tuple[LinkFacts, ...] = ()
        self._scrape = -1

    def ask(
        self, by_netlink: Callable[[], Mapping[str, Series | Column]], by_files: Callable[[Files], Readings]
    ) -> Mapping[str, Series | Column]:
        """What ``by_netlink`` reads from here, or ``by_files`` where that cannot be."""
        if self._use:
            try:
                return by_netlink()
            except (OSError, ValueError) as error:
                level = logging.DEBUG if self._warned else logging.WARNING
                logger.log(level, "cannot ask netlink for the host's interfaces, will read files: %s", error)
                self._warned = True
        return by_files(self._files)

    def facts(self) -> tuple[LinkFacts, ...]:
        """What this scrape's interfaces are. Raises OSError, ValueError."""
        if self._scrape != self._files.scrapes:
            self._facts = self._links.facts()
            self._scrape = self._files.scrapes
        return self._facts

    def counters(self) -> dict[int, LinkRow]:
        """What they carried. Raises OSError."""
        return self._links.counters()


class _Labels:
    """The same tuple of labels as long as the names are the same."""

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()
        self._labels: tuple[Labels, ...] = ()

    def of(self, names: tuple[str, ...]) -> tuple[Labels, ...]:
        if names != self._names:
            self._names, self._labels = names, tuple((name,) for name in names)
        return self._labels


class _Classes:
    """What interfaces are: made anew where netlink or the speeds say something new."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._directory = f"{files.sys}/class/net"
        self._facts: tuple[LinkFacts, ...] | None = None
        self._fixed: dict[tuple[int, str, str], dict[str, int | None]] = {}
        self._veths: dict[tuple[int, str], dict[str, bytes | None]] = {}
        self._asked: list[LinkFacts] = []  # those whose files are read each time
        self._answers: list[dict[str, bytes | None]] = []
        self._readings: dict[str, Series | Column] = {}
        self._labels = {family: _Labels() for _, family in ATTRIBUTES}

    def read(self, facts: tuple[LinkFacts, ...]) -> Mapping[str, Series | Column]:
        changed = facts is not self._facts
        if changed:
            self._look(facts)
        answers = [self._ask(link) for link in self._asked]
        if changed or answers != self._answers:
            self._facts, self._answers = facts, answers
            self._put_together(facts)
        return self._readings

    def _look(self, facts: tuple[LinkFacts, ...]) -> None:
        """Read what stays as it is of those that are new, and forget those that are gone."""
        fixed, veths = {}, {}
        self._asked = []
        for link in facts:
            key = (link.index, link.name, link.address)
            known = self._fixed.get(key)
            fixed[key] = self._numbers(link) if known is None else known
            if link.up and link.kind == "veth" and link.flags is not None:
                speed = self._veths.get(key[:2])
                veths[key[:2]] = self._ask(link) if speed is None else speed
            elif link.up or link.flags is None:
                self._asked.append(link)
        self._fixed, self._veths = fixed, veths

    def _numbers(self, link: LinkFacts) -> dict[str, int | None]:
        values = self._files.attributes(f"{self._directory}/{link.name}", _STATIC)
        return {
            name: None if value is None else int(value, 0)
            for name, value in zip(_STATIC, values or (None,) * len(_STATIC), strict=True)
        }

    def _ask(self, link: LinkFacts) -> dict[str, bytes | None]:
        names = ["speed", "duplex"] if link.up else []  # no answer of one that is down
        if link.flags is None:
            names.append("flags")
        values = self._files.attributes(f"{self._directory}/{link.name}", names)
        return dict(zip(names, values, strict=False))

    def _put_together(self, facts: Sequence[LinkFacts]) -> None:
        asked = {link.index: answer for link, answer in zip(self._asked, self._answers, strict=True)}
        rows = []
        infos: list[Labels] = []
        for link in facts:
            answer = asked.get(link.index) or self._veths.get((link.index, link.name)) or {}
            row = dict(self._fixed[link.index, link.name, link.address])
            row |= {file: told(link) for file, told in _TOLD.items()}
            for file in ("flags", "speed"):
                text = answer.get(file)
                if text is not None:
                    row[file] = int(text, 0)
            rows.append(row)
            duplex = (answer.get("duplex") or b"").decode(errors="replace").strip()
            infos.append((link.name, link.address, link.broadcast, duplex, link.alias, link.operstate))
        every = [(link.name,) for link in facts]
        self._readings = {
            "node_network_up": Column(every, [int(link.operstate == "up") for link in facts]),
            "node_network_info": Column(infos, [1] * len(infos)),
        }
        for file, family in ATTRIBUTES:
            there = [(link.name, value) for link, row in zip(facts, rows, strict=True)
                     if (value := row.get(file)) is not None]  # fmt: skip
            labels = self._labels[family].of(tuple([name for name, _ in there]))
            times = 125_000 if family == SPEED else 1
            self._readings[family] = Column(labels, [value * times for _, value in there])


def _sum(columns: Sequence[Sequence[int]]) -> Sequence[int]:
    total = columns[0]
    for column in columns[1:]:
        total = tuple(map(operator.add, total, column))
    return total
