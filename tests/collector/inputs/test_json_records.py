"""Blocks of records are checked at once where they are large, and what is no record is cut out all the same."""

from __future__ import annotations

import pytest

from collector.inputs.json_records import Checked, check, repair

RECORD = b'{"log":"GET / 200\\n","stream":"stdout","time":"2026-01-02T03:04:05.678901234Z"}\n'
WITH_ATTRS = RECORD.replace(b'"stream"', b'"attrs":{"a":"b"},"stream"')


@pytest.mark.parametrize("count", [1, 100])
@pytest.mark.parametrize("record", [RECORD, WITH_ATTRS])
def test_sound_records_stay_as_they_are(record: bytes, count: int) -> None:
    assert check(record * count) == repair(record * count) == Checked(record * count, count, 0, 0)


@pytest.mark.parametrize("count", [1, 100])
@pytest.mark.parametrize(
    "damage", [b"\0\0\0\0\n", b'{"log":"torn\n', b"no record\n", b"\n", RECORD[:-3] + b"\n"]
)
@pytest.mark.parametrize("place", ["before", "within", "behind"])
def test_what_is_no_record_is_cut_out_and_counted(damage: bytes, place: str, count: int) -> None:
    before = {"before": 0, "within": count // 2, "behind": count}[place]
    data = RECORD * before + damage + RECORD * (count - before)
    expected = Checked(RECORD * count, count, 1, len(damage) - 1 + (damage == b"\n"))
    found = check(data)
    assert found == repair(data)
    assert found[:3] == expected[:3]
