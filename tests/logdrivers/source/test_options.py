"""Options and labels for what happens at the source: values, precedence, and errors that name what was wrong."""

from __future__ import annotations

import pytest

from logdrivers.driver import OptionError
from logdrivers.registry import BUILTIN, get
from logdrivers.source.multiline import PRESETS
from logdrivers.source.options import Multiline, RateLimit, SourceOptions, parse_source

PREFIX = "taffrail.logs."


def test_nothing_asked_for_is_dockers_behaviour() -> None:
    assert parse_source({"max-size": "1m"}, {"app": "x"}) == SourceOptions(16384, None, None)


def test_all_options() -> None:
    found = parse_source(
        {
            "max-line-size": "1m",
            "multiline": "java",
            "multiline-timeout": "250ms",
            "multiline-max-lines": "1000",
            "multiline-max-size": "64k",
            "rate-limit": "1m",
            "rate-burst": "2m",
            "rate-limit-policy": "wait",
        }
    )
    assert found == SourceOptions(
        1 << 20,
        Multiline(PRESETS["java"], 0.25, 1000, 65536),
        RateLimit(1 << 20, 2 << 20, wait=True),
    )


def test_defaults_of_a_rate_limit() -> None:
    assert parse_source({"rate-limit": "1k"}).rate == RateLimit(1024, 65536)
    assert parse_source({"rate-limit": "3m"}).rate == RateLimit(3 << 20, 3 << 20)


def test_labels_say_the_same_and_options_win() -> None:
    labels = {PREFIX + "max-line-size": "32k", PREFIX + "rate-limit": "1m", "other": "x"}
    assert parse_source({}, labels).max_line == 32768
    assert parse_source({"max-line-size": "64k"}, labels) == SourceOptions(
        65536, None, RateLimit(1 << 20, 1 << 20)
    )
    joined = {PREFIX + "multiline": "python", PREFIX + "multiline-timeout": "2s"}
    found = parse_source({"multiline-start": "^x"}, joined).multiline
    assert found is not None
    assert found.rule is not PRESETS["python"]
    assert found.timeout_seconds == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max-line-size": "0"}, "max-line-size is 0, expected 1k to 1m"),
        ({"max-line-size": "1025k"}, "max-line-size is 1025k, expected 1k to 1m"),
        ({"max-line-size": "big"}, "max-line-size: invalid size: 'big', expected 1k to 1m"),
        (
            {"multiline": "cobol"},
            'multiline is "cobol", expected one of dotnet, go, indented, java, node, python, ruby',
        ),
        (
            {"multiline-start": "("},
            "multiline-start: cannot compile '(': missing ), unterminated subpattern at position 0",
        ),
        (
            {"multiline-start": ""},
            "multiline-start: an empty pattern, expected one that is found in the first line of a message",
        ),
        (
            {"multiline": "java", "multiline-start": "^x"},
            "multiline and multiline-start exclude each other",
        ),
        ({"multiline-timeout": "1s"}, "multiline-timeout needs multiline or multiline-start"),
        ({"multiline": "go", "multiline-timeout": "1h"}, "multiline-timeout is 1h, expected 10ms to 1m"),
        (
            {"multiline": "go", "multiline-timeout": "1"},
            'multiline-timeout: time: missing unit in duration "1", expected 10ms to 1m',
        ),
        ({"multiline": "go", "multiline-max-lines": "1"}, "multiline-max-lines is 1, expected 2 to 10000"),
        ({"multiline": "go", "multiline-max-size": "2m"}, "multiline-max-size is 2m, expected 1k to 1m"),
        ({"rate-limit": "10"}, "rate-limit is 10, expected at least 1k"),
        ({"rate-burst": "1m"}, "rate-burst needs rate-limit"),
        ({"rate-limit": "1m", "rate-burst": "1k"}, "rate-burst is 1k, expected at least 104858"),
        ({"rate-limit": "1k", "rate-burst": "1k"}, "rate-burst is 1k, expected at least 64k"),
        (
            {"rate-limit": "1m", "rate-limit-policy": "block"},
            'rate-limit-policy is "block", expected drop or wait',
        ),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(OptionError) as refused:
        parse_source(options)
    assert str(refused.value) == message
    with pytest.raises(OptionError) as refused:
        parse_source({}, {PREFIX + key: value for key, value in options.items()})
    assert f"label {PREFIX}" in str(refused.value)


def test_a_label_of_an_unknown_option_is_refused() -> None:
    with pytest.raises(
        OptionError, match=r"unknown label 'taffrail\.logs\.multi-line', expected one of max-"
    ):
        parse_source({}, {"taffrail.logs.multi-line": "python"})


@pytest.mark.parametrize("name", BUILTIN)
def test_every_driver_takes_the_options(name: str) -> None:
    needed = {"gelf": {"gelf-address": "udp://127.0.0.1:1"}}
    get(name).validate({"max-line-size": "1m", "multiline": "go", "rate-limit": "1m", **needed.get(name, {})})
