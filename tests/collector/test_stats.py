import pytest

from collector.sample import BlockIO, Cpu, Interface, Memory, Sample
from collector.stats import stats_of

MIB = 1 << 20


def sample(
    cpu: float, host: float | None, usage: int = 0, inactive: int = 0, limit: int | None = None
) -> Sample:
    return Sample(
        1,
        Cpu(cpu),
        Memory(usage, usage - inactive, inactive_file_bytes=inactive, limit_bytes=limit),
        host_cpu_seconds=host,
    )


def test_cpu_percent_is_of_one_core_and_may_exceed_100() -> None:
    # two of four cores busy for a second: the host counted four seconds
    stats = stats_of(sample(3.0, 104.0), sample(1.0, 100.0), 4, 0)
    assert stats.cpu_percent == pytest.approx(200.0)


@pytest.mark.parametrize(
    "previous", [None, sample(1.0, None), sample(1.0, 104.0), sample(9.0, 100.0), Sample(0)]
)
def test_cpu_percent_is_0_without_two_good_samples(previous: Sample | None) -> None:
    assert stats_of(sample(3.0, 104.0), previous, 4, 0).cpu_percent == 0.0


def test_cpu_percent_is_never_more_than_all_cpus() -> None:
    # the host's time was read a tenth of a second before the container's
    assert stats_of(sample(3.1, 102.0), sample(1.0, 100.0), 2, 0).cpu_percent == 200.0


def test_what_is_counted_for_nobody_is_none() -> None:
    stats = stats_of(Sample(2, memory=Memory(MIB, MIB)), Sample(1, memory=Memory(MIB, MIB)), 2, 4 * MIB)
    assert (stats.cpu_percent, stats.pids) == (None, None)
    assert (stats.memory_usage_bytes, stats.memory_percent) == (MIB, 25.0)
    stats = stats_of(Sample(2, Cpu(2.0), pids=0, host_cpu_seconds=2.0), None, 2, 4 * MIB)
    assert (stats.cpu_percent, stats.pids) == (0.0, 0)
    assert (stats.memory_usage_bytes, stats.memory_limit_bytes, stats.memory_percent) == (None, None, None)


def test_memory_percent_is_of_unrounded_values() -> None:
    limit, usage = 1912602624, 539282432
    stats = stats_of(sample(0, 0, usage, 0, limit), None, 1, 1 << 40)
    assert stats.memory_percent == usage / limit * 100
    assert f"{stats.memory_percent:.2f}" == "28.20"


def test_inactive_page_cache_is_subtracted_only_when_smaller_than_usage() -> None:
    assert stats_of(sample(0, 0, 10 * MIB, 4 * MIB), None, 1, MIB).memory_usage_bytes == 6 * MIB
    assert stats_of(sample(0, 0, 10 * MIB, 10 * MIB), None, 1, MIB).memory_usage_bytes == 10 * MIB


def test_without_a_limit_or_above_the_host_the_hosts_memory_is_the_limit() -> None:
    for limit in (None, 1 << 50):
        assert stats_of(sample(0, 0, 1, 0, limit), None, 1, 64 * MIB).memory_limit_bytes == 64 * MIB


def test_network_and_blocks_are_sums() -> None:
    full = Sample(
        1,
        block_io=(BlockIO("8:0", 1, 2, 0, 0), BlockIO("8:16", 10, 20, 0, 0)),
        interfaces=(Interface("eth0", 3, 0, 0, 0, 4, 0, 0, 0), Interface("eth1", 30, 0, 0, 0, 40, 0, 0, 0)),
        pids=7,
    )
    stats = stats_of(full, None, 2, 0)
    assert (stats.block_read_bytes, stats.block_write_bytes) == (11, 22)
    assert (stats.net_rx_bytes, stats.net_tx_bytes, stats.pids) == (33, 44, 7)
    assert (stats.memory_limit_bytes, stats.memory_percent) == (None, None)


def test_rates_are_of_the_time_between_two_samples_and_0_after_a_reset() -> None:
    before = Sample(1_000_000_000, block_io=(BlockIO("8:0", 0, 50, 0, 0),), interfaces=())
    now = Sample(
        3_000_000_000,
        block_io=(BlockIO("8:0", 4096, 20, 0, 0),),
        interfaces=(Interface("eth0", 3000, 0, 0, 0, 500, 0, 0, 0),),
    )
    stats = stats_of(now, before, 1, 0)
    assert stats.net_rx_bytes_per_second == 1500.0
    assert stats.net_tx_bytes_per_second == 250.0
    assert stats.block_read_bytes_per_second == 2048.0
    assert stats.block_write_bytes_per_second == 0.0
    assert stats_of(now, None, 1, 0).net_rx_bytes_per_second == 0.0
