"""What says so when a container's output may be lost: a line in its journal and a count of such gaps.

A container's streams vanish with the last process that has them open. While it runs that is itself; after
its end engine, template or shim, and only if all of those are killed before the shim has read everything,
what was left in the pipes is gone (as it is with a reboot). How much that was nobody can tell. Who holds the
streams when is ``runtime/shim/streams.py``'s and the template's business.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

from logdrivers.block import Block, Encoding, Stream
from logdrivers.driver import Info
from logdrivers.registry import get
from logdrivers.source.spool import Spool
from logdrivers.statefile import StateFile, read_state
from runtime.shim import streams
from runtime.shim.exit_status import write_json
from runtime.shim.spec import ShimSpec

__all__ = [
    "GAPS_STATE_NAME",
    "GAP_FILE",
    "LOST_ALL",
    "forget_gap",
    "mark_gap",
    "mark_gap_in_journal",
    "note_gap",
    "read_gaps",
]

log = logging.getLogger(__name__)

#: In the run directory, from when a gap is found until it is marked and counted.
GAP_FILE = "gap.json"
#: In the log directory: how many gaps there were, and where in the stream the last one was.
GAPS_STATE_NAME = "gaps.state"
_FIELDS = "QQ"
_START = "taffrail: output may be missing here: "
_KILLED = "all that held the container's streams were killed, and it ended before they were read"
#: The reason when not even the run directory is left.
LOST_ALL = "the host was restarted, or the run directory cleared, while the container ran"


def note_gap(spec: ShimSpec) -> None:
    """Look whether anybody holds the container's streams, before we do, and write it down if nobody does.

    To be called once the container may have ended. Raises OSError.
    """
    lost = streams.unheld(spec)
    if lost and not (spec.run_dir / GAP_FILE).exists():
        log.error("container %s: nobody held its %s", spec.container_id[:12], " and ".join(lost))
        write_json(spec.run_dir / GAP_FILE, {"at": None})


def forget_gap(spec: ShimSpec) -> None:
    """The container is started anew: whatever was noted of a start that came to nothing is no gap."""
    (spec.run_dir / GAP_FILE).unlink(missing_ok=True)


def mark_gap(spec: ShimSpec, spool: Spool) -> None:
    """Put the line for a gap that was noted behind what the spool holds, and count it; each once.

    Raises OSError or ValueError; then it is done by the next who calls.
    """
    path = spec.run_dir / GAP_FILE
    try:
        at = json.loads(path.read_text())["at"]
    except FileNotFoundError:
        return
    if at is None:
        at = spool.end
        write_json(path, {"at": at})
    if spool.end == at:
        unfinished = at > 0 and spool.read(at - 1, at) not in (b"\n", b"\0")
        spool.append(b"\n" * unfinished + _line(_KILLED))
    _count(spec.info.directory, at)
    path.unlink()


def mark_gap_in_journal(driver: str, info: Info, tty: bool, now_ns: int, reason: str = LOST_ALL) -> None:
    """Put the line for a gap into the journal of a container that has no shim, and count it.

    Raises OSError, ValueError, OptionError.
    """
    journal = get(driver).journal(info)
    try:
        mark = journal.resume().mark
        stream = Stream.STDOUT if tty else Stream.STDERR
        journal.append(Block(_line(reason), Encoding.LINES, stream, now_ns, now_ns, 1), mark)
    finally:
        journal.close()
    _count(info.directory, None)


def read_gaps(directory: Path) -> int:
    """How often output of the container with this log directory may have been lost, as far as is known.

    Raises OSError, ValueError if the file is not one of these.
    """
    try:
        values = read_state(directory / GAPS_STATE_NAME, _FIELDS)
    except FileNotFoundError:
        return 0
    return int(values[0]) if values else 0


def _line(reason: str) -> bytes:
    return f"{_START}{reason}\n".encode()


def _count(directory: Path, at: int | None) -> None:
    """One more, unless the last one counted was at this place of the stream already."""
    directory.mkdir(mode=0o710, parents=True, exist_ok=True)
    state = StateFile(directory / GAPS_STATE_NAME, _FIELDS)
    try:
        count, last = state.values or (0, 0)
        place = last if at is None else at + 1  # 0 is no place
        if at is None or place != last:
            state.write(count + 1, place)
            state.flush()
    finally:
        state.close()
