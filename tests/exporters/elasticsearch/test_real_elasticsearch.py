"""The exporter against a real Elasticsearch."""

from __future__ import annotations

import logging
import uuid

import pytest

from exporters.elasticsearch.bulk import Connection
from exporters.elasticsearch.config import ElasticsearchConfig
from exporters.elasticsearch.outcome import FILTER_PATH

#: The server starts within some minutes on a busy machine.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def stream() -> str:
    return f"logs-taffrail-t{uuid.uuid4().hex[:12]}"


@pytest.fixture
def fill(cursor, source, json_block):
    def add(lines: int, sources: int, per_block: int = 2000) -> None:
        for number in range(1, sources + 1):
            for start in range(0, lines, per_block):
                size = min(per_block, lines - start)
                texts = [b'c%d "line" %d <&> \\ \xc3\xa9\n' % (number, start + i) for i in range(size)]
                cursor.add(json_block(texts, start=start), source(f"c{number}"), number)

    return add


def missing(server, stream: str, sources: int, lines: int) -> list[str]:
    """What is not exactly once in the index: a terms query by the thousand is slow, the counts by range are not."""
    wrong = []
    for number in range(1, sources + 1):
        for start in range(0, lines, 5000):
            query = {
                "bool": {
                    "filter": [
                        {"term": {"container.name": f"c{number}"}},
                        {"range": {"event.sequence": {"gt": start, "lte": start + 5000}}},
                    ]
                }
            }
            hits = server.documents(stream, query)
            found = [(h["_source"]["event"]["sequence"], h["_source"]["message"]) for h in hits]
            expected = [
                (start + i + 1, f'c{number} "line" {start + i} <&> \\ é')
                for i in range(min(5000, lines - start))
            ]
            if found != expected:
                wrong.append(f"c{number} from {start}: {len(found)} of {len(expected)}")
    return wrong


def test_a_hundred_thousand_lines_once(elasticsearch, stream, exporting, cursor, fill, eventually):
    fill(25_000, 4)
    with exporting(elasticsearch.url, data_stream=stream) as exporter:
        eventually(lambda: cursor.lag() == (0, 0), "the end")
    counters = exporter.counters()
    # Where the server gets little of a busy machine, an answer comes too late and its request goes again.
    assert (counters.created + counters.duplicates, counters.rejected) == (100_000, {})
    assert elasticsearch.count(stream) == 100_000
    assert missing(elasticsearch, stream, 4, 25_000) == []
    mapping = elasticsearch.request("GET", f"/{stream}/_mapping")
    (index,) = mapping
    assert index.startswith(f".ds-{stream}-")
    assert mapping[index]["mappings"]["properties"]["@timestamp"]["type"] == "date_nanos"


def test_a_cursor_set_back_changes_nothing(elasticsearch, stream, exporting, cursor, fill, eventually):
    fill(1000, 2)
    with exporting(elasticsearch.url, data_stream=stream):
        eventually(lambda: cursor.lag() == (0, 0), "the end")
    cursor.position = 0
    with exporting(elasticsearch.url, data_stream=stream) as exporter:
        eventually(lambda: cursor.lag() == (0, 0), "the end")
    assert exporter.counters().duplicates == 2000
    assert elasticsearch.count(stream) == 2000


def test_a_poison_document_does_not_stop_the_others(
    elasticsearch, stream, exporting, cursor, source, json_block, eventually, caplog
):
    caplog.set_level(logging.CRITICAL)
    cursor.add(json_block([b"good %d\n" % i for i in range(10)]), source("web"), 1)
    poison = json_block([b"bad\n"]).data.replace(b"2026-11-20T19", b"2026-99-99T99")
    good = json_block([b"a\n"]).data
    block = json_block([b"x\n"] * 3)
    cursor.add(
        type(block)(
            good + poison + good,
            *[getattr(block, f) for f in ("encoding", "stream", "first_ns", "last_ns", "lines")],
        ),
        source("web"),
        1,
    )
    with exporting(elasticsearch.url, data_stream=stream) as exporter:
        eventually(lambda: cursor.lag() == (0, 0), "the end")
    assert elasticsearch.count(stream) == 12
    assert sum(exporter.counters().rejected.values()) == 1
    (letter,) = exporter.dead_letters.read()
    assert letter.status == 400
    assert "@timestamp" in letter.reason


def test_names_with_dots_and_beside_their_prefix(
    elasticsearch, stream, exporting, cursor, source, json_block, eventually
):
    labels = {"a": "1", "a.b": "2", "a.b.c": "3"}
    attrs = [b'"attrs":{"x":"1"},', b'"attrs":{"x.y":"2"},', b'"attrs":{"x":"3","x.y":"4"},']
    for each in attrs:
        cursor.add(json_block([b"t\n"], attrs=each), source(labels=labels), 1)
    with exporting(elasticsearch.url, data_stream=stream) as exporter:
        eventually(lambda: cursor.lag() == (0, 0), "the end")
    assert exporter.counters().rejected == {}
    assert elasticsearch.count(stream) == 3
    hits = elasticsearch.documents(stream, {"term": {"labels.x.y": "4"}})
    assert [hit["_source"]["labels"] for hit in hits] == [{"x": "3", "x.y": "4"}]


def test_a_plain_index(elasticsearch, exporting, cursor, fill, eventually):
    index = f"taffrail{uuid.uuid4().hex[:12]}"
    fill(100, 1)
    with exporting(elasticsearch.url, data_stream=index) as exporter:
        eventually(lambda: cursor.lag() == (0, 0), "the end")
    assert elasticsearch.count(index) == 100
    assert exporter.counters().created == 100


def test_answer_to_new_documents_has_the_form_that_is_not_parsed(elasticsearch, tmp_path):
    connection = Connection(ElasticsearchConfig((elasticsearch.url,), tmp_path))
    body = b'{"create":{}}\n{"message":"a"}\n{"create":{}}\n{"message":"b"}\n'
    answer = connection.bulk(f"taffrail{uuid.uuid4().hex[:12]}", body, FILTER_PATH)
    connection.close()
    created = b'{"create":{"status":201}}'
    assert answer.body == b'{"errors":false,"items":[%b,%b]}' % (created, created)
