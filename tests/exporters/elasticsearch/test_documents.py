from __future__ import annotations

import tracemalloc
from collections.abc import Iterable
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.sink import Source, StoredBlock
from exporters.elasticsearch.documents import Documents, Rendered, split_items
from logdrivers.block import Block, Encoding, Partial, Stream
from logdrivers.codecs import json_file as codec

STREAM = ("logs", "taffrail", "default")


def parse(parts: Iterable[Rendered]) -> list[tuple[str, dict[str, Any]]]:
    """Ids and documents, with a real JSON parser."""
    return [each for part in parts for each in _parse(part)]


def _parse(rendered: Rendered) -> list[tuple[str, dict[str, Any]]]:
    lines = bytes(rendered.body).split(b"\n")
    assert lines.pop() == b""
    assert len(lines) == 2 * rendered.documents
    actions = [orjson.loads(line) for line in lines[::2]]
    assert all(list(action) == ["create"] for action in actions)
    return [(a["create"]["_id"], orjson.loads(d)) for a, d in zip(actions, lines[1::2], strict=True)]


def render(block: Block, source: Source, number: int = 1, first: int = 0, store: str = "s") -> Any:
    return parse(Documents(store, STREAM).render(StoredBlock(block, source, number, first)))


def test_whole_document(source, json_block):
    ((_, document),) = render(json_block([b'say "hi" \\ <&> \xc3\xa9\t\n']), source(), first=41)
    assert document == {
        "message": 'say "hi" \\ <&> é\t',
        "stream": "stdout",
        "@timestamp": "2026-11-20T19:43:32.123456789Z",
        "container": {
            "id": source().container_id,
            "name": "web",
            "image": {"name": "registry:5000/team/app", "tag": ["1.2"]},
            "runtime": "docker",
            "labels": {"com_docker_compose_service": "web", "com_docker_compose_project": "shop"},
        },
        "host": {"name": "host1", "hostname": "host1"},
        "input": {"type": "json-file"},
        "ecs": {"version": "8.11.0"},
        "service": {"name": "web"},
        "data_stream": {"type": "logs", "dataset": "taffrail", "namespace": "default"},
        "event": {"dataset": "taffrail", "sequence": 42},
    }


def test_what_is_not_known_of_a_source_has_no_field():
    line = Block(b"killed\n", Encoding.LINES, Stream.STDERR, 1, 1, 1)
    ((_, of_host),) = render(line, Source("", "", "", "host1", "kernel"))
    assert "container" not in of_host
    assert of_host["host"] == {"name": "host1", "hostname": "host1"}
    ((_, of_sender),) = render(line, Source("", "web", "", "", "gelf"))
    assert of_sender["container"] == {"name": "web"}
    assert "host" not in of_sender


@pytest.mark.parametrize("first", [0, 1, 997, 998, 999, 1000, 1_234_567, 999_990])
def test_numbers_run_on_across_thousands(source, json_block, first):
    found = render(json_block([b"x\n"] * 2500), source(), first=first)
    numbers = [first + 1 + i for i in range(2500)]
    assert [document["event"]["sequence"] for _, document in found] == numbers
    assert [int(id.rpartition("-")[2]) for id, _ in found] == numbers


def test_a_large_block_in_parts(source, json_block):
    texts = [b"%d %s\n" % (number, b"x" * (number % 300)) for number in range(3000)]
    parts = list(Documents("s", STREAM).render(StoredBlock(json_block(texts), source(), 1, 0)))
    assert len(parts) > 5
    found = [document for _, document in parse(parts)]
    assert [d["message"].encode() + b"\n" for d in found] == texts
    assert [d["event"]["sequence"] for d in found] == list(range(1, 3001))


def test_ids_repeat_for_the_same_line_however_blocks_are_cut(source, json_block):
    whole = render(json_block([b"x\n"] * 10), source(), first=5)
    part = render(json_block([b"x\n"] * 4), source(), first=11)
    assert [id for id, _ in whole][6:] == [id for id, _ in part]


def test_ids_differ_by_host_store_source_and_line(source, json_block):
    block = json_block([b"x\n"])
    ids = [
        render(block, source(), 1)[0][0],
        render(block, source(host="host2"), 1)[0][0],
        render(block, source(), 2)[0][0],
        render(block, source(), 1, store="other")[0][0],
        render(block, source(), 1, first=1)[0][0],
    ]
    assert len(set(ids)) == len(ids)


def test_streams_mixed_in_a_block(source, json_block):
    data = b"".join(json_block([b"x\n"], s).data for s in ("stdout", "stderr", "stderr", "stdout"))
    block = Block(data, Encoding.JSON_FILE, Stream.MIXED, 1, 1, 4)
    assert [d["stream"] for _, d in render(block, source())] == ["stdout", "stderr", "stderr", "stdout"]


def json_file_records(texts: list[bytes], times: list[bytes], stream: bytes = b"stdout") -> bytes:
    return b"".join(
        b'{"log":"%s","stream":"%s","time":"%s"}\n' % (codec.escape(text), stream, time)
        for text, time in zip(texts, times, strict=True)
    )


@pytest.mark.parametrize("odd", [b"2026-11-20T19:43:32+01:00", b'2026-11-20T19:43:32Z","more":"x', b""])
def test_times_of_every_length_in_one_block(source, odd):
    """Docker leaves out the zeros at the end of a time; what it never writes goes through unharmed."""
    fractions = [b"", *(b"." + b"123456789"[:digits] for digits in range(1, 10))]
    times = [b"2026-11-20T19:43:32%bZ" % fraction for fraction in fractions] * 30
    for written in (times, [*times, odd]):
        texts = [b"line %d\n" % number for number in range(len(written))]
        data = json_file_records(texts, written)
        found = render(Block(data, Encoding.JSON_FILE, Stream.MIXED, 10**18, 10**18, len(written)), source())
        assert [d["message"].encode() + b"\n" for _, d in found[: len(times)]] == texts[: len(times)]
        assert [d["@timestamp"].encode() for _, d in found[: len(times)]] == times
        assert [d["event"]["sequence"] for _, d in found] == list(range(1, len(written) + 1))


@pytest.mark.parametrize(
    "odd",
    [
        b'{"log":"odd\\n","stream":"stdout","time":"2026-11-20T19:43:32.12345678Z" }\n',
        b'{ "log":"odd\\n","stream":"stdout","time":"2026-11-20T19:43:32.123456789Z"}\n',
        b'{"log":"odd\\n", "stream":"stdout","time":"2026-11-20T19:43:32.123456789Z"}\n',
        b'{"log":"odd\\n","stream":"stdout","time": "2026-11-20T19:43:32.12345678Z"}\n',
    ],
)
@pytest.mark.parametrize("place", [0, 20, 39])
def test_a_record_with_blanks_among_many(source, json_block, odd, place):
    lines = [json_block([b"line %d\n" % number]).data for number in range(39)]
    lines.insert(place, odd)
    found = render(Block(b"".join(lines), Encoding.JSON_FILE, Stream.MIXED, 1, 1, 40), source(), first=100)
    expected = [f"line {number}" for number in range(39)]
    expected.insert(place, "odd")
    assert [d["message"] for _, d in found] == expected
    assert found[place][1]["@timestamp"].startswith("2026-11-20T19:43:32.12345678")


def test_a_record_too_short_for_a_time_of_its_own(source):
    """The time before it lies where its own would, were it as long as Docker's longest."""
    line = b'{"log":"line\\n","stream":"stdout","time":"2026-11-20T19:43:32Z"}\n'
    data = line * 20 + b'{"log":"}\n' + line * 20
    block = Block(data, Encoding.JSON_FILE, Stream.MIXED, 10**18, 10**18, 41)
    found = [d for _, d in render(block, source(), first=100)]
    assert [d["message"] for d in found] == ["line"] * 20 + ['{"log":"}'] + ["line"] * 20
    assert found[20]["tags"] == ["unparsed"]


def test_attributes_as_long_as_the_block_take_no_memory_for_each_record(source, json_block):
    attributes = b'"attrs":{"a":"%b"},' % (b"y" * 60_000)
    data = json_block([b"first\n"], attrs=attributes).data + json_block([b"x\n"] * 900).data
    block = Block(data, Encoding.JSON_FILE, Stream.MIXED, 1, 1, 901)
    tracemalloc.start()
    try:
        found = render(block, source(), first=1000)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [d["message"] for _, d in found] == ["first"] + ["x"] * 900
    assert most < 30 << 20


@pytest.mark.parametrize("first", [0, 80, 996, 999_900, 999_999_999])
def test_one_odd_record_among_many(source, json_block, first):
    """The documents of a block are the same whether its records were rendered together or one by one."""
    texts = [b'%d "\\" \xc3\xa9 <&>\n' % number for number in range(500)]
    streams = ["stderr" if number % 7 == 3 else "stdout" for number in range(500)]
    blocks = [
        json_block([text], stream, b'"attrs":{"a":"b"},') for text, stream in zip(texts, streams, strict=True)
    ]
    whole = Block(b"".join(b.data for b in blocks), Encoding.JSON_FILE, Stream.MIXED, 1, 1, 500)
    together = render(whole, source(), first=first)
    single = [
        each for number, block in enumerate(blocks) for each in render(block, source(), first=first + number)
    ]
    assert together == single
    odd = Block(whole.data + json_block([b"piece"]).data, Encoding.JSON_FILE, Stream.MIXED, 1, 1, 501)
    assert render(odd, source(), first=first)[:500] == single


def test_attributes_become_labels(source, json_block):
    block = json_block([b"a\n", b"b\n"], attrs=b'"attrs":{"tag":"t","time":"x","log":"{\\"y"},')
    for _, document in render(block, source()):
        assert document["labels"] == {"tag": "t", "time": "x", "log": '{"y'}
        assert document["@timestamp"].startswith("2026-11-20T19:43:32.12")


def test_attributes_that_differ_from_record_to_record(source, json_block):
    parts = [json_block([b"a\n"], attrs=b'"attrs":{"n":"%d"},' % n).data for n in range(3)]
    data = b"".join([*parts, json_block([b"plain\n"]).data])
    block = Block(data, Encoding.JSON_FILE, Stream.MIXED, 1, 1, 4)
    found = [d.get("labels") for _, d in render(block, source())]
    assert found == [{"n": "0"}, {"n": "1"}, {"n": "2"}, None]


def test_pieces_of_long_lines_are_flagged(source, json_block):
    found = render(
        json_block([b"x" * 100, b"rest\n", b"literal\\n", b"literal\\n\n", b"\\", b"\\\n"]), source()
    )
    assert [(d["message"][-9:], d.get("log")) for _, d in found] == [
        ("xxxxxxxxx", {"flags": ["partial"]}),
        ("rest", None),
        ("literal\\n", {"flags": ["partial"]}),
        ("literal\\n", None),
        ("\\", {"flags": ["partial"]}),
        ("\\", None),
    ]


def test_lines_block(source):
    data = b'one\ntwo "2"\n\n\xff\n'
    block = Block(
        data, Encoding.LINES, Stream.STDERR, 1_795_203_812_000_000_000, 1_795_203_812_000_000_000, 4
    )
    found = [d for _, d in render(block, source())]
    assert [d["message"] for d in found] == ["one", 'two "2"', "", "\ufffd"]
    assert {d["stream"] for d in found} == {"stderr"}
    assert {d["@timestamp"] for d in found} == {"2026-11-20T19:43:32Z"}


@pytest.mark.parametrize("last", [False, True])
def test_partial_block(source, last):
    piece = Partial("ab" * 32, 2, last)
    block = Block(b"piece", Encoding.LINES, Stream.STDOUT, 10**18, 10**18, 1, piece)
    ((_, document),) = render(block, source())
    assert document["message"] == "piece"
    assert document["partial"] == {"id": "ab" * 32, "ordinal": 2, "last": last}
    assert ("log" in document) is not last


def test_other_orders_of_fields_and_records_that_are_none(source):
    data = (
        b'{"stream":"stderr","log":"a\\u00e9\\n","time":"2026-11-20T19:43:32Z"}\n'
        b"not a record\n"
        b'{"time":"2026-11-20T19:43:33+01:00","log":"b"}\n'
    )
    block = Block(data, Encoding.JSON_FILE, Stream.MIXED, 10**18, 10**18, 3)
    a, none, b = [d for _, d in render(block, source())]
    assert (a["message"], a["stream"], a["@timestamp"]) == ("aé", "stderr", "2026-11-20T19:43:32Z")
    assert (none["message"], none["tags"]) == ("not a record", ["unparsed"])
    assert none["@timestamp"] == "2001-09-09T01:46:40Z"
    assert (b["message"], b["@timestamp"]) == ("b", "2026-11-20T18:43:33Z")


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("busybox", {"name": "busybox"}),
        ("busybox:1", {"name": "busybox", "tag": ["1"]}),
        ("reg:5000/a/b", {"name": "reg:5000/a/b"}),
        ("reg:5000/a/b:c@sha256:ff", {"name": "reg:5000/a/b", "tag": ["c"], "hash": {"all": ["sha256:ff"]}}),
    ],
)
def test_image_names(source, json_block, image, expected):
    ((_, document),) = render(json_block([b"x\n"]), source(image=image))
    assert document["container"]["image"] == expected


def test_a_source_that_takes_another_number_is_rendered_anew(source, json_block):
    documents = Documents("s", STREAM)
    block = json_block([b"x\n"])
    first = parse(documents.render(StoredBlock(block, source("a"), 1, 0)))
    second = parse(documents.render(StoredBlock(block, source("b"), 1, 0)))
    assert [first[0][1]["container"]["name"], second[0][1]["container"]["name"]] == ["a", "b"]


def test_items_of_a_body(source, json_block):
    (rendered,) = Documents("s", STREAM).render(StoredBlock(json_block([b"a\n", b"b\n"]), source(), 1, 0))
    items = split_items(rendered.body)
    assert len(items) == 2
    assert b"".join(items) == rendered.body


texts = st.binary(max_size=40).map(lambda b: b.replace(b"\n", b"")) | st.sampled_from(
    [
        b'","stream":"',
        b'\\n","stream":"stdout","time":"',
        b'"}',
        b'{"log":"',
        b"\\",
        b"\\n",
        b"\\\\n",
        b'"',
        b"",
    ]
)


@settings(max_examples=300, deadline=None)
@given(
    rows=st.lists(st.tuples(texts, st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=8),
    repeat=st.sampled_from([1, 20]),
)
def test_any_text_arrives_as_it_was(source, json_block, rows, repeat):
    data = b"".join(
        json_block(
            [text + (b"\n" if whole else b"")],
            "stdout" if out else "stderr",
            b'"attrs":{"a":"b"},' if attrs else b"",
        ).data
        for text, whole, out, attrs in rows
    )
    rows, data = rows * repeat, data * repeat
    block = Block(data, Encoding.JSON_FILE, Stream.MIXED, 1, 1, len(rows))
    found = [d for _, d in render(block, source())]
    assert [d["message"] for d in found] == [
        codec.unescape(codec.escape(text)).decode() for text, _, _, _ in rows
    ]
    assert [(d["stream"] == "stdout", "labels" in d, "log" not in d) for d in found] == [
        (out, attrs, whole) for _, whole, out, attrs in rows
    ]
