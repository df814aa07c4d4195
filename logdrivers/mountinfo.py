"""What is mounted where, by ``/proc/PID/mountinfo``: for whoever looks for cgroups, file systems or layers.

The format is proc_pid_mountinfo(5)'s; what the mounts mean is left to those who ask.
"""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["Mount", "parse_mountinfo", "unescape"]

_OCTAL = re.compile(r"\\([0-7]{3})")


class Mount(NamedTuple):
    """One mount. Bytes that are no UTF-8 are surrogates, as in ``os.fsdecode``."""

    device: str  #: ``major:minor``
    root: str  #: what of the file system is mounted
    point: str
    kind: str  #: ``ext4``, ``cgroup2``, ``overlay``
    source: str
    options: str  #: of the file system, with escapes as they are


def parse_mountinfo(data: bytes) -> list[Mount]:
    """The mounts in order of mounting; a line that is none is passed over."""
    mounts = []
    for line in data.decode(errors="surrogateescape").split("\n"):  # other separators of lines stand in names
        before, dash, after = line.partition(" - ")
        words = before.split(" ")
        if dash and len(words) >= 6:
            kind, source, options = (*after.split(" ", 2), "", "")[:3]
            mounts.append(
                Mount(words[2], unescape(words[3]), unescape(words[4]), kind, unescape(source), options)
            )
    return mounts


def unescape(text: str) -> str:
    """A field with its octal escapes (space, tab, newline, backslash) undone."""
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text) if "\\" in text else text
