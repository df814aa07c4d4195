"""Opening a store again: from what a crash left to a state that appends can go on from."""

from __future__ import annotations

import errno
import logging
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from collector.segments.catalog import Catalog, CursorRow
from collector.segments.frames import Corrupt, decode_extra
from collector.segments.raw import RawSegment
from collector.segments.sealed import SealedSegment
from collector.sink import Source

__all__ = ["Opened", "Segment", "boot_id", "open_segments", "require_catalog"]

Segment = RawSegment | SealedSegment

log = logging.getLogger(__name__)

_NAME: Final = re.compile(r"(\d{16})\.(raw|sealed)")
#: Numbers of lines a power cut may have taken are not given again: documents made from them may be out.
_NUMBERS_PASSED_OVER: Final = 1 << 20


def boot_id(proc: Path) -> str:
    """Names this run of the kernel: another one since the last opening means the page cache was lost."""
    try:
        return (proc / "sys/kernel/random/boot_id").read_text().strip()
    except OSError as error:
        log.warning("cannot read the kernel's boot id, taking every opening for one after a crash: %s", error)
        return ""


def require_catalog(directory: Path) -> None:
    """Raise OSError for a directory with segments and no catalog: nobody could say whose lines they are."""
    segments = [path.name for path in directory.iterdir() if _NAME.fullmatch(path.name)]
    if segments and not (directory / "catalog.db").exists():
        raise OSError(
            errno.ENOENT,
            f"catalog.db is missing beside {len(segments)} segments; put it back, or move the segments away",
            str(directory),
        )


@dataclass(slots=True)
class Opened:
    """What was found."""

    segments: dict[int, Segment]
    active: RawSegment
    sources: dict[int, Source]
    next_lines: dict[int, int]
    checkpoints: dict[str, bytes]
    cursors: dict[str, CursorRow]
    torn_bytes: int
    gap_lines: int  #: lines of segments whose files are gone or unreadable


def open_segments(directory: Path, catalog: Catalog, boot_id: str) -> Opened:
    """Open every segment, repair what a crash left, and find or make the one to append to."""
    totals = catalog.numbers()
    segments, torn_bytes = _open_files(directory, totals.get("removed_through", 0))
    gap_lines = _gaps(segments, totals)
    sources, next_lines, checkpoints = _replay(segments, catalog)
    repaired = (
        torn_bytes
        or gap_lines
        or any(one.repair.corrupt_bytes for one in segments.values() if isinstance(one, RawSegment))
    )
    power_cut = not boot_id or catalog.text("boot_id") not in ("", boot_id)
    if repaired or (power_cut and not totals.get("closed")):
        for number in next_lines:
            next_lines[number] += _NUMBERS_PASSED_OVER
    catalog.set_text("boot_id", boot_id)
    catalog.set_number("closed", 0)
    active = _active(directory, segments, totals)
    cursors = {name: _clamp(row, segments) for name, row in catalog.cursors().items()}
    return Opened(segments, active, sources, next_lines, checkpoints, cursors, torn_bytes, gap_lines)


def _active(directory: Path, segments: dict[int, Segment], totals: dict[str, int]) -> RawSegment:
    """The newest segment if it still takes frames, or a new one behind it."""
    newest = segments.get(max(segments, default=0))
    if isinstance(newest, RawSegment):
        return newest
    number = max(totals.get("removed_through", 0), totals.get("state_through", 0), *segments) + 1
    before = totals.get("lines_through", 0), totals.get("bytes_through", 0)
    if newest is not None:
        before = newest.lines_before + newest.lines, newest.bytes_before + newest.raw_bytes
    created = RawSegment.create(directory / f"{number:016d}.raw", number, *before, time.time_ns())
    segments[number] = created
    return created


def _open_files(directory: Path, removed_through: int) -> tuple[dict[int, Segment], int]:
    raw: dict[int, Path] = {}
    sealed: dict[int, Path] = {}
    for path in sorted(directory.iterdir()):
        match = _NAME.fullmatch(path.name)
        if path.suffix == ".tmp" or (match and int(match[1]) <= removed_through):
            path.unlink()
        elif match:
            (raw if match[2] == "raw" else sealed)[int(match[1])] = path
    segments: dict[int, Segment] = {}
    for number, path in sealed.items():
        try:
            segments[number] = SealedSegment(path)
        except Corrupt as error:
            _set_aside(path, error)
        else:
            if number in raw:  # a crash before it was removed
                raw.pop(number).unlink()
    torn_bytes = 0
    for number, path in raw.items():
        newest = number == max([*raw, *sealed])
        try:
            segment = RawSegment.open(path, newest)
        except Corrupt as error:
            torn_bytes += path.stat().st_size
            if newest:
                log.warning("%s: removed, it was never completed: %s", path, error)
                path.unlink()
            else:
                _set_aside(path, error)
            continue
        if segment.repair.torn_bytes or segment.repair.corrupt_bytes:
            log.warning("%s: repaired: %s", path, segment.repair)
            torn_bytes += segment.repair.torn_bytes
        segments[number] = segment
    return segments, torn_bytes


def _set_aside(path: Path, error: Corrupt) -> None:
    log.error("set aside as .damaged: %s", error)
    path.rename(path.with_name(path.name + ".damaged"))


def _gaps(segments: dict[int, Segment], totals: dict[str, int]) -> int:
    """Lines that were in segments which are no longer there."""
    removed = ("removed_lines_size", "removed_lines_age", "corrupt_lines_removed")
    expected = sum(totals.get(key, 0) for key in removed)
    gap = 0
    for _, segment in sorted(segments.items()):
        gap += max(0, segment.lines_before - expected)
        expected = segment.lines_before + segment.lines
    return gap


def _replay(
    segments: dict[int, Segment], catalog: Catalog
) -> tuple[dict[int, Source], dict[int, int], dict[str, bytes]]:
    """Sources, line numbers and checkpoints: the catalog's, and what newer frames say."""
    sources, next_lines = {}, {}
    for number, source, next_line in catalog.sources():
        sources[number] = source
        next_lines[number] = next_line
    checkpoints = catalog.checkpoints()
    through = catalog.number("state_through")
    for number, segment in sorted(segments.items()):
        if number <= through or not isinstance(segment, RawSegment):
            continue
        for frame in segment.each_frame():
            next_line = frame.first_line + frame.lines
            if next_line > next_lines.get(frame.source, -1):
                next_lines[frame.source] = next_line
            if frame.extra_bytes:
                checkpoint = decode_extra(segment.read_extra(frame)).checkpoint
                if checkpoint is not None:
                    checkpoints[checkpoint[0]] = checkpoint[1]
    return sources, next_lines, checkpoints


def _clamp(row: CursorRow, segments: dict[int, Segment]) -> CursorRow:
    """A power cut may have taken what the cursor had already passed."""
    newest, oldest = max(segments), min(segments)
    if row.segment > newest:
        row.segment, row.frame, row.chunk = newest, segments[newest].frames, 0
    elif row.segment < oldest:
        row.segment, row.frame, row.chunk = oldest, 0, 0
    elif row.segment in segments:
        row.frame = min(row.frame, segments[row.segment].frames)
    return row
