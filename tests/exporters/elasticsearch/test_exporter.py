from __future__ import annotations

import asyncio
import logging
import socket
import threading

import pytest

from exporters.elasticsearch.config import ElasticsearchConfig
from exporters.elasticsearch.exporter import ElasticsearchExporter


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL)


@pytest.fixture
def fill(cursor, source, json_block):
    def add(lines: int, sources: int = 1, per_block: int = 50) -> None:
        for number in range(1, sources + 1):
            for start in range(0, lines, per_block):
                size = min(per_block, lines - start)
                block = json_block([b"line %d\n" % (start + i) for i in range(size)], start=start)
                cursor.add(block, source(f"c{number}"), number)

    return add


def settled(counters):
    return counters.created + counters.duplicates + sum(counters.rejected.values())


def test_every_line_once_and_the_cursor_at_the_end(fault_server, exporting, cursor, fill, eventually):
    fill(500, 3)
    with exporting(fault_server.url) as exporter:
        eventually(lambda: cursor.lag() == (0, 0), "the end")
    assert len(fault_server.documents) == 1500
    assert exporter.counters().created == exporter.counters().delivered_lines == 1500
    assert exporter.counters().up


@pytest.mark.parametrize(
    "fault",
    [
        lambda _: (429, {"error": "busy"}),
        lambda _: (503, b"<html>"),
        lambda _: (502, {}),
        lambda _: (401, {"error": "who"}),
        lambda _: (200, b"not json"),
        lambda _: (200, {"errors": False, "items": []}),
        lambda _: "drop",
        lambda pairs: dict.fromkeys(range(0, len(pairs), 2), 429),
        lambda pairs: dict.fromkeys(range(len(pairs)), 503),
        lambda pairs: {0: 500, len(pairs) - 1: 404},
    ],
)
def test_failures_that_pass_lose_nothing(fault_server, exporting, cursor, fill, eventually, fault):
    fill(300)
    fault_server.faults = [fault, fault]
    with exporting(fault_server.url, batch_bytes=3000) as exporter:
        eventually(lambda: cursor.lag() == (0, 0), "the end")
    assert len(fault_server.documents) == 300
    counters = exporter.counters()
    assert settled(counters) == 300
    assert not counters.rejected
    assert counters.failures


def test_only_the_refused_items_are_sent_again(fault_server, exporting, cursor, fill, eventually):
    fill(50)
    fault_server.faults = [lambda _: {3: 429, 7: 503}]
    with exporting(fault_server.url) as exporter:
        eventually(lambda: cursor.lag() == (0, 0), "the end")
    assert fault_server.bulk_sizes == [50, 2]
    assert exporter.counters().retried == 2
    assert exporter.counters().created == 50


def test_a_lost_answer_makes_no_duplicates(fault_server, exporting, cursor, fill, eventually):
    fill(50)
    fault_server.faults = [lambda _: "drop"]
    with exporting(fault_server.url) as exporter:
        eventually(lambda: cursor.lag() == (0, 0), "the end")
    assert len(fault_server.documents) == 50
    assert exporter.counters().duplicates == 50


def test_rejected_documents_are_kept_and_the_others_go_on(fault_server, exporting, cursor, fill, eventually):
    fill(100)
    fault_server.faults = [lambda _: {4: 400, 9: 400}]
    with exporting(fault_server.url) as exporter:
        eventually(lambda: cursor.lag() == (0, 0), "the end")
    assert len(fault_server.documents) == 98
    assert exporter.counters().rejected == {"e400": 2}
    letters = list(exporter.dead_letters.read())
    assert [(x.status, x.type, x.reason) for x in letters] == [(400, "e400", "because")] * 2
    assert '"message":"line 4"' in letters[0].item


def test_dead_letters_can_be_sent_again(fault_server, exporting, cursor, fill, eventually, tmp_path):
    fill(20)
    fault_server.faults = [lambda _: {4: 400, 9: 400, 11: 400}]
    with exporting(fault_server.url):
        eventually(lambda: cursor.lag() == (0, 0), "the end")
    fault_server.faults = [lambda _: None, lambda _: {0: 400}]
    config = ElasticsearchConfig((fault_server.url,), tmp_path / "state")
    exporter = ElasticsearchExporter(config, cursor, "store")
    assert exporter.replay() == (2, 1)
    assert len(list(exporter.dead_letters.read())) == 1
    assert exporter.replay() == (1, 0)
    assert len(fault_server.documents) == 20
    exporter.stop()


def test_too_large_a_request_is_cut(fault_server, exporting, cursor, fill, eventually):
    fill(200)

    def limit(pairs):
        return (413, {}) if len(pairs) > 30 else None

    fault_server.faults = [limit] * 100
    with exporting(fault_server.url) as exporter:
        eventually(lambda: cursor.lag() == (0, 0), "the end")
    assert len(fault_server.documents) == 200
    assert not exporter.counters().rejected


def test_one_document_too_large_is_a_dead_letter(fault_server, exporting, cursor, fill, eventually):
    fill(64)

    def refuse(pairs):
        return (413, {}) if any(document["event"]["sequence"] == 17 for _, document in pairs) else None

    fault_server.faults = [refuse] * 100
    with exporting(fault_server.url) as exporter:
        eventually(lambda: cursor.lag() == (0, 0), "the end")
    assert len(fault_server.documents) == 63
    assert exporter.counters().rejected == {"too_large": 1}


def test_requests_keep_their_limit(fault_server, exporting, cursor, fill, eventually):
    fill(1000, per_block=1000)
    with exporting(fault_server.url, request_bytes=100_000) as exporter:
        eventually(lambda: cursor.lag() == (0, 0), "the end")
    assert exporter.counters().request_bytes / exporter.counters().requests <= 100_000
    assert len(fault_server.documents) == 1000


def test_server_that_is_not_there_yet(exporting, cursor, fill, eventually, fault_server):
    fill(10)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{probe.getsockname()[1]}"
        with exporting(nobody) as exporter:
            eventually(lambda: exporter.counters().failures.get("unreachable", 0) > 3, "failures")
            assert not exporter.counters().up
            assert cursor.position == 0
    with exporting(fault_server.url):
        eventually(lambda: cursor.lag() == (0, 0), "the end")


def test_a_commit_that_fails_is_tried_again(fault_server, exporting, cursor, fill, eventually):
    fill(10)
    cursor.fail_commits = 1
    with exporting(fault_server.url) as exporter:
        eventually(lambda: cursor.lag() == (0, 0), "the end")
    assert exporter.counters().delivered_lines == 10


def test_compression_and_authorization(fault_server, exporting, cursor, fill, eventually):
    fill(10)
    with exporting(fault_server.url, compression="gzip", api_key="abc"):
        eventually(lambda: cursor.lag() == (0, 0), "the end")
    headers = fault_server.headers[-1]
    assert (headers["content-encoding"], headers["authorization"]) == ("gzip", "ApiKey abc")
    assert len(fault_server.documents) == 10


def test_run_ends_when_cancelled_in_the_middle_of_a_request(fault_server, cursor, fill, tmp_path):
    fill(10)
    reached, release = threading.Event(), threading.Event()

    def hang(_):
        reached.set()
        release.wait(30)

    fault_server.faults = [hang]
    config = ElasticsearchConfig((fault_server.url,), tmp_path, request_timeout_seconds=0.5)
    exporter = ElasticsearchExporter(config, cursor, "store")

    async def scenario():
        task = asyncio.create_task(exporter.run())
        await asyncio.to_thread(reached.wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
    release.set()
    assert cursor.position == 0


def test_dead_letter_files_keep_their_limit(fault_server, exporting, cursor, fill, eventually, tmp_path):
    fill(400)
    fault_server.faults = [lambda pairs: dict.fromkeys(range(len(pairs)), 400)] * 100
    with exporting(fault_server.url, batch_bytes=3000, dead_letter_bytes=100_000) as exporter:
        eventually(lambda: cursor.lag() == (0, 0), "the end")
    kept = list(exporter.dead_letters.read())
    assert exporter.counters().dead_letters_dropped + len(kept) == 400
    assert exporter.counters().dead_letters_dropped > 0
    assert sum(path.stat().st_size for path in (tmp_path / "state").iterdir()) <= 100_000
    assert '"message":"line 399"' in kept[-1].item


def test_the_template_is_tried_in_plainer_forms(fault_server, exporting, cursor, fill, eventually):
    fill(1)
    puts = []
    plain_answer = fault_server.answer

    def answer(method, path, body):
        if method == "PUT":
            puts.append(body)
            return (400, {}) if len(puts) < 3 else (200, {})
        return plain_answer(method, path, body)

    fault_server.answer = answer
    with exporting(fault_server.url):
        eventually(lambda: cursor.lag() == (0, 0), "the end")
    assert len(puts) == 3
    assert b'"data_stream":{}' in puts[1]
    assert b'"data_stream":{}' not in puts[2]


def test_ids_stay_the_same_over_a_restart_and_differ_with_the_state(
    fault_server, cursor, fill, tmp_path, eventually
):
    fill(5)
    ids = []
    for state in ("a", "a", "b"):
        cursor.position = 0
        exporter = ElasticsearchExporter(ElasticsearchConfig((fault_server.url,), tmp_path / state), cursor)
        thread = threading.Thread(target=exporter.run_forever)
        thread.start()
        eventually(lambda: cursor.lag() == (0, 0), "the end")
        exporter.stop()
        thread.join()
        ids.append(set(fault_server.documents))
    assert ids[0] == ids[1]
    assert len(ids[2]) == 10
