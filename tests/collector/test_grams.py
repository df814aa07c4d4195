"""What a filter says, and that its bits stay what stored filters have."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from collector import grams
from collector.needs import fold


def one_by_one(folded: bytes) -> set[int]:
    """Every gram's hash, in Python's numbers."""
    found = set()
    for at in range(len(folded) - 3):
        low, high = (int.from_bytes(folded[at + n : at + n + 2], "little") for n in (0, 2))
        found.add((low * 0x9E37 + high * 0x79B9) & 0xFFFF)
    return found


@given(st.binary(max_size=3000), st.integers(1, 40))
@example(b"", 1)
@example(b"abc", 1)
@example(b"ab", 1 << 16)
def test_a_filter_has_the_highest_bits_of_each_grams_hash(data: bytes, times: int) -> None:
    folded = fold(data * times)
    expected = one_by_one(folded)
    log2, packed = grams.build(folded)
    assert log2 == min(16, max(9, (4 * len(expected) - 1).bit_length()))
    bits = np.flatnonzero(np.unpackbits(np.frombuffer(packed, np.uint8), bitorder="little")).tolist()
    assert bits == sorted({one >> (16 - log2) for one in expected})
    assert len(packed) == 1 << log2 >> 3


@pytest.mark.parametrize("size", [1 << 17, (1 << 17) + 1, (1 << 17) + 3, (1 << 18) + 2])
def test_a_text_of_several_pieces_loses_no_gram_between_them(size: int) -> None:
    folded = fold(np.random.default_rng(size).integers(0, 4, size, np.uint8).tobytes())
    log2, packed = grams.build(folded)
    region = np.frombuffer(packed, np.uint8)
    for at in (0, (1 << 17) - 5, (1 << 17) - 2, size - 12):
        wanted = grams.hashes(folded[at : at + 12])
        assert not grams.missing(region, np.zeros(1, np.int64), np.array([log2], np.uint8), wanted)[0]
    assert set(grams.hashes(folded[-40:]).tolist()) <= one_by_one(folded)
