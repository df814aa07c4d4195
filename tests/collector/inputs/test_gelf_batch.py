"""Payloads taken by template leave what decoding each in full leaves, whatever a sender makes of them."""

from __future__ import annotations

import json

from hypothesis import example, given
from hypothesis import strategies as st

from collector.inputs.gelf_batch import GelfBatch
from collector.inputs.received import Collator
from logdrivers.codecs import json_file
from logdrivers.codecs.gelf_decode import GelfError

Result = tuple[list[tuple[object, json_file.Record]], list[str]]


def take(payloads: list[bytes], at_once: bool) -> Result:
    """Records by container and the causes of what was refused, in order."""
    collator = Collator()
    causes: list[str] = []

    def refused(error: GelfError) -> None:
        causes.append(error.cause)

    batch = GelfBatch(collator, refused)
    for payload in payloads:
        batch.add(payload)
        if not at_once:
            batch._templates.clear()
            batch.flush()
    batch.flush()
    return [(origin, r) for origin, block in collator.take() for r in json_file.decode(block.data)], causes


def message(
    text: bytes, time: bytes = b"1795203851.793", rest: bytes = b',"level":6,"_container_id":"c"}'
) -> bytes:
    return b'{"version":"1.1","host":"h","short_message":"%s","timestamp":%s%s' % (text, time, rest)


TEXTS = st.one_of(
    st.text(max_size=20).map(lambda text: json.dumps(text)[1:-1].encode()),
    st.sampled_from(
        [
            b"",
            b"\\",
            b"\\\\",
            b'"',
            b'a","b',
            b'a",0,"b',
            b'x\\","timestamp":1,"y',
            b'x","timestamp":1,"y":"',
            b"\xff",
            b"\x01",
            b"\\ud800",
            b"\\u00e9 \\/ \\b",
            b"caf\xc3\xa9 <&>",
            b'","full_message":"longer than the short one',
            b'","_container_id":"other',
        ]
    ),
)
TIMES = st.sampled_from(
    [
        b"1795203851.793",
        b"1795203851",
        b"0",
        b"1.5e9",
        b'"7"',
        b"true",
        b"-1",
        b"01",
        b"1_0",
        b"8589934592",
        b"1795203851.1234567",
    ]
)
RESTS = st.sampled_from(
    [
        b',"level":6,"_container_id":"c"}',
        b',"level":3,"_container_id":"c"}',
        b',"level":6,"_container_id":"c","timestamp":5}',
        b',"level":6,"short_message":"other"}',
        b',"full_message":"the full message is longer"}',
        b',"_a":"%s"}' % (b"x" * 5000),
        b',"_short_message":"mine"}',
        b",",
        b"}",
    ]
)


@given(st.lists(st.builds(message, TEXTS, TIMES, RESTS), max_size=8))
@example([message(b"a"), message(b"x\\"), message(b"y"), message(b'p","q'), message(b"z")])
@example([message(b"a"), message(b"b", rest=b',"_x":"1","short_message":"c"}'), message(b"d")] * 2)
def test_by_template_or_in_full_is_the_same(payloads: list[bytes]) -> None:
    # Two rounds: the second finds the first one's templates.
    quick, quick_causes = take(payloads * 2, at_once=True)
    full, full_causes = take(payloads * 2, at_once=False)
    assert without_now(quick) == without_now(full)
    assert quick_causes == full_causes


def without_now(rows: list[tuple[object, json_file.Record]]) -> list[tuple[object, ...]]:
    """Leaves out the time of records that had none of their own."""
    recent = 1_795_203_852 * 10**9
    return [
        (origin, r.log, r.stream, r.attrs, r.time_ns if r.time_ns < recent else None) for origin, r in rows
    ]


def test_a_container_s_lines_keep_their_order_across_both_ways() -> None:
    payloads = [message(b"%d" % i, rest=b',"_n":%d}' % (i if i % 3 == 0 else -1)) for i in range(30)]
    rows, causes = take(payloads, at_once=True)
    assert [record.log for _, record in rows] == [b"%d\n" % i for i in range(30)]
    assert causes == []


def test_templates_are_used_and_bounded() -> None:
    batch = GelfBatch(Collator(), lambda error: None)
    for i in range(3000):
        batch.add(message(b"x", rest=b',"_n":%d}' % i))
    assert 0 < len(batch._templates) <= 1024
    batch.add(message(b"y", rest=b',"_n":2999}'))
    assert len(batch._rows) == 1
