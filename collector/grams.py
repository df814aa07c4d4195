"""A filter per chunk of text: which groups of four bytes are in it, hashed to bits.

It answers "cannot be in here" for any substring of four bytes or more, in either case. Bytes are folded
(``needs.fold``), each gram hashes to 16 bits, of which a filter keeps the highest: as many as leave it at
most a quarter full (3 % of the raw bytes). A gram that is absent is taken for present with a probability of
an eighth to a quarter, all seven of an absent needle of ten characters about once in 20,000 chunks.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["GRAM", "MAX_LOG2", "Hashes", "build", "hashes", "missing"]

GRAM: Final = 4
#: Bits of a hash: the largest filter has as many bits as there are hashes.
MAX_LOG2: Final = 16
_MIN_LOG2: Final = 9
_LOW, _HIGH = np.uint16(0x9E37), np.uint16(0x79B9)
#: Texts are hashed in pieces, so that a text of any size takes a megabyte or two.
_PIECE: Final = 1 << 17
#: Bits of a table that become one when a filter is smaller by this many powers of two.
_FOLDED: Final = {1: np.uint16, 2: np.uint32, 3: np.uint64}

Hashes = npt.NDArray[np.uint16]


def _hash(pairs: npt.NDArray[np.uint16]) -> Hashes:
    """Of each two neighbouring pairs of bytes."""
    hashed: Hashes = pairs[:-1] * _LOW
    hashed += pairs[1:] * _HIGH
    return hashed


def hashes(literal: bytes) -> Hashes:
    """The hashes of a folded literal's grams; none if it is shorter than a gram."""
    grams = [literal[at : at + GRAM] for at in range(len(literal) - GRAM + 1)]
    if not grams:
        return np.empty(0, np.uint16)
    pairs = np.frombuffer(b"".join(grams), "<u2").reshape(-1, 2)
    hashed: Hashes = pairs[:, 0] * _LOW
    hashed += pairs[:, 1] * _HIGH
    return np.unique(hashed)


def build(folded: bytes) -> tuple[int, bytes]:
    """The filter of a folded text: the logarithm of its bits, and its bytes."""
    table = np.zeros(1 << MAX_LOG2, np.bool_)
    for start in range(0, max(len(folded) - GRAM + 1, 0), _PIECE):
        piece = folded[start : start + _PIECE + GRAM - 1]
        for phase in (0, 1):
            pairs = np.frombuffer(piece[phase:], "<u2", (len(piece) - phase) // 2)
            if len(pairs) > 1:
                table[_hash(pairs).astype(np.intp)] = True
    present = int(np.count_nonzero(table))
    log2 = min(MAX_LOG2, max(_MIN_LOG2, (4 * present - 1).bit_length()))
    return log2, np.packbits(_folded(table, MAX_LOG2 - log2), bitorder="little").tobytes()


def _folded(table: npt.NDArray[np.bool_], times: int) -> npt.NDArray[np.bool_]:
    """The table with neighbours brought together, two by two, so many times."""
    while times:
        step = min(times, max(_FOLDED))
        table = table.view(_FOLDED[step]) != 0
        times -= step
    return table


def missing(
    region: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int64],
    log2s: npt.NDArray[np.uint8],
    wanted: Hashes,
) -> npt.NDArray[np.bool_]:
    """For each filter (at its offset in ``region``) whether one of the wanted hashes is not in it."""
    absent = np.zeros(len(offsets), np.bool_)
    shifts = MAX_LOG2 - log2s.astype(np.int64)
    for hashed in wanted.tolist():
        bits = np.int64(hashed) >> shifts
        absent |= (region[offsets + (bits >> 3)] >> (bits & 7).astype(np.uint8)) & 1 == 0
    return absent
