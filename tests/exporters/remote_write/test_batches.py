"""From the text of a page to requests: names, labels, values, stale markers."""

from __future__ import annotations

import math
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporters.remote_write.batches import Batches
from exporters.remote_write.page import parse_series
from exporters.remote_write.protobuf import Template, encode_labels, varint

NOW = 1_795_203_812_123
STALE = 0x7FF0000000000002
PAGE = b"""# HELP up Whether.
# TYPE up gauge
up 1
# TYPE bytes counter
bytes{name="a",path="C:\\\\x \\"q\\"\\n"} 1.5e+03
bytes{name="b"} +Inf
bytes{name="c"} NaN
"""


def of(batches: Batches, page: bytes, wire: ModuleType, now: int = NOW) -> dict[tuple, int]:
    found = {}
    for batch in batches.of(page, now):
        entries = wire.request(batch.body)
        assert len(entries) == batch.samples
        for labels, bits, moment in entries:
            assert moment == now == batch.time_ms
            assert labels not in found
            found[labels] = bits
    return found


def test_every_sample_of_the_page_with_its_labels_sorted(wire: ModuleType) -> None:
    found = of(Batches({"job": "taffrail", "name": "not this"}), PAGE, wire)
    values = {labels: wire.number(bits) for labels, bits in found.items()}
    assert values.pop((("__name__", "up"), ("job", "taffrail"), ("name", "not this"))) == 1.0
    path = ("path", 'C:\\x "q"\n')
    assert values.pop((("__name__", "bytes"), ("job", "taffrail"), ("name", "a"), path)) == 1500.0
    assert values.pop((("__name__", "bytes"), ("job", "taffrail"), ("name", "b"))) == math.inf
    assert math.isnan(values.pop((("__name__", "bytes"), ("job", "taffrail"), ("name", "c"))))
    assert not values


def test_values_change_and_series_stay(wire: ModuleType) -> None:
    batches = Batches({})
    for value in (1.0, 2.5, 0.0):
        found = of(batches, f'x{{a="b"}} {value}\ny 7\n'.encode(), wire)
        assert wire.number(found[("__name__", "x"), ("a", "b")]) == value
        assert wire.number(found[(("__name__", "y"),)]) == 7.0
    assert batches.stale_markers == 0


def test_a_series_that_ends_gets_one_stale_marker(wire: ModuleType) -> None:
    batches = Batches({})
    of(batches, b"x 1\ny 2\n", wire)
    found = of(batches, b"y 3\n", wire)
    assert found == {(("__name__", "x"),): STALE, (("__name__", "y"),): 0x4008000000000000}
    assert of(batches, b"y 3\n", wire).keys() == {(("__name__", "y"),)}
    assert wire.number(of(batches, b"x 1\ny 3\n", wire)[(("__name__", "x"),)]) == 1.0
    assert batches.stale_markers == 1
    assert set(of(batches, b"", wire).values()) == {STALE}


def test_large_pages_are_several_requests(wire: ModuleType) -> None:
    batches = Batches({}, most=3)
    page = b"".join(b'x{n="%d"} %d\n' % (n, n) for n in range(8))
    assert [batch.samples for batch in batches.of(page, NOW)] == [3, 3, 2]
    assert {dict(labels)["n"]: wire.number(bits) for labels, bits in of(batches, page, wire).items()} == {
        str(n): float(n) for n in range(8)
    }
    assert [batch.samples for batch in batches.of(b"", NOW)] == [3, 3, 2]


def test_what_cannot_be_read_or_is_there_twice_is_counted(wire: ModuleType) -> None:
    batches = Batches({})
    page = b'x{a="1",b="2"} 1\nx{b="2",a="1"} 2\nx{a="1",b="2"} 3\n9lives 1\ny{a=1} 1\nz 4\n'
    for times in (1, 2):
        found = {labels: wire.number(bits) for labels, bits in of(batches, page, wire).items()}
        assert found == {(("__name__", "x"), ("a", "1"), ("b", "2")): 1.0, (("__name__", "z"),): 4.0}
        assert batches.unreadable == 4 * times


def test_a_series_written_another_way_has_not_ended(wire: ModuleType) -> None:
    batches = Batches({})
    of(batches, b'x{a="1",b="2"} 1\n', wire)
    assert STALE not in of(batches, b'x{b="2",a="1"} 2\n', wire).values()


def test_a_clock_that_was_never_set_is_named() -> None:
    for moment in (0, -5, 1000, 1 << 43):
        with pytest.raises(ValueError, match="the clock says"):
            list(Batches({}).of(b"x 1\n", moment))


@pytest.mark.parametrize("text", [b"", b"{}", b"x{", b'x{a="1"', b'x{a="1" b="2"}', b'x{a="\\"}', b"x y"])
def test_a_text_that_is_no_series_is_named(text: bytes) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_series(text)


names = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]{0,9}", fullmatch=True)
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=300)


@given(st.lists(st.tuples(st.dictionaries(names, texts, max_size=5), st.floats()), max_size=20))
def test_any_labels_and_values_come_back(wire: ModuleType, given_series: list) -> None:
    encoded = [encode_labels(labels.items()) for labels, _ in given_series]
    values = np.array([value for _, value in given_series], dtype="<f8")
    message = Template(encoded).fill(values, NOW)
    expected = [
        (tuple(sorted(labels.items())), int(bits), NOW)
        for (labels, _), bits in zip(given_series, values.view("<u8"), strict=True)
    ]
    assert wire.series(message) == expected


@given(st.integers(0, 2**63))
def test_varints(wire: ModuleType, number: int) -> None:
    assert list(wire.fields(b"\x08" + varint(number))) == [(1, number)]


def test_a_change_in_the_middle_of_a_page_of_many_parts(wire: ModuleType) -> None:
    def page(numbers: range, without: int = -1) -> bytes:
        return b"".join(b'x{n="%d",pad="%s"} %d\n' % (n, b"p" * 100, n) for n in numbers if n != without)

    batches = Batches({})
    for text, count, stale in (
        (page(range(8000)), 8000, 0),
        (page(range(8000)), 8000, 0),
        (page(range(8000), without=6000), 7999, 1),
        (page(range(5000)), 5000, 2999),
        (page(range(9000)), 9000, 0),
    ):
        found = {dict(labels)["n"]: bits for labels, bits in of(batches, text, wire).items()}
        assert sum(bits == STALE for bits in found.values()) == stale
        current = {n: wire.number(bits) for n, bits in found.items() if bits != STALE}
        assert len(current) == count
        assert all(float(n) == value for n, value in current.items())
