import pytest

from taffrail.units import bytes_size, duration_text, human_size, parse_duration, parse_size, parse_time


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0B"), (1023, "1023B"), (1024, "1KiB"), (539_282_637, "514.3MiB"), (1_912_602_624, "1.781GiB")],
)
def test_memory_is_shown_in_dockers_binary_units(value: int, text: str) -> None:
    assert bytes_size(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0B"), (999, "999B"), (1248, "1.25kB"), (656_000, "656kB"), (12_300_000, "12.3MB")],
)
def test_io_is_shown_in_dockers_decimal_units(value: int, text: str) -> None:
    assert human_size(value) == text


@pytest.mark.parametrize(
    ("text", "value"),
    [("0", 0), ("512", 512), ("1k", 1024), ("10GiB", 10 * 1024**3), ("1.5m", 1_572_864), ("2 MB", 2_097_152)],
)
def test_sizes_are_read(text: str, value: int) -> None:
    assert parse_size(text) == value


@pytest.mark.parametrize("text", ["", "ten", "10x", "-1m", "1mm"])
def test_a_size_that_is_none_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size: expected a number"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("10m", 600), ("1h30m", 5400), ("7d", 604_800), ("250ms", 0.25), ("1.5h", 5400)],
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "m", "10 m", "1h-3m", "10q"])
def test_a_duration_that_is_none_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("10m", 1_400_000_000_000_000_000),
        ("1400000000", 1_400_000_000_000_000_000),
        ("1400000000.5", 1_400_000_000_500_000_000),
        ("2014-05-13T16:53:20Z", 1_400_000_000_000_000_000),
        ("2014-05-13T18:53:20.25+02:00", 1_400_000_000_250_000_000),
    ],
)
def test_times_are_read_in_every_form_docker_takes(text: str, ns: int) -> None:
    assert parse_time(text, now=1_400_000_600.0) == ns


def test_a_time_that_is_none_is_named() -> None:
    with pytest.raises(ValueError, match="'yesterday' is not a time"):
        parse_time("yesterday")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (1, "1 s"), (60, "1 min"), (90, "90 s"), (300, "5 min"), (43200, "12 h"), (86400, "1 d")],
)
def test_durations_are_written_in_the_largest_unit_that_keeps_them_whole(seconds: int, text: str) -> None:
    assert duration_text(seconds) == text
