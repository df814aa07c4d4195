"""What is no text is told all the same: a cgroup's name may be any bytes."""

from __future__ import annotations

import orjson
from aiohttp import web

from dashboards.web.answers import json_answer, json_bytes, refusal


def test_a_name_that_is_no_utf8_takes_nobody_elses_answer_away() -> None:
    rows = [{"id": "/x/\udcff", "cpu": 1.5, "none": None, "points": (1, 2)}, {"id": "/y/ä\n"}]
    expected = [{"id": "/x/?", "cpu": 1.5, "none": None, "points": [1, 2]}, {"id": "/y/ä\n"}]
    assert orjson.loads(json_bytes(rows)) == expected
    body = json_answer(rows).body
    assert isinstance(body, bytes)
    assert orjson.loads(body) == expected
    assert (
        refusal(web.HTTPNotFound, "No such container: \udcff").text == '{"message": "No such container: ?"}'
    )
