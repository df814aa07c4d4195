import random

from hypothesis import given, settings
from hypothesis import strategies as st

from collector.segments.chunk import JOINER, OPENER
from collector.segments.sealing import split_records

RECORD = OPENER + b"%b" + JOINER + b'%b","time":"2026-01-31T09:00:00.123456789Z"}\n'


def cut_one_by_one(data: bytes) -> tuple[bytes, bytes] | None:
    """Each line by itself: the message ends with the first joiner."""
    lines = data.split(b"\n")[:-1]
    if not all(line.startswith(OPENER) and JOINER in line for line in lines):
        return None
    pairs = [line[len(OPENER) :].partition(JOINER) for line in lines]
    return b"\n".join([pair[0] for pair in pairs]), b"\n".join([pair[2] for pair in pairs])


@settings(max_examples=300)
@given(st.integers(0, 2**32))
def test_records_are_cut_as_each_would_be_by_itself(seed: int) -> None:
    rng = random.Random(seed)
    parts = [OPENER, JOINER, b"\n", b"\\n", b"{", b'"attrs":{', b"\r", b"\x85", b"x y"]
    records = [
        RECORD % (b"message %d" % n, rng.choice([b"stdout", b"stderr"])) for n in range(rng.randrange(1, 5))
    ]
    data = bytearray(b"".join(records))
    for _ in range(rng.randrange(3)):  # damage
        at = rng.randrange(len(data))
        data[at : at + rng.randrange(20)] = rng.choice(parts)
    whole = bytes(data).removesuffix(b"\n") + b"\n"
    assert split_records(whole, whole.count(b"\n")) == cut_one_by_one(whole)


def test_a_record_with_two_joiners_does_not_stand_in_for_one_without() -> None:
    two = RECORD % (b"a" + JOINER + b"b", b"stdout")
    none = OPENER + b'a piece","stream":"stdout","time":"2026-01-31T09:00:00Z"}\n'
    sound = RECORD % (b"c", b"stdout")
    for data in (two + none, none + two, sound + two + none, two + none + sound, none + sound):
        assert split_records(data, data.count(b"\n")) is None
    assert split_records(two + sound, 2) == cut_one_by_one(two + sound)
