"""Group ``conntrack``: connections tracked in every namespace, their limit, and what could not be tracked.

By netlink (linux/netfilter/nfnetlink_conntrack.h), or by ``net/stat/nf_conntrack`` where the kernel is
without ctnetlink. Names are node_exporter's. Nothing is asked where connection tracking is not loaded:
the question would load it.
"""

from __future__ import annotations

import errno
import logging
import struct
from collections.abc import Sequence

from collector.cgroup.files import number, read_once
from collector.lanes.board import Reading
from collector.lanes.inside import Dump, inside, read_file
from collector.netlink_wire import attributes
from collector.roots import Roots
from collector.target import Target

__all__ = ["ConntrackGroup", "parse_table"]

logger = logging.getLogger(__name__)

_NETFILTER = 12  # NETLINK_NETFILTER
_SUBSYSTEM = 1 << 8  # NFNL_SUBSYS_CTNETLINK
_GET_STATS_CPU, _GET_STATS = _SUBSYSTEM | 4, _SUBSYSTEM | 5
_ENTRIES, _MAX = 1, 2  # CTA_STATS_GLOBAL_*
_INSERT_FAILED, _DROP, _EARLY_DROP = 9, 10, 11  # CTA_STATS_*
_NUMBER = struct.Struct(">I")

_ENTRIES_NAME = "container_nf_conntrack_entries"
_LIMIT_NAME = "container_nf_conntrack_entries_limit"
_STAT = {
    _DROP: "container_nf_conntrack_stat_drop",
    _EARLY_DROP: "container_nf_conntrack_stat_early_drop",
    _INSERT_FAILED: "container_nf_conntrack_stat_insert_failed",
}
_COLUMNS = {b"drop": _DROP, b"early_drop": _EARLY_DROP, b"insert_failed": _INSERT_FAILED}


def parse_table(data: bytes) -> tuple[int, dict[int, int]]:
    """``net/stat/nf_conntrack``: entries, and counters summed over CPUs, by the kernel's number.

    A line of names, then a line of hexadecimal numbers for each CPU. Raises ValueError on another format.
    """
    names, *rows = [line.split() for line in data.split(b"\n") if line]
    if not rows or names[:1] != [b"entries"]:
        raise ValueError(f"nf_conntrack {data[:60]!r}: expected a line of names that begins with 'entries'")
    sums = {number: 0 for name, number in _COLUMNS.items() if name in names}
    for row in rows:
        for name, value in zip(names, row, strict=False):
            if name in _COLUMNS:
                sums[_COLUMNS[name]] += int(value, 16)
    return int(rows[0][0], 16), sums


class ConntrackGroup:
    """Entries of the connection tracking table of every namespace."""

    name = "conntrack"

    def __init__(self, roots: Roots, seconds: float = 30.0) -> None:
        self.seconds = seconds
        self._maximum = roots.proc / "sys/net/netfilter"
        self._dump = Dump(_NETFILTER)
        self._netlink = True

    def read(self, target: Target) -> Sequence[Reading]:
        """Raise OSError, ValueError; nothing where the kernel tracks no connections."""
        if not target.counts_network:
            return ()
        maximum = read_once(self._maximum, "nf_conntrack_max")
        if maximum is None:
            return ()
        if self._netlink:
            try:
                return self._ask(target)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EPROTONOSUPPORT):
                    raise
                self._netlink = False
                logger.info("no ctnetlink here (%s): reading net/stat/nf_conntrack", error)
        try:
            entries, sums = parse_table(read_file(target, "net/stat/nf_conntrack"))
        except FileNotFoundError:
            return ()
        return _readings(entries, number(maximum), sums)

    def _ask(self, target: Target) -> list[Reading]:
        whole: dict[int, int] = {}
        sums = dict.fromkeys(_STAT, 0)

        def take(data: memoryview, start: int, end: int) -> None:
            whole.update(_numbers(data, start + 4, end))

        def add(data: memoryview, start: int, end: int) -> None:
            for kind, value in _numbers(data, start + 4, end):
                if kind in sums:
                    sums[kind] += value

        with inside(target):
            with self._dump.opened() as asked:
                self._dump.ask(_GET_STATS, bytes(4), take, dump=False, asked=asked)
                self._dump.ask(_GET_STATS_CPU, bytes(4), add, asked=asked)
        return _readings(whole.get(_ENTRIES, 0), whole.get(_MAX), sums)


def _readings(entries: int, maximum: int | None, sums: dict[int, int]) -> list[Reading]:
    readings = [Reading(_ENTRIES_NAME, (), entries)]
    if maximum is not None:  # a kernel before 5.15 does not tell it
        readings.append(Reading(_LIMIT_NAME, (), maximum))
    return readings + [Reading(_STAT[kind], (), value) for kind, value in sorted(sums.items())]


def _numbers(data: memoryview, offset: int, end: int) -> list[tuple[int, int]]:
    """The attributes that are numbers, behind the four bytes of nfgenmsg."""
    return [
        (kind, _NUMBER.unpack(value)[0]) for kind, value in attributes(data, offset, end) if len(value) == 4
    ]
