"""The tail of a log in CRI format: podman's k8s-file, and what the kubelet's runtimes write.

Lines are brought to json-file records when they are read; everything else, resuming, rotation, truncation and
damage, is as in ``json_file.py``. Only the names of rotated files are the kubelet's own.
"""

from __future__ import annotations

import re
from pathlib import Path

from collector.inputs.json_file import JsonFileTail
from collector.inputs.json_records import Checked
from collector.inputs.log_files import (
    Generation,
    GzipGeneration,
    PlainGeneration,
    open_generations,
    same_start,
)
from logdrivers.codecs import cri
from logdrivers.codecs import json_file as codec

__all__ = ["CriFileTail"]

#: ``0.log.20261121-041500``, compressed a rotation later.
_ROTATED = re.compile(r"\.\d{8}-\d{6}(\.gz)?")


class CriFileTail(JsonFileTail):
    """Reads one log from its checkpoint on. Not thread-safe; ``turn`` never waits."""

    format = "CRI"

    def _records(self, chunk: bytes) -> tuple[Checked, tuple[int, int]]:
        found = cri.to_json_file(chunk)
        times = (codec.first_time(found.data), codec.last_time(found.data)) if found.lines else (0, 0)
        return Checked(found.data, found.lines, found.skipped, found.skipped_bytes), times

    def _time_of_last(self, records: bytes) -> int:
        return cri.last_time(records)

    def _open_generations(self, known: int | None = None, limit: int = 64) -> tuple[list[Generation], bool]:
        rotated = self._rotated()
        if not rotated:
            return open_generations(self.path, known, limit, self.user)
        opened: list[Generation] = []  # newest first
        for path in (self.path, *rotated):
            if len(opened) >= limit:
                break
            generation = _open(path, self.user)
            if generation is None:
                continue
            if generation.inode == known:
                generation.close()
                return opened[::-1], True
            if opened and same_start(opened[-1], generation):  # renamed, or compressed, meanwhile
                generation.close()
                continue
            opened.append(generation)
        return opened[::-1], False

    def _rotated(self) -> list[Path]:
        """The kubelet's rotated files of this log, newest first."""
        try:
            names = [path.name for path in self.path.parent.iterdir()]
        except OSError:
            return []
        name = self.path.name
        return [
            self.path.with_name(each)
            for each in sorted(names, reverse=True)
            if each.startswith(name) and _ROTATED.fullmatch(each[len(name) :])
        ]


def _open(path: Path, user: int) -> Generation | None:
    try:
        return GzipGeneration(path, user) if path.name.endswith(".gz") else PlainGeneration(path, user)
    except FileNotFoundError:
        return None
