import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector import needs
from collector.classes import class_run, scan_classes
from collector.fields import line_field, line_level
from collector.levels import Level
from collector.matching import for_source, select
from collector.query import Query, Regex, parse
from collector.regex import RegexProcess, spans_lines
from collector.search import Hit, SearchError
from collector.segments.chunk import Line
from collector.store import Store
from logdrivers.block import Block, Encoding, Stream
from logdrivers.codecs import json_file

sys.path.insert(0, str(Path(__file__).parent))
from store_blocks import (
    NOW,
    json_block,
    lines_block,
    open_store,
    piece_block,
    random_block,
    source,
)

ALL_TIME = (0, NOW * 2)


def lines_of(hits: Sequence[Hit]) -> list[bytes]:
    return [hit.line for hit in hits]


def ask(store: Store, text: str, limit: int = 1000, newest_first: bool = True) -> list[Hit]:
    return list(store.search(parse(text), *ALL_TIME, limit, newest_first))


@pytest.fixture(params=["raw", "sealed"])
def store(tmp_path: Path, request: pytest.FixtureRequest):  # type: ignore[no-untyped-def]
    """A store with a little of everything, in either form."""
    made = open_store(tmp_path, segment_bytes=1 << 20)
    web = source("web1", labels={"env": "prod", "com.docker.compose.service": "shop"})
    made.append(
        web,
        json_block(
            [
                b'10.0.0.1 - - [01/May/2024:10:00:00 +0000] "GET /healthz HTTP/1.1" 200 2 "-" "curl/8"',
                b'10.0.0.2 - bob [01/May/2024:10:00:01 +0000] "GET /missing?a=<b> HTTP/1.1" 404 153 "-" "curl/8"',
                b"upstream Timed Out while reading",
                b'{"level":"warn","msg":"slow \\"query\\"","status":503,"http":{"path":"/a/b"},"took":1.25}',
                b'level=error msg="disk full" code=28 user=Zo\xc3\xab',
            ],
            [NOW + i * 1000 for i in range(5)],
        ),
    )
    gelf = source("db1", image="registry:5000/team/postgres:16", input="gelf", container_id="f0" * 32)
    made.append(gelf, json_block([b"connection lost"], [NOW + 10_000], {"level": "3", "pool": "main"}))
    made.append(gelf, json_block([b"connection back"], [NOW + 11_000], {"level": "6", "pool": "main"}))
    made.append(source("job", input="journal"), lines_block([b"ERROR no route", b"done"], NOW + 20_000))
    made.append(
        source("job", input="journal"), piece_block(b"a long line, first piece", 1, False, NOW + 30_000)
    )
    if request.param == "sealed":
        made._rotate()
        made.maintain()
        assert made.counters().sealed_segments == 1
    yield made
    made.close()


ACCESS_200, ACCESS_404 = b"10.0.0.1 ", b"10.0.0.2 "


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ('"timed out"', [b"upstream"]),
        ("TIMED", [b"upstream"]),
        ("timed*reading", [b"upstream"]),
        ("reading*timed", []),
        ("status:404", [ACCESS_404]),
        ("status:>=500", [b'{"level"']),
        ("status:>=200 -healthz", [b'{"level"', ACCESS_404]),
        ("path:/healthz", [ACCESS_200]),
        ("path:/miss*", [ACCESS_404]),
        ("method:get", [ACCESS_404, ACCESS_200]),
        ("http.path:/a/b", [b'{"level"']),
        ("took:>1.2 took:<=1.25", [b'{"level"']),
        ("user:*", [b"level=error", ACCESS_404, ACCESS_200]),
        ("user:Zoë", [b"level=error"]),
        ("ZOË", [b"level=error"]),
        ("code:28", [b"level=error"]),
        ('msg:"disk full"', [b"level=error"]),
        ('msg:"slow \\"query\\""', [b'{"level"']),
        ("level:error", [b"ERROR no", b"connection lost", b"level=error"]),
        ("level:>=warn", [b"ERROR no", b"connection lost", b"level=error", b'{"level"']),
        ("level:info", [b"connection back"]),
        ("level:*arn", [b'{"level"']),
        ("pool:main lost", [b"connection lost"]),
        ("container:web* timed", [b"upstream"]),
        ("container:WEB1 timed", [b"upstream"]),
        ("container:/^(web|db)/ (lost OR timed)", [b"connection lost", b"upstream"]),
        ("image:nginx timed", [b"upstream"]),
        ("image:registry:5000/team/postgres lost", [b"connection lost"]),
        ("image:registry:5000/team/postgres:16 lost", [b"connection lost"]),
        ("id:f0f0f0 lost", [b"connection lost"]),
        ("id:0f0 lost", []),
        ("input:gelf", [b"connection back", b"connection lost"]),
        ("label.env:prod timed", [b"upstream"]),
        ("label.com.docker.compose.service:shop timed", [b"upstream"]),
        ("label.none:*", []),
        ("stream:stderr", [b"a long line"]),
        ("a=<b>", [ACCESS_404]),
        ('"\\"slow"', [b'{"level"']),
        ('"slow \\\\\\"query"', [b'{"level"']),
        ("/time[d] +out/i", [b"upstream"]),
        ("/time[d] +out/", []),
        ("/^ERROR|piece$/", [b"a long line", b"ERROR no"]),
        ('/"GET \\/[hm]/', [ACCESS_404, ACCESS_200]),
        ("/Zo.$/", [b"level=error"]),
        ("-connection -level:>=warn -get", [b"a long line", b"done", b"upstream"]),
        ("(lost OR back) -level:error", [b"connection back"]),
        ("nothing", []),
        ("container:nobody", []),
    ],
)
def test_what_a_query_finds(store: Store, query: str, expected: list[bytes]) -> None:
    found = lines_of(ask(store, query))
    assert [line[: len(start)] for line, start in zip(found, expected, strict=False)] == expected
    assert len(found) == len(expected)


def test_a_hit_tells_whose_line_it_is_and_when(store: Store) -> None:
    (hit,) = ask(store, "lost")
    assert (hit.time_ns, hit.stream, hit.line) == (NOW + 10_000, Stream.STDOUT, b"connection lost")
    assert (hit.source.container_name, hit.line_number) == ("db1", 0)
    assert hit.attrs == {"level": "3", "pool": "main"}


def test_time_bounds_include_the_first_and_exclude_the_last(store: Store) -> None:
    found = store.search(parse("*"), NOW + 1000, NOW + 3000, 10, newest_first=False)
    assert [hit.time_ns for hit in found] == [NOW + 1000, NOW + 2000]


def test_the_limit_stops_and_the_order_turns(store: Store) -> None:
    newest = ask(store, "*", 3)
    assert [hit.time_ns for hit in newest] == [NOW + 30_000, NOW + 20_000, NOW + 20_000]
    assert [hit.line_number for hit in newest] == [2, 1, 0]
    assert ask(store, "*", 100, newest_first=False) == ask(store, "*", 100)[::-1]
    assert ask(store, "*", 0) == []


def test_a_line_is_found_as_soon_as_it_is_appended(store: Store) -> None:
    store.append(source("late"), lines_block([b"just now"], NOW + 99_000))
    assert lines_of(ask(store, '"just now"')) == [b"just now"]


def test_an_expression_that_never_ends_is_given_up_by_name(store: Store) -> None:
    store.append(source("evil"), lines_block([b"a" * 60 + b"b"]))
    with pytest.raises(SearchError, match=r"\(a\+\)\+\$.*limit of 0.5 s.*shorter time range"):
        list(store.search(parse("/(a+)+$/"), *ALL_TIME, 10, time_limit_seconds=0.5))
    assert lines_of(ask(store, "done")) == [b"done"]


def test_the_time_the_caller_takes_does_not_count(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = 0.0
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + taken)
    monkeypatch.setattr("collector.search.time", clock)
    hits = store.search(parse("*"), *ALL_TIME, 10, time_limit_seconds=1000.0)
    next(hits)
    taken = 2000.0
    assert len(list(hits)) == 9


QUERIES = [
    "timed",
    "out",
    "-timed",
    "timed out",
    '"timed out"',
    "timed OR login",
    "(timed OR é) -200",
    "É",
    '"<b>"',
    '"\\"q"',
    "back\\\\slash",
    '"tab\there"',
    "t*d*login",
    "/[0-9]{3}$/",
    "/(?i)error.*(out|get)/",
    "/^get/i",
    "/[^a-z]\\s7/",
    "/\\bq\\b/",
    "/[a-z]{5}y? [0-9]{3}$/",
    "/(?i:l[0o]g[1i]n).[A-Z]/",
    "/[tT]im(ed|er) [^0-9]ut/i",
    "level:error",
    "level:>=warn",
    "team:a*",
    'team:"a b" -error',
    "container:c1 timed",
    "-container:c1 get",
    "stream:stderr",
    "(container:c0 login) OR (container:c2 7)",
    "*",
]


def brute_force(
    lines: list[tuple[str, Line]], query: Query, sources: Sequence[str]
) -> list[tuple[int, str, int]]:
    """Every line that matches, newest first, tested one by one."""
    found = []
    process = RegexProcess(time.monotonic() + 3600)
    for name, line in lines:
        node = for_source(query.root, source(name), process.each)
        if node is not None and select(node, [line], process.each):
            found.append((line.time_ns, name, line.number))
    process.close()
    return sorted(found, key=lambda key: (key[0], sources.index(key[1]), key[2]), reverse=True)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), data=st.data())
def test_search_finds_what_testing_every_line_finds(
    tmp_path_factory: pytest.TempPathFactory, seed: int, data: st.DataObject
) -> None:
    rng = random.Random(seed)
    store = open_store(tmp_path_factory.mktemp("s"), segment_bytes=rng.choice([2000, 20_000]))
    lines: list[tuple[str, Line]] = []
    counts: dict[str, int] = {}
    for number in range(rng.randrange(1, 80)):
        name = f"c{rng.randrange(3)}"
        block = random_block(rng, NOW + rng.randrange(20) * 1000 + number * 100)
        store.append(source(name), block)
        for line in decoded(block):
            lines.append((name, line._replace(number=counts.get(name, 0))))
            counts[name] = counts.get(name, 0) + 1
        if rng.random() < 0.05:
            store.maintain()
    for text in data.draw(st.lists(st.sampled_from(QUERIES), min_size=3, max_size=6)):
        expected = brute_force(lines, parse(text), list(counts))
        found = [(hit.time_ns, hit.source.container_name, hit.line_number) for hit in ask(store, text, 10**6)]
        assert found == expected, text
        limit = rng.randrange(1, 20)
        assert ask(store, text, limit) == ask(store, text, 10**6)[:limit]
    store.close()


def decoded(block: Block) -> list[Line]:
    if block.encoding is Encoding.JSON_FILE:
        return [
            Line(record.time_ns, 0, record.stream, record.log.removesuffix(b"\n"), record.attrs)
            for record in json_file.decode(block.data)
        ]
    texts = [block.data] if block.partial else block.data[:-1].split(b"\n")
    return [Line(block.first_ns, 0, block.stream, text, {}) for text in texts]


@pytest.mark.parametrize(
    ("query", "literals"),
    [
        ("Timed", [{b"timed"}]),
        ('"a<b>c"', [{b"a"}, {b"b"}, {b"c"}]),
        ("one two", [{b"one"}, {b"two"}]),
        ("one OR twelve", [{b"one", b"twelve"}]),
        ("one OR -two", []),
        ("-one", []),
        ("/err(or)? in \\d+ms/", [{b" in "}, {b"err"}, {b"ms"}]),
        ("/(GET|POST) \\/x+/", [{b"get", b"post"}]),
        ("/[45]\\d\\d/", [{b"4", b"5"}]),
        ("/a*/", []),
        ("/(?:abc){2}/", [{b"abc"}]),
        ("/x{0,3}long/", [{b"long"}]),
        ("container:web", []),
        ("code:17x", [{b"code"}, {b"17x"}]),
        ("status:404", [{b"404"}, {b"status", b'" 404'}]),
        ("status:>=500", [{b"status", *(b'" %d' % digit for digit in range(5, 10))}]),
        ("bytes:>=500", []),
    ],
)
def test_what_every_match_must_contain(query: str, literals: list[set[bytes]]) -> None:
    found = {clause.literals for clause in needs.needs(parse(query).root)}
    wanted = {frozenset(map(needs.fold, clause)) for clause in literals}
    assert wanted <= found or wanted == found
    if not literals:
        assert not found


@pytest.mark.parametrize(
    ("pattern", "spans"),
    [("a.*b$", False), ("\\d{3}ms", False), ("[^a]", True), ("\\s", True), ("(?=x)", True), ("(?s).", True)],
)
def test_which_expressions_are_not_run_over_many_lines_at_once(pattern: str, spans: bool) -> None:
    assert spans_lines(Regex(pattern)) is spans


@pytest.mark.parametrize(
    ("pattern", "text", "lines"),
    [
        ("[xyz][0-9]{2}[qj]", b"x1q\nx12q\n\ny99j z", [1, 3]),
        ("[ab]{3}", b"ab\nabb", [1]),
        ("[ab]{2,3}x", b"abx\nax\naabx", [0, 2]),
        ("(?i)[kl]x[0-9]", b"KX1\nkx\nlX2", [0, 2]),
        ("q[0-9]+z[0-9]{2}", b"q12z44\nq1\nz45", [0, 2]),
    ],
)
def test_lines_with_the_right_characters_in_a_row(pattern: str, text: bytes, lines: list[int]) -> None:
    run = class_run(Regex(pattern))
    assert run is not None
    assert scan_classes(text, run) == lines


@pytest.mark.parametrize("pattern", [".*", "[a-z]", "(a|b)", "[^x]{5}", "\\w{3}"])
def test_expressions_whose_characters_are_too_common_to_scan_for(pattern: str) -> None:
    assert class_run(Regex(pattern)) is None


def test_fields_of_a_line() -> None:
    assert line_field(b'{"a.b":1,"a":{"b":2,"c":true},"n":null}', {}, "a.b") == "1"
    assert line_field(b'{"a":{"b":2,"c":true}}', {}, "a.c") == "true"
    assert line_field(b'{"n":null,"l":[1]}', {}, "n") is None
    assert line_field(b'{"l":[1]}', {}, "l") is None
    assert line_field(b'x a=1 b="q \\" r"', {}, "b") == 'q " r'
    assert line_field(b"aa=1", {}, "a") is None
    assert line_field(b"{broken a=7", {"a": "attr"}, "a") == "attr"
    assert line_field(b"{broken a=7", {}, "a") == "7"
    assert line_level(b'{"level":50,"msg":"x"}', {}) is Level.ERROR
    assert line_level(b'{"severity":"WARNING"}', {}) is Level.WARN
    assert line_level(b"plain", {"level": "4"}) is Level.WARN
    assert line_level(b"level=dbg x", {}) is Level.DEBUG
    assert line_level(b"plain", {}) is None
