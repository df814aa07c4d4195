"""Log options: values and refusals in Docker's words."""

from __future__ import annotations

from pathlib import Path

import pytest

from logdrivers.driver import Info, OptionError
from logdrivers.options import (
    check_known,
    extra_attributes,
    parse_bool,
    parse_bytes_binary,
    parse_bytes_decimal,
    parse_duration,
)


@pytest.mark.parametrize(
    ("text", "decimal", "binary"),
    [
        ("0", 0, 0),
        ("32", 32, 32),
        ("32b", 32, 32),
        ("32 B", 32, 32),
        ("10k", 10_000, 10_240),
        ("10K", 10_000, 10_240),
        ("10kb", 10_000, 10_240),
        ("10KiB", 10_000, 10_240),
        ("1m", 1_000_000, 1_048_576),
        ("1.5g", 1_500_000_000, 1_610_612_736),
        (".5k", 500, 512),
        ("2 tb", 2_000_000_000_000, 2_199_023_255_552),
        ("1p", 10**15, 2**50),
    ],
)
def test_sizes_follow_go_units(text: str, decimal: int, binary: int) -> None:
    assert parse_bytes_decimal(text) == decimal
    assert parse_bytes_binary(text) == binary


@pytest.mark.parametrize("text", ["", "k", "-1", "1..2", "1 2", " 1", "1  k", "a1"])
def test_a_size_without_a_number_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match=f"invalid size: '{text}'"):
        parse_bytes_decimal(text)


@pytest.mark.parametrize(("text", "suffix"), [("1x", "x"), ("1kx", "kx"), ("1kbb", "kbb"), ("1bi", "bi")])
def test_an_unknown_suffix_is_named(text: str, suffix: str) -> None:
    with pytest.raises(OptionError, match=f"^invalid suffix: '{suffix}'$"):
        parse_bytes_binary(text)


def test_flags_are_gos_words() -> None:
    assert [parse_bool(w) for w in ("1", "t", "T", "TRUE", "true", "True")] == [True] * 6
    assert [parse_bool(w) for w in ("0", "f", "F", "FALSE", "false", "False")] == [False] * 6
    for word in ("", "yes", "tRUE", "on"):
        with pytest.raises(OptionError, match=f'^strconv.ParseBool: parsing "{word}": invalid syntax$'):
            parse_bool(word)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("1s", 1.0),
        ("100ms", 0.1),
        ("1m30s", 90.0),
        ("1h2m3.5s", 3723.5),
        ("-2s", -2.0),
        ("+2s", 2.0),
        ("5us", 5e-6),
        ("5µs", 5e-6),
        ("7ns", 7e-9),
        (".5s", 0.5),
    ],
)
def test_durations_are_gos(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", 'time: invalid duration ""'),
        ("s", 'time: invalid duration "s"'),
        ("-", 'time: invalid duration "-"'),
        ("3", 'time: missing unit in duration "3"'),
        ("1m3", 'time: missing unit in duration "1m3"'),
        ("3d", 'time: unknown unit "d" in duration "3d"'),
        ("1s 2s", 'time: unknown unit "s " in duration "1s 2s"'),
        ("9999999999h", 'time: invalid duration "9999999999h"'),
    ],
)
def test_a_bad_duration_is_refused_in_gos_words(text: str, message: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse_duration(text)
    assert str(caught.value) == message


def test_unknown_options_are_named_the_way_each_driver_does() -> None:
    with pytest.raises(OptionError, match=r"^unknown log opt 'x' for fluentd log driver$"):
        check_known("fluentd", {"tag": "t", "x": "1"}, {"tag"})
    with pytest.raises(OptionError, match=r'^unknown log opt "x" for gelf log driver$'):
        check_known("gelf", {"x": "1"}, set())
    check_known("gelf", {"mode": "blocking", "cache-max-size": "1m"}, set())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "fast"}, "logger: logging mode not supported: fast"),
        (
            {"max-buffer-size": "1m"},
            "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
        ),
        (
            {"mode": "non-blocking", "max-buffer-size": "x"},
            "error parsing option max-buffer-size: invalid size: 'x'",
        ),
        ({"cache-disabled": "x"}, "invalid value for option cache-disabled: x"),
    ],
)
def test_options_of_every_driver(options: dict[str, str], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        check_known("json-file", options, set())
    assert str(caught.value) == message


def info(**options: str) -> Info:
    return Info(
        "1" * 64,
        "/web",
        "sha256:" + "2" * 64,
        "busybox",
        ("sh",),
        0,
        Path("/nonexistent"),
        options={name.replace("_", "-"): value for name, value in options.items()},
        labels={"app": "shop", "both": "label", "com.example.team": "blue"},
        env={"PATH": "/bin", "both": "env", "TEAM": "red"},
    )


def test_attributes_asked_for_by_name_and_the_variable_wins() -> None:
    assert extra_attributes(info(labels="app,absent,both", env="both,TEAM")) == {
        "app": "shop",
        "both": "env",
        "TEAM": "red",
    }


def test_attributes_asked_for_by_pattern() -> None:
    assert extra_attributes(info(labels_regex=r"^com\.", env_regex="^TE")) == {
        "com.example.team": "blue",
        "TEAM": "red",
    }
    assert extra_attributes(info()) == {}


def test_a_pattern_that_does_not_compile_is_named() -> None:
    with pytest.raises(OptionError, match="labels-regex: cannot compile"):
        extra_attributes(info(labels_regex="("))
