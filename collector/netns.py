"""Network counters of a container's namespace: from the host's ends of its veths, or ``/proc/PID/net/dev``.

A descriptor kept on a namespace or on its ``net/dev`` would keep a dead container's namespace and veth
alive, so that file is opened, read and closed; what is kept is the directory ``/proc/PID``, which holds
nothing and cannot be taken over by a later process with the same number. Whose interfaces a shared
namespace counts for is decided in ``collector/sampler.py``.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from collector.netlink import Counters, links_of
from collector.sample import Interface

__all__ = ["FILE_EVERY", "HIDDEN", "Namespace", "parse_net_dev"]

logger = logging.getLogger(__name__)

#: How many reads go by until ``net/dev`` is read again where the host's counters say the rest.
FILE_EVERY = 10

#: Interfaces cAdvisor does not count: the loopback, and the host's ends of container links.
HIDDEN = ("veth", "docker", "nerdctl")


def parse_net_dev(data: bytes, hidden: tuple[str, ...] = HIDDEN) -> tuple[Interface, ...]:
    """``/proc/net/dev``, without ``lo`` and interfaces whose names start as ``hidden`` says.

    Raises ValueError on a line that does not have the kernel's sixteen numbers.
    """
    interfaces = []
    unseen = tuple([name.encode() for name in hidden])
    for line in data.split(b"\n")[2:-1]:
        if unseen and line.lstrip().startswith(unseen):
            continue  # a host has one for each container
        words = line.split()
        if len(words) < 17:
            words = _glued(line)
        name = words[0][:-1].decode(errors="replace")
        if name != "lo":
            # The columns: bytes packets errs drop fifo frame compressed multicast, received then sent.
            interfaces.append(Interface(name, *map(int, words[1:5]), *map(int, words[9:13])))
    return tuple(interfaces)


def _glued(line: bytes) -> list[bytes]:
    """A line of a kernel that puts no space between the colon and a long number."""
    name, colon, numbers = line.rpartition(b":")
    words = [name.strip() + b":", *numbers.split()]
    if not colon or len(words) < 17:
        raise ValueError(f"net/dev line {line[:60]!r}: expected an interface and 16 numbers")
    return words


class Namespace:
    """The network namespace of one process, by a kept descriptor of ``/proc/PID``."""

    def __init__(self, proc: Path, pid: int) -> None:
        """Raise OSError when the process is gone."""
        self._directory = os.open(proc / str(pid), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._real = proc == Path("/proc")
        self._peers: dict[str, int] = {}  # interface to the index of its veth's end on the host
        self._looked_at: list[str] | None = None  # the interfaces whose peers were looked for
        self._last: tuple[Interface, ...] = ()
        self._counters: list[Counters] = []  # of the peers, when ``_last`` was made of them
        self._countdown = 0
        try:
            self.inode = os.stat("ns/net", dir_fd=self._directory).st_ino  #: names the namespace
        except OSError:
            os.close(self._directory)
            raise

    def read(self, host: Mapping[int, Counters] | None = None) -> tuple[Interface, ...]:
        """The namespace's interfaces. Raises OSError when the process is gone.

        With the host's counters, bytes and packets come from the other ends of the veths, and the file is
        read every ``FILE_EVERY`` times only: for errors, drops, and interfaces that came or went. Where
        an interface is not a veth to the host it is read every time.
        """
        if host is not None and self._countdown > 0:
            try:
                counters = [host[self._peers[interface.name]] for interface in self._last]
            except KeyError:  # the host's end went
                pass
            else:
                self._countdown -= 1
                if counters != self._counters:
                    self._last = tuple(map(_from_peer, self._last, counters))
                    self._counters = counters
                return self._last
        self._last = self._read_file()
        self._counters = []
        if host is not None and self._real:
            names = [interface.name for interface in self._last]
            if names != self._looked_at or any(index not in host for index in self._peers.values()):
                self._looked_at = names
                self._find_peers(host)
            self._countdown = FILE_EVERY - 1 if self._peers.keys() == set(names) else 0
        return self._last

    def look_again(self) -> None:
        """Have the next read find out which interfaces there are: one may have come or gone."""
        self._countdown = 0

    @property
    def by_peers(self) -> bool:
        """Whether the next read needs the host's counters alone."""
        return self._countdown > 0

    def open(self, name: str) -> int:
        """Open a file below ``/proc/PID``, like ``net/snmp``; the caller closes it. Raises OSError."""
        return os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._directory)

    def close(self) -> None:
        """Give the descriptor back."""
        if self._directory >= 0:
            os.close(self._directory)
            self._directory = -1

    def _read_file(self) -> tuple[Interface, ...]:
        fd = self.open("net/dev")
        try:
            data = os.read(fd, 65536)
            if len(data) > 4000:  # more than one seq_file buffer: the rest comes with further reads
                while chunk := os.read(fd, 65536):
                    data += chunk
        finally:
            os.close(fd)
        return parse_net_dev(data)

    def _find_peers(self, host: Mapping[int, Counters]) -> None:
        self._peers = {}
        try:
            links, our_number = links_of(self._directory)
        except OSError as error:
            # Not allowed to look inside: the file says the same, at a higher price.
            logger.debug("cannot find the peers of interfaces: %s", error)
            self._real = error.errno not in (errno.EPERM, errno.EACCES)
            return
        self._peers = {
            link.name: link.peer_index
            for link in links
            if link.kind == "veth" and link.peer_namespace == our_number >= 0 and link.peer_index in host
        }


def _from_peer(last: Interface, peer: Counters) -> Interface:
    """The interface now: what its peer on the host sent, it received."""
    rx_packets, tx_packets, rx_bytes, tx_bytes = peer
    return Interface(
        last.name,
        tx_bytes,
        tx_packets,
        last.rx_errors,
        last.rx_dropped,
        rx_bytes,
        rx_packets,
        last.tx_errors,
        last.tx_dropped,
    )
