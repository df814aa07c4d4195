"""Limits checked with Docker's words, and turned into the OCI spec's resources."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from runtime.config import HostConfig
from runtime.errors import BadRequest
from runtime.oci.limits import Capacity, check_limits, linux_resources

MB = 1 << 20
TWO_CPUS = Capacity(2, frozenset({0, 1}), frozenset({0}), cgroup_v2=False)


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ({"Memory": 5 * MB}, "Minimum memory limit allowed is 6MB"),
        (
            {"Memory": 64 * MB, "MemorySwap": 32 * MB},
            "Minimum memoryswap limit should be larger than memory limit",
        ),
        ({"MemorySwap": 32 * MB}, "You should always set the Memory limit when using Memoryswap limit"),
        ({"MemorySwappiness": 101}, "Invalid value: 101, valid memory swappiness range is 0-100"),
        ({"MemoryReservation": MB}, "Minimum memory reservation allowed is 6MB"),
        ({"Memory": 8 * MB, "MemoryReservation": 9 * MB}, "can not be less than memory reservation limit"),
        (
            {"NanoCpus": 2_500_000_000},
            r"Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available",
        ),
        ({"NanoCpus": 1, "CpuPeriod": 1000}, "Nano CPUs and CPU Period cannot both be set"),
        ({"NanoCpus": 1, "CpuQuota": 1000}, "Nano CPUs and CPU Quota cannot both be set"),
        ({"CpuPeriod": 999}, "CPU cfs period can not be less than 1ms"),
        ({"CpuQuota": 999}, "CPU cfs quota can not be less than 1ms"),
        ({"CpuShares": -1}, "value must be a positive integer"),
        ({"CpusetCpus": "0-5"}, "Requested CPUs are not available - requested 0-5, available: 0-1"),
        ({"CpusetCpus": "a"}, "Invalid value a for cpuset cpus"),
        ({"CpusetMems": "1"}, "Requested memory nodes are not available - requested 1, available: 0"),
        ({"BlkioWeight": 9}, "Range of blkio weight is from 10 to 1000"),
        ({"OomScoreAdj": 1001}, "range for oom score adj is"),
        ({"ShmSize": -1}, "SHM size can not be less than 0"),
        ({"Ulimits": [{"Name": "wings", "Soft": 1, "Hard": 1}]}, "invalid ulimit type: wings"),
        (
            {"Ulimits": [{"Name": "nofile", "Soft": 2, "Hard": 1}]},
            "must be less than or equal to hard limit: 2 > 1",
        ),
    ],
)
def test_refused(host: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        check_limits(HostConfig.from_api(host), TWO_CPUS)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ({}, {}),
        ({"Memory": 200 * MB}, {"memory": {"limit": 200 * MB, "swap": 400 * MB}}),
        ({"Memory": 200 * MB, "MemorySwap": 300 * MB}, {"memory": {"limit": 200 * MB, "swap": 300 * MB}}),
        ({"Memory": 200 * MB, "MemorySwap": -1}, {"memory": {"limit": 200 * MB, "swap": -1}}),
        ({"NanoCpus": 1_500_000_000}, {"cpu": {"quota": 150_000, "period": 100_000}}),
        ({"CpuShares": 512, "CpusetCpus": "0"}, {"cpu": {"shares": 512, "cpus": "0"}}),
        ({"PidsLimit": 100}, {"pids": {"limit": 100}}),
        ({"PidsLimit": -1}, {}),
    ],
)
def test_resources(host: dict[str, Any], expected: dict[str, Any]) -> None:
    checked, warnings = check_limits(HostConfig.from_api(host), TWO_CPUS)
    assert linux_resources(checked) == expected
    assert warnings == []


def test_what_the_kernel_cannot_is_dropped_with_a_warning() -> None:
    poor = replace(TWO_CPUS, swap=False, pids=False, blkio_weight=False)
    host = {"Memory": 64 * MB, "MemorySwap": 128 * MB, "PidsLimit": 5, "BlkioWeight": 500}
    checked, warnings = check_limits(HostConfig.from_api(host), poor)
    assert linux_resources(checked) == {"memory": {"limit": 64 * MB, "swap": -1}}
    assert [text.rpartition(". ")[2] for text in warnings] == [
        "Memory limited without swap.", "PIDs limit discarded.", "Weight discarded.",
    ]  # fmt: skip


def test_throttles_name_real_block_devices() -> None:
    with pytest.raises(BadRequest, match="/dev/nothing: no such file or directory"):
        linux_resources(HostConfig.from_api({"BlkioDeviceWriteBps": [{"Path": "/dev/nothing", "Rate": 1}]}))
    with pytest.raises(BadRequest, match="/dev/null: not a block device"):
        linux_resources(HostConfig.from_api({"BlkioDeviceReadIOps": [{"Path": "/dev/null", "Rate": 1}]}))


def test_this_host_can_limit_memory_and_pids() -> None:
    capacity = Capacity.probe()
    assert capacity.memory
    assert capacity.pids
    assert capacity.cpus >= len(capacity.cpus_available) > 0
