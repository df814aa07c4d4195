"""From frames to blocks: many frames become one block, and every line keeps its time.

A Docker Engine stamps each line for itself, so hardly two frames share a time. A LINES block per time would be
a block per line (4.4 us of CPU to append each to a segment journal, measured); json-file's records keep every
time in one block, and all sinks take them. Pieces of longer lines, whose
identity records cannot say, and lines that are not UTF-8, whose bytes they cannot keep, are blocks of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from logdrivers.block import Block, Encoding, Partial, Stream
from logdrivers.codecs.json_file_timed import TimedEncoder
from logdrivers.plugin.frames import Frames

__all__ = ["BlockMaker", "Made"]


class Made(NamedTuple):
    """A block and where the frames in it end in the data they came from."""

    block: Block
    end: int


class BlockMaker:
    """Makes the blocks of one container.

    ``attrs`` go into every record. With ``keep_bytes`` lines that are not UTF-8 stay as they are; without,
    they are what Docker's json-file makes of them.
    """

    def __init__(self, attrs: Mapping[str, str] | None = None, keep_bytes: bool = True) -> None:
        self._encoder = TimedEncoder(attrs)
        self._keep_bytes = keep_bytes

    def make(self, frames: Frames, skip: int = 0) -> Iterator[Made]:
        """The blocks of all frames but the first ``skip``, in order."""
        begin = skip
        for index in self._alone(frames, skip):
            if begin < index:
                yield self._records(frames, begin, index)
            yield _single(frames, index)
            begin = index + 1
        if begin < len(frames):
            yield self._records(frames, begin, len(frames))

    def _alone(self, frames: Frames, skip: int) -> list[int]:
        """The frames that cannot be records among others."""
        alone = {index for index in frames.partials if index >= skip}
        joined = b"".join(frames.lines)
        if self._keep_bytes and not _is_text(joined):
            alone.update(i for i in range(skip, len(frames)) if not _is_text(frames.lines[i]))
        if b"\n" in joined:
            alone.update(i for i in range(skip, len(frames)) if b"\n" in frames.lines[i])
        return sorted(alone)

    def _records(self, frames: Frames, begin: int, end: int) -> Made:
        lines, times, streams = frames.lines[begin:end], frames.times_ns[begin:end], frames.streams[begin:end]
        data = self._encoder.encode(lines, streams, times)
        stream = Stream(int(streams[0])) if (streams == streams[0]).all() else Stream.MIXED
        block = Block(
            data,
            Encoding.JSON_FILE,
            stream,
            int(times.min()),
            int(times.max()),
            len(lines),
            source_bytes=sum(map(len, lines)) + len(lines),
        )
        return Made(block, int(frames.ends[end - 1]))


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _single(frames: Frames, index: int) -> Made:
    partial, data, time_ns = frames.partials.get(index), frames.lines[index], int(frames.times_ns[index])
    if partial is None and b"\n" in data:
        partial = Partial("", 1, True)  # no engine writes that; it stays one line
    elif partial is None:
        data += b"\n"
    stream = Stream(int(frames.streams[index]))
    block = Block(data, Encoding.LINES, stream, time_ns, time_ns, 1, partial)
    return Made(block, int(frames.ends[index]))
