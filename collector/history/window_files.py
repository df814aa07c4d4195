"""What a window of history is in files: a growing one that is appended to, and a sealed one that takes its place.

Finding them after a restart, and writing a frame wholly or not at all; what is in them is left to the
window's owner (``tier.py``, ``step_log.py``).
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

__all__ = ["find_windows", "whole_file", "write_frame"]


def find_windows(directory: Path, name: str, *kinds: str) -> dict[int, dict[str, Path]]:
    """The files ``NAME-SEQUENCE.KIND`` of a directory by sequence and kind, in order of the sequence.

    What a crash left half made (``.tmp``) is removed.
    """
    names = re.compile(rf"{re.escape(name)}-(\d{{8}})\.({'|'.join(map(re.escape, kinds))})(\.tmp)?")
    found: dict[int, dict[str, Path]] = {}
    for path in sorted(directory.iterdir()):
        match = names.fullmatch(path.name)
        if match is None:
            continue
        if match[3]:
            path.unlink()
        else:
            found.setdefault(int(match[1]), {})[match[2]] = path
    return dict(sorted(found.items()))


def write_frame(descriptor: int, frame: bytes, offset: int) -> int:
    """Write a frame at the end of a file, which is at ``offset``; returns where the file ends now.

    Raises OSError, and then nothing of the frame stays in the file.
    """
    view, at = memoryview(frame), offset
    try:
        while view:
            written = os.pwrite(descriptor, view, at)
            at += written
            view = view[written:]
    except OSError:
        os.ftruncate(descriptor, offset)
        raise
    return at


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write that is at ``path`` once all of it is on disk, and else is not there. Raises OSError."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fdatasync(file.fileno())
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
