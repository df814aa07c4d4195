import pytest

from collector.cgroup.v2.io import parse_stat
from collector.sample import BlockIO


def test_devices_with_keys_only_and_unknown_keys_passed_over() -> None:
    data = b"7:0 \n259:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0 cost.vrate=100.00 cost.usage=9\n"
    assert parse_stat(data) == (BlockIO("259:0", 1, 2, 3, 4, 9e-6),)


def test_what_io_cost_charges_is_in_seconds() -> None:
    (device,) = parse_stat(
        b"259:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0 cost.vrate=99.50 cost.usage=1500000"
        b" cost.wait=2500000 cost.indebt=500000 cost.indelay=750000\n"
    )
    assert device.cost_usage_seconds == 1.5
    assert (device.cost_wait_seconds, device.cost_indebt_seconds, device.cost_indelay_seconds) == (
        2.5,
        0.5,
        0.75,
    )


def test_two_devices_on_one_line_as_some_kernels_print_empty_ones() -> None:
    assert parse_stat(b"254:16 254:0 rbytes=1 wbytes=2 rios=3 wios=4\n") == (BlockIO("254:0", 1, 2, 3, 4),)


def test_a_strange_line_is_named() -> None:
    with pytest.raises(ValueError, match="'nonsense': expected a device number and keys"):
        parse_stat(b"nonsense\n")
