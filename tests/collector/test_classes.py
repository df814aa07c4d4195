from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.classes import class_run, literal_places, literal_run, places_of
from collector.query import Regex

TEXTS = st.text('abcxyz019 .\n"\\=/é~\x00', max_size=60).map(str.encode)


def everywhere(pattern: bytes, text: bytes) -> list[int]:
    """Every place a pattern fits at, overlapping ones included."""
    return [match.start() for match in re.finditer(b"(?=" + pattern + b")", text, re.DOTALL)]


@pytest.mark.parametrize(
    "pattern",
    ["[xyz][0-9]{2}[ab]", "[a-c][xz]", r"\d\d[^a]x", r"[acxz019][bdf ]", r"\w\d\d\d", "[0-9]{3}x"],
)
@settings(max_examples=60, deadline=None)
@given(text=TEXTS)
def test_sets_in_a_row_are_found_where_the_expression_fits(pattern, text):
    text = text.decode().encode("ascii", "ignore")
    run = class_run(Regex(pattern, False))
    assert run is not None
    found = places_of(text, run).tolist()
    exact = everywhere(pattern.encode(), text)
    assert set(exact) <= set(found)
    if "^" not in pattern and run.length < 8:  # a negated set lets more through
        assert found == exact


@settings(max_examples=200, deadline=None)
@given(text=TEXTS, at=st.integers(0, 60), size=st.integers(1, 9), other=TEXTS)
def test_literals_are_found_wherever_they_are(text, at, size, other):
    for literal in (text[at : at + size], other[:size]):
        if literal:
            assert literal_places(text, literal).tolist() == everywhere(re.escape(literal), text)


def test_sets_of_many_ranges_are_looked_up_in_a_table():
    literals = frozenset(bytes((start + 7 * n) % 256 for n in range(4)) for start in range(0, 250, 24))
    run = literal_run(literals)
    assert run.ranges is None
    text = b"..".join(sorted(literals))
    assert {text.find(literal) for literal in literals} <= set(places_of(text, run).tolist())
