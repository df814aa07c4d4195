"""Which lines are one message, by preset and by a user's pattern."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logdrivers.source.multiline import PRESETS, Rule, start_rule
from logdrivers.source.start_pattern import line_pattern


def messages(rule: Rule, data: bytes, begin: int = 0) -> list[bytes]:
    """The data cut into messages."""
    out: list[bytes] = []
    here = begin
    for start, end in rule.spans(data, begin, len(data)):
        assert here <= start < end
        out += data[here:start].splitlines(keepends=True)
        out.append(data[start:end])
        here = end
    return out + data[here:].splitlines(keepends=True)


TRACE = b"Traceback (most recent call last):\n  File \"a.py\", line 1, in <module>\n    f()\nKeyError: 'x'\n"
CHAINED = (
    TRACE
    + b"\nDuring handling of the above exception, another exception occurred:\n\n"
    + b'Traceback (most recent call last):\n  File "a.py", line 3, in <module>\nKeyboardInterrupt\n'
)
GROUP = (
    b"  + Exception Group Traceback (most recent call last):\n"
    b'  |   File "x", line 1\n  | ExceptionGroup: a (1 sub-exception)\n'
    b"  +-+---------------- 1 ----------------\n    | ValueError: b\n    +-----------------\n"
)
PANIC = (
    b"panic: runtime error: invalid memory address [recovered]\n\tpanic: again\n"
    b"[signal SIGSEGV: segmentation violation code=0x1]\n\n"
    b"goroutine 1 [running]:\nmain.(*T).foo(0x0, {0x1, 0x2})\n\t/tmp/x.go:10 +0x1d\n"
    b"main.main()\n\t/tmp/x.go:5 +0x20\n\n"
    b"goroutine 5 [select]:\ncreated by main.main in goroutine 1\n\t/tmp/x.go:4 +0x3\nexit status 2\n"
)
JAVA = (
    b'Exception in thread "main" java.lang.RuntimeException: a\n\tat A.b(A.java:1)\n\tat A.c(A.java:2)\n'
    b"\tSuppressed: java.lang.X: y\n\t\tat Q.r(Q.java)\n"
    b"Caused by: java.lang.Foo: z\n\tat B.b(B.java)\n\t... 2 more\n"
)
NODE = b"Error: x\n    at f (a.js:1)\n    at g {\n  code: 'E'\n}\n"
DOTNET = (
    b"Unhandled exception. System.Exception: a\n ---> System.Exception: b\n   at P.Main() in /p.cs:line 3\n"
    b"   --- End of inner exception stack trace ---\n   at P.Main() in /p.cs:line 4\n"
)
RUBY = b"a.rb:1:in `f': x (RuntimeError)\n\tfrom a.rb:3:in `g'\n\tfrom a.rb:5:in `<main>'\n"


@pytest.mark.parametrize(
    ("preset", "message"),
    [
        ("python", TRACE),
        ("python", CHAINED),
        ("python", GROUP),
        ("go", PANIC),
        ("java", JAVA),
        ("node", NODE),
        ("dotnet", DOTNET),
        ("ruby", RUBY),
        ("indented", b"a: 1\n  b: 2\n\tc: 3\n"),
    ],
)
def test_a_trace_is_one_message_wherever_it_stands(preset: str, message: bytes) -> None:
    rule = PRESETS[preset]
    for before in ([], [b"INFO: started\n", b"GET /x (3 ms)\n"]):
        for after in ([], [b"INFO:     127.0.0.1 - ok\n", b"\n", b"GET /x (3 ms)\n"]):
            parts = [*before, message, *after]
            assert messages(rule, b"".join(parts)) == parts
            assert messages(rule, b"xyz" + b"\n" + b"".join(parts), 4) == parts
    assert messages(rule, message + message) == [message, message]
    terminal = [text.replace(b"\n", b"\r\n") for text in (b"before\n", message, b"after\n")]
    assert messages(rule, b"".join(terminal)) == terminal


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_ordinary_lines_are_messages_each(preset: str) -> None:
    lines = [
        b"one\n",
        b"two: x\n",
        b"three (3 ms)\n",
        b"Traceback is a word\n",
        b"no panic: here\n",
        b"four\n",
    ]
    assert messages(PRESETS[preset], b"".join(lines)) == lines


@pytest.mark.parametrize("message", [CHAINED, PANIC])
def test_the_beginning_of_a_longer_message_is_held_whole(message: bytes) -> None:
    """However much of it has been read: a rule that cuts it early would cut it in two."""
    rule = PRESETS["python" if message is CHAINED else "go"]
    lines = message.splitlines(keepends=True)
    for count in range(1, len(lines)):
        part = b"".join(lines[:count])
        assert list(rule.spans(b"x\n" + part, 0, 2 + len(part)))[-1:] == [(2, 2 + len(part))], part


def by_line(pattern: str, lines: list[bytes]) -> list[bytes]:
    """A user's pattern asked line by line: what it means."""
    search = re.compile(pattern.encode()).search
    out: list[bytes] = []
    for line in lines:
        if out and search(line) is None:
            out[-1] += line + b"\n"
        else:
            out.append(line + b"\n")
    return out


PATTERNS = [
    r"^\d{4}-\d\d",
    r"^\S",
    r"^[^ \t]",
    r"^[^\s]",
    r"\[INFO\]|\[WARN\]",
    r"(?i)^info",
    r"^\s*\w+:",
    r"[\sx]a",
    r"\Wa",
    r"a$",
    r"^$|a",
    r"^(?!\s)",
    r"^(?:a|b)",
    r"^[]a]",
    r"^[^]a]",
    r"^[^-a]",
    r"^[\t- ]",
    r"(?<!a)b",
    r"\Ba",
    r"\D\d",
    r"^[\D]",
    r"(a)\1",
    r"[^a]b",
]


def test_common_patterns_are_run_over_whole_reads() -> None:
    for pattern in PATTERNS[:15]:
        assert line_pattern(pattern) is not None, pattern
    for pattern in (r"(?<!a)b", r"^[\t- ]", r"(a)\1", r"a\Z", r"a\nb", r"(?s)a.b"):
        assert line_pattern(pattern) is None, pattern


@settings(deadline=None, max_examples=400)
@given(
    st.sampled_from(PATTERNS),
    st.lists(st.text("ab1: \t-]x\r[INFO]2024", max_size=8).map(str.encode), min_size=1, max_size=8),
)
def test_a_whole_read_gives_what_line_by_line_gives(pattern: str, lines: list[bytes]) -> None:
    data = b"".join(line + b"\n" for line in lines)
    assert messages_of(pattern, data) == by_line(pattern, lines)


def messages_of(pattern: str, data: bytes) -> list[bytes]:
    rule = start_rule(pattern)
    out: list[bytes] = []
    here = 0
    for start, end in rule.spans(data, 0, len(data)):
        out += [line + b"\n" for line in data[here:start].split(b"\n")[:-1]]
        out.append(data[start:end])
        here = end
    return out + [line + b"\n" for line in data[here:].split(b"\n")[:-1]]
