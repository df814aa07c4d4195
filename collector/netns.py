"""Network counters of a container's namespace, read from ``/proc/PID/net/dev``.

A descriptor kept on a namespace or on its ``net/dev`` would keep a dead container's namespace and veth
alive, so the file is opened, read and closed; what is kept is the directory ``/proc/PID``, which holds
nothing and cannot be taken over by a later process with the same number. Whose interfaces a shared
namespace counts for is decided in ``collector/sampler.py``.
"""

from __future__ import annotations

import os
from pathlib import Path

from collector.sample import Interface

__all__ = ["HIDDEN", "Namespace", "parse_net_dev"]

#: Interfaces cAdvisor does not count: the loopback, and the host's ends of container links.
HIDDEN = ("lo", "veth", "docker", "nerdctl")


def parse_net_dev(data: bytes, hidden: tuple[str, ...] = HIDDEN) -> tuple[Interface, ...]:
    """``/proc/net/dev``, without interfaces that are ``lo`` or whose names start as ``hidden`` says.

    Raises ValueError on a line that does not have the kernel's sixteen numbers.
    """
    interfaces = []
    for line in data.decode(errors="replace").splitlines()[2:]:
        name, colon, numbers = line.rpartition(":")
        name = name.strip()
        if name == "lo" or (name.startswith(hidden) and not name.startswith("lo")):
            continue
        words = numbers.split()
        if not colon or len(words) < 16:
            raise ValueError(f"net/dev line {line[:60]!r}: expected an interface and 16 numbers")
        rx_bytes, rx_packets, rx_errors, rx_dropped = map(int, words[0:4])
        tx_bytes, tx_packets, tx_errors, tx_dropped = map(int, words[8:12])
        interfaces.append(
            Interface(
                name,
                rx_bytes,
                rx_packets,
                rx_errors,
                rx_dropped,
                tx_bytes,
                tx_packets,
                tx_errors,
                tx_dropped,
            )
        )
    return tuple(interfaces)


class Namespace:
    """The network namespace of one process, by a kept descriptor of ``/proc/PID``."""

    def __init__(self, proc: Path, pid: int) -> None:
        """Raise OSError when the process is gone."""
        self._directory = os.open(proc / str(pid), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self.inode = os.stat("ns/net", dir_fd=self._directory).st_ino  #: names the namespace
        except OSError:
            os.close(self._directory)
            raise

    def read(self) -> tuple[Interface, ...]:
        """The namespace's interfaces. Raises OSError when the process is gone."""
        fd = os.open("net/dev", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._directory)
        try:
            data = os.read(fd, 65536)
            if len(data) > 4000:  # more than one seq_file buffer: the rest comes with further reads
                while chunk := os.read(fd, 65536):
                    data += chunk
        finally:
            os.close(fd)
        return parse_net_dev(data)

    def close(self) -> None:
        """Give the descriptor back."""
        if self._directory >= 0:
            os.close(self._directory)
            self._directory = -1
