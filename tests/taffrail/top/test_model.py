"""What keys do, and how the screen looks, without a terminal and without an agent."""

from __future__ import annotations

from datetime import datetime

import pytest

from taffrail.top.layout import draw, fit
from taffrail.top.model import LEAP_NS, STEP_NS, Frame, Model
from taffrail.units import parse_moment

HOST = {"id": "/", "name": "thishost", "state": "running", "cpu_percent": 90.0, "time_ns": 1}
ROWS = [
    {
        "id": letter * 64,
        "name": f"web-{letter}",
        "image": "nginx:1",
        "state": "running",
        "cpu_percent": cpu,
        "memory_usage_bytes": 1 << 20,
        "memory_limit_bytes": 1 << 30,
        "pids": 3,
        "time_ns": 1,
    }
    for letter, cpu in (("a", 1.0), ("b", 50.0), ("c", 20.0))
]
NOW = 1_000_000_000_000


@pytest.fixture
def model() -> Model:
    made = Model(clock=lambda: NOW)
    made.take(made.level.subject, Frame(NOW, [*ROWS, HOST], "thishost"))
    made.rows()
    return made


def press(model: Model, *keys: str) -> None:
    for key in keys:
        model.handle(key)


def names(model: Model) -> list[object]:
    return [row["name"] for row in model.rows()]


def test_the_host_is_first_and_then_the_busiest(model: Model) -> None:
    assert names(model) == ["thishost", "web-b", "web-c", "web-a"]
    press(model, "r")
    assert names(model) == ["thishost", "web-a", "web-c", "web-b"]
    press(model, "N")
    assert names(model) == ["thishost", "web-a", "web-b", "web-c"]
    press(model, "N")
    assert names(model) == ["thishost", "web-c", "web-b", "web-a"]
    press(model, ">")
    assert model.level.column == "CPU%"
    press(model, "<", "<")
    assert model.level.column == "IMAGE", "round the end"


def test_the_cursor_stays_on_its_row_when_the_order_changes(model: Model) -> None:
    press(model, "down", "down")
    assert model.level.chosen == "c" * 64
    model.take(model.level.subject, Frame(NOW, [HOST, {**ROWS[2], "cpu_percent": 99.0}, ROWS[0], ROWS[1]]))
    assert names(model)[model.level.cursor] == "web-c"
    press(model, "end", "down", "pagedown")
    assert model.level.cursor == 3
    press(model, "home", "up")
    assert model.level.cursor == 0


def test_down_to_files_and_connections_and_back(model: Model) -> None:
    press(model, "down", "enter")
    assert (model.level.subject.kind, model.level.subject.id) == ("processes", "b" * 64)
    assert model.wanted == 1
    model.take(model.level.subject, Frame(NOW, [{"pid": 7, "name": "nginx", "start_ticks": 99}]))
    press(model, "enter")
    assert (model.level.subject.id, model.level.subject.start_ticks) == ("7", 99)
    press(model, "enter", "f")
    assert model.level.subject.kind == "files"
    press(model, "left", "c")
    assert (model.level.subject.kind, model.level.subject.id) == ("connections", "b" * 64)
    press(model, "c", "f", "enter")
    assert len(model.levels) == 4, "these do nothing there"
    press(model, "backspace", "left", "left", "left", "left")
    assert [level.subject.kind for level in model.levels] == ["containers"]
    assert model.level.chosen == "b" * 64


def test_time_goes_back_and_forward_and_never_beyond_now(model: Model) -> None:
    press(model, "[")
    assert model.paused_ns == NOW - STEP_NS
    press(model, "{")
    assert model.paused_ns == NOW - STEP_NS - LEAP_NS
    press(model, "]")
    assert model.paused_ns == NOW - LEAP_NS
    press(model, "}")
    assert model.paused_ns is None
    press(model, "p")
    assert model.paused_ns == NOW
    assert "PAUSED at" in draw(model, 80, 24, colours=False)[0]
    press(model, " ")
    assert model.paused_ns is None
    assert model.wanted == 6


def test_an_answer_for_another_time_is_not_shown(model: Model) -> None:
    press(model, "[")
    assert "asking" in draw(model, 80, 24, colours=False)[0]
    model.take(model.level.subject, Frame(NOW, [HOST]))
    assert len(names(model)) == 4, "it was under way when another time was chosen"
    model.take(model.level.subject, Frame(NOW - STEP_NS, [HOST], asked_ns=NOW - STEP_NS))
    assert names(model) == ["thishost"]
    assert "asking" not in draw(model, 80, 24, colours=False)[0]


def test_filters(model: Model) -> None:
    press(model, "/", *"WEB-B", "enter")
    assert names(model) == ["thishost", "web-b"], "words are found in any case; the host stays"
    press(model, "/", "ctrl-u", *"cpu > 10 and name:web*", "enter")
    assert names(model) == ["thishost", "web-b", "web-c"]
    press(model, "/", "ctrl-u", *"cpu >", "enter")
    assert len(names(model)) == 4
    assert model.message.startswith("filter: at position 6")
    press(model, "/", "escape")
    assert (len(names(model)), model.message) == (4, "")
    press(model, "/", *"q?")
    assert not model.done
    assert draw(model, 80, 24, colours=False)[-2].startswith("/q?_")


def test_finding_takes_the_cursor_from_the_host_to_what_is_found(model: Model) -> None:
    press(model, "/", *"web-a", "enter", "enter")
    assert (model.level.subject.kind, model.level.subject.id) == ("processes", "a" * 64)


def test_finding_leaves_the_cursor_where_it_was_chosen_and_found_again(model: Model) -> None:
    press(model, "down", "down", "/", *"web", "enter")
    assert model.level.chosen == "c" * 64
    press(model, "/", "ctrl-u", *"nothing", "enter")
    assert names(model) == ["thishost"]
    assert model.level.cursor == 0


def test_how_old_a_process_was_at_the_moment_that_is_shown(model: Model) -> None:
    press(model, "down", "enter")
    row = {"pid": 7, "name": "sh", "cpu_percent": 0.0, "started_ns": NOW - 300 * 10**9}
    model.take(model.level.subject, Frame(NOW, [row]))
    assert draw(model, 120, 24, colours=False)[3].endswith(" 5m")
    press(model, "p", "{")
    then = model.paused_ns
    assert then is not None
    model.take(model.level.subject, Frame(then, [row], asked_ns=then))
    assert draw(model, 120, 24, colours=False)[3].endswith(" 4m")


def test_an_expression_over_processes(model: Model) -> None:
    press(model, "enter")
    rows = [
        {"pid": 1, "name": "sh", "command": "sh", "cpu_percent": 0.0, "resident_bytes": 1 << 20},
        {"pid": 2, "name": "java", "command": "java -jar", "cpu_percent": 99.0, "resident_bytes": 1 << 30},
    ]
    model.take(model.level.subject, Frame(NOW, rows))
    press(model, "/", *"cpu > 2 and memory > 100mb and name:j*", "enter")
    assert names(model) == ["java"]


def test_the_screen_fits_any_size_and_nothing_on_it_drives_the_terminal(model: Model) -> None:
    evil = {**ROWS[0], "id": "e" * 64, "name": "\x1b[2Jevil\u202e\n", "image": "\x9b31m"}
    model.take(model.level.subject, Frame(NOW, [HOST, evil, *ROWS], "this\x1bhost", problem="\x1b]0;x\x07"))
    for width in (1, 10, 40, 80, 81, 132, 250):
        for height in (1, 2, 5, 6, 24, 60):
            lines = draw(model, width, height, colours=False)
            assert len(lines) <= height
            assert all(len(line) <= width for line in lines)
            assert all(character.isprintable() for line in lines for character in line)
    text = "\n".join(draw(model, 132, 24, colours=False))
    assert "\\x1b[2Jevil\\u202e\\x0a" in text
    assert "NAME" in text
    assert ">thishost" in text, "the cursor without colours"


def test_a_terminal_of_80_columns_has_all_that_matters(model: Model) -> None:
    lines = draw(model, 80, 24, colours=False)
    assert lines[2].split() == [
        "NAME",
        "CPU%v",
        "MEM/LIMIT",
        "NET",
        "rx/tx",
        "/s",
        "BLOCK",
        "r/w",
        "/s",
        "PIDS",
        "STATE",
    ]
    assert lines[4].split()[:3] == ["web-b", "50.0", "1MiB/1GiB"]
    assert (
        lines[-1].rstrip()
        == "Enter processes  Left back  / find  < > sort  p pause  []t time  ? help  q quit"
    )
    press(model, "?")
    assert any("5 seconds back" in line for line in draw(model, 80, 24, colours=False))
    press(model, "x")
    assert not model.help


def test_a_long_list_scrolls_with_the_cursor(model: Model) -> None:
    rows = [{**ROWS[0], "id": f"{n:064}", "name": f"n{n:03}", "cpu_percent": 0.0} for n in range(100)]
    model.take(model.level.subject, Frame(NOW, rows))
    draw(model, 80, 24, colours=False)
    press(model, "N", "N", "N", "end")
    lines = draw(model, 80, 24, colours=False)
    assert [line for line in lines if line.startswith(">n099")]
    press(model, "pageup", "pageup", "pageup", "pageup", "pageup", "pageup")
    assert draw(model, 80, 24, colours=False)[3].startswith(">n000")


def test_colours_are_there_only_when_wanted(model: Model) -> None:
    assert "\x1b" not in "".join(draw(model, 80, 24, colours=False))
    assert "\x1b[33m" in "".join(draw(model, 80, 24, colours=True)), "50 % is worth a colour"


@pytest.mark.parametrize(
    ("text", "width", "fitted"),
    [
        ("abc", 5, "abc  "),
        ("abcdef", 4, "abc~"),
        ("\u6f22\u5b57", 4, "\u6f22\u5b57"),
        ("\u6f22\u5b57x", 4, "\u6f22~ "),
        ("a", 0, ""),
    ],
)
def test_fit(text: str, width: int, fitted: str) -> None:
    assert fit(text, width) == fitted


@pytest.mark.parametrize(("text", "seconds_ago"), [("2h", 7200), ("90", 90), ("soon", None), ("", 0)])
def test_t_goes_to_a_time(model: Model, text: str, seconds_ago: int | None) -> None:
    press(model, "t", *text, "enter")
    if seconds_ago is None:
        model.rows()
        assert (model.paused_ns, "is not a time" in model.message) == (None, True)
    else:
        assert model.paused_ns == (NOW - seconds_ago * 1_000_000_000 if seconds_ago else None)
    assert model.level.filter == "", "what was typed is no filter"
    assert model.prompt is None


def test_a_time_of_day_is_the_last_that_has_been() -> None:
    now = datetime(2026, 3, 2, 9, 30, 15).timestamp()
    for text, day, clock in (
        ("03:00", 2, (3, 0, 0)),
        ("9:30:15", 2, (9, 30, 15)),
        ("23:59:59", 1, (23, 59, 59)),
    ):
        there = datetime.fromtimestamp(parse_moment(text, int(now * 1e9)) / 1e9)
        assert (there.day, (there.hour, there.minute, there.second)) == (day, clock)
    with pytest.raises(ValueError, match="'25:00' is not a time of day: hour must be"):
        parse_moment("25:00", int(now * 1e9))


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (90, "90 s"), (922, "15 min"), (17_426, "4 h 50 min"), (266_500, "3 d 2 h")],
)
def test_how_long_ago_is_said_as_people_do(
    model: Model, monkeypatch: pytest.MonkeyPatch, seconds: int, said: str
) -> None:
    press(model, "p")
    assert model.paused_ns is not None
    monkeypatch.setattr("time.time", lambda: NOW / 1e9 + seconds + 0.5)
    assert f", {said} ago" in draw(model, 80, 24, colours=False)[0]
