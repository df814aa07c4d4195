from taffrail.terminal import line_of_hit, visible


def test_what_a_container_prints_cannot_drive_the_terminal() -> None:
    assert visible("a\x1b[2Jb\x07\x9b\u202ec\td") == "a\\x1b[2Jb\\x07\\x9b\\u202ec\td"


def test_a_line_shows_time_container_stream_and_text() -> None:
    hit = {"time_ns": 1_700_000_000_123_456_789, "container": "web", "stream": "stderr", "line": "no\x1b"}
    assert line_of_hit(hit, color=False) == "2023-11-14T22:13:20.123Z web ! no\\x1b\n"
