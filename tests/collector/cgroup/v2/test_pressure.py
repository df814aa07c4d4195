import pytest

from collector.cgroup.v2.pressure import parse_pressure
from collector.sample import Pressure

SOME = b"some avg10=1.00 avg60=2.00 avg300=3.00 total=1500000\n"
FULL = b"full avg10=0.00 avg60=0.00 avg300=0.00 total=250000\n"


def test_totals_in_seconds_and_averages_in_percent() -> None:
    assert parse_pressure(SOME + FULL) == Pressure(1.5, 0.25, 1.0, 0.0)


def test_cpu_pressure_of_old_kernels_has_no_full_line() -> None:
    assert parse_pressure(SOME) == Pressure(1.5, None, 1.0, None)


def test_interrupts_have_a_full_line_alone() -> None:
    assert parse_pressure(FULL) == Pressure(None, 0.25, None, 0.0)


def test_other_text_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a line 'some avg10"):
        parse_pressure(b"full total=1\n")
