import pytest

from collector.levels import Level, level_of_number, level_of_text
from collector.query import (
    All,
    And,
    Compare,
    Equals,
    Exists,
    Field,
    Node,
    Not,
    Or,
    QueryError,
    Regex,
    Text,
    Wildcard,
    parse,
)

TREES: dict[str, Node] = {
    "": All(),
    "  ": All(),
    "*": All(),
    "word": Text("word"),
    "Straße": Text("Straße"),
    '"timed out"': Text("timed out"),
    '"a \\"b\\" \\\\"': Text('a "b" \\'),
    "time*out": Wildcard(("time", "out")),
    "a**b": Wildcard(("a", "b")),
    "a\\*b": Text("a*b"),
    '"a*b"': Text("a*b"),
    "/a b/": Regex("a b"),
    "/a/i": Regex("a", ignore_case=True),
    "/a\\/b/": Regex("a/b"),
    "/healthz": Text("/healthz"),
    "/api/v1/users": Text("/api/v1/users"),
    "/healthz OR /api/": Or((Text("/healthz"), Regex("api"))),
    "12:30:45": Text("12:30:45"),
    "http://web:80/x": Text("http://web:80/x"),
    "a b": And((Text("a"), Text("b"))),
    "a AND b": And((Text("a"), Text("b"))),
    "a b OR c": Or((And((Text("a"), Text("b"))), Text("c"))),
    "a (b OR c)": And((Text("a"), Or((Text("b"), Text("c"))))),
    "-a": Not(Text("a")),
    "NOT a": Not(Text("a")),
    "NOT -a": Text("a"),
    "-(a b)": Not(And((Text("a"), Text("b")))),
    "a-b": Text("a-b"),
    "-": Text("-"),
    "ORDER": Text("ORDER"),
    '"OR"': Text("OR"),
    "or": Text("or"),
    "container:web": Field("container", Equals("web")),
    "container:web*": Field("container", Wildcard(("web", ""))),
    "container.name:web": Field("container", Equals("web")),
    "driver:gelf": Field("input", Equals("gelf")),
    "image:nginx:1.25": Field("image", Equals("nginx:1.25")),
    "user:*": Field("user", Exists()),
    'user:"*"': Field("user", Equals("*")),
    'user:"a b"': Field("user", Equals("a b")),
    "user:/^a/": Field("user", Regex("^a")),
    "path:/api": Field("path", Equals("/api")),
    "status:404": Field("status", Equals("404")),
    "status:>=500": Field("status", Compare(">=", 500)),
    "duration:<1.5": Field("duration", Compare("<", 1.5)),
    "level:Warning": Field("level", Equals("warn")),
    "level:>=warn": Field("level", Compare(">=", Level.WARN)),
    "level:(error OR warn)": Or((Field("level", Equals("error")), Field("level", Equals("warn")))),
    "label.com.docker.compose.service:db": Field("label.com.docker.compose.service", Equals("db")),
    'label."a b":c': Field("label.a b", Equals("c")),
    'message:"timed out"': Text("timed out"),
    "message:/x/": Regex("x"),
    'container:web* level:error "timed out" -healthz status:>=500': And(
        (
            Field("container", Wildcard(("web", ""))),
            Field("level", Equals("error")),
            Text("timed out"),
            Not(Text("healthz")),
            Field("status", Compare(">=", 500)),
        )
    ),
}


@pytest.mark.parametrize("text", TREES)
def test_a_query_is_read_as_its_tree(text: str) -> None:
    query = parse(text)
    assert query.root == TREES[text]
    assert query.text == text


@pytest.mark.parametrize(
    ("text", "position", "message"),
    [
        ("(a", 0, 'expected a ")" for this "("'),
        ("a)", 1, 'without "("'),
        ('x "abc', 2, 'expected a closing "'),
        ('""', 0, "expected a text between the quotes"),
        ("a OR", 4, "expected a term"),
        ("OR a", 0, "expected a term before OR"),
        ("a AND OR b", 6, "expected a term before OR"),
        ("NOT", 3, "expected a term"),
        ("()", 1, "expected a term"),
        ("status:", 7, "expected a value for the field status"),
        ("status: 5", 7, "expected a value for the field status"),
        ("status:>=", 9, "expected a number to compare status with"),
        ("status:>=high", 9, "expected a number to compare status with"),
        ("status:>=nan", 9, "expected a number to compare status with"),
        ("status:>=5*", 9, "expected a number to compare status with"),
        ("level:eror", 6, "perhaps error"),
        ("level:>=loud", 8, "expected a level, one of trace debug"),
        ("/a(/", 2, "expected a regular expression"),
        ('foo"bar', 3, "expected a space before the quote"),
        ("(" * 65 + "a" + ")" * 65, 64, "nested deeper"),
        ("a" * 8193, 0, "at most 8192"),
    ],
)
def test_an_unreadable_query_names_the_place_and_what_was_expected(
    text: str, position: int, message: str
) -> None:
    with pytest.raises(QueryError) as caught:
        parse(text)
    assert message in str(caught.value)
    assert caught.value.position == position


@pytest.mark.parametrize(
    ("line", "level"),
    [
        (b"2024-01-02 10:00:00 ERROR no route", Level.ERROR),
        (b"[warn] 12#12: low on workers", Level.WARN),
        (b"2024/01/02 10:00:00 [error] 29#29: *1 open()", Level.ERROR),
        (b"error: cannot open", Level.ERROR),
        (b"INFO:root:started", Level.INFO),
        (b"2024-01-02 10:00:00.000 UTC [55] FATAL:  role", Level.CRITICAL),
        (b"no errors found", None),
        (b"in the information desk", None),
        (b'1.2.3.4 - - [x] "GET / HTTP/1.1" 200 5', None),
    ],
)
def test_the_level_of_a_plain_line(line: bytes, level: Level | None) -> None:
    assert level_of_text(line) == level


def test_numeric_levels_are_syslogs_or_nodes() -> None:
    assert level_of_number(3) is Level.ERROR
    assert level_of_number(50) is Level.ERROR
    assert level_of_number(7) is Level.DEBUG
    assert level_of_number(8) is None
