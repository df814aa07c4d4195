from __future__ import annotations

import orjson
import pytest

from exporters.elasticsearch.outcome import UnexpectedAnswer, classify


def answer(*statuses: int, errors: bool | None = None) -> bytes:
    items = [
        {"create": {"status": s} if s < 300 else {"status": s, "error": {"type": f"e{s}", "reason": "why"}}}
        for s in statuses
    ]
    return orjson.dumps(
        {"errors": any(s >= 300 for s in statuses) if errors is None else errors, "items": items}
    )


def test_all_created():
    assert classify(answer(201, 201), 2).created == 2


def test_every_status_goes_to_one_part():
    result = classify(answer(201, 200, 409, 429, 500, 503, 401, 403, 404, 400, 413), 11)
    assert (result.created, result.duplicates) == (2, 1)
    assert result.retry == [3, 4, 5, 6, 7, 8]
    assert [(r.item, r.status, r.type, r.reason) for r in result.rejected] == [
        (9, 400, "e400", "why"),
        (10, 413, "e413", "why"),
    ]


def test_reason_has_its_cause():
    error = {"type": "t", "reason": "failed to parse", "caused_by": {"type": "x", "reason": "For input"}}
    body = orjson.dumps({"errors": True, "items": [{"create": {"status": 400, "error": error}}]})
    assert classify(body, 1).rejected[0].reason == "failed to parse: For input"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>Bad gateway</html>",
        b"[]",
        b'{"errors":false}',
        b'{"errors":false,"items":[{}]}',
        b'{"errors":false,"items":[{"create":{}}]}',
        b'{"errors":false,"items":null}',
        b'{"errors":false,"items":[{"create":{"status":"created"}},{"create":{"status":201}}]}',
        answer(201),
        answer(201, 201, 201),
    ],
)
def test_answers_that_are_none_count_nothing_as_taken(body):
    with pytest.raises(UnexpectedAnswer, match=r"answer"):
        classify(body, 2)
