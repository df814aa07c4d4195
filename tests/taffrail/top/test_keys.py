"""Keys from a terminal's bytes."""

from __future__ import annotations

import pytest

from taffrail.top.keys import KeyDecoder


@pytest.mark.parametrize(
    ("data", "keys"),
    [
        (b"q", ["q"]),
        (b"\x1b[A\x1b[B\x1bOC\x1b[D", ["up", "down", "right", "left"]),
        (b"\r\x7f\x08\x03", ["enter", "backspace", "backspace", "ctrl-c"]),
        (b"\x1b[5~\x1b[6~\x1b[H\x1b[4~", ["pageup", "pagedown", "home", "end"]),
        ("/\u00fc".encode(), ["/", "\u00fc"]),
        (b"\x1b[1;5Ca", ["a"]),
        (b"\x01a", ["a"]),
        (b"\xff\xfe", []),
        (b"\x1b\x1b[A", ["escape", "up"]),
        (b"\x1bq", ["escape", "q"]),
    ],
)
def test_whole_keys(data: bytes, keys: list[str]) -> None:
    assert KeyDecoder().feed(data) == keys


@pytest.mark.parametrize("data", [b"\x1b[A", b"\x1b[5~", "\u20ac".encode()])
def test_a_key_that_comes_in_pieces(data: bytes) -> None:
    whole = KeyDecoder().feed(data)
    for cut in range(1, len(data)):
        decoder = KeyDecoder()
        assert decoder.feed(data[:cut]) == []
        assert decoder.waiting
        assert decoder.feed(data[cut:]) == whole
        assert not decoder.waiting


def test_an_escape_alone_is_a_key_when_nothing_follows() -> None:
    decoder = KeyDecoder()
    assert decoder.feed(b"\x1b") == []
    assert decoder.flush() == ["escape"]
    assert decoder.flush() == []
    assert decoder.feed(b"\x1b[999999999999999999") == [], "no key is that long"
