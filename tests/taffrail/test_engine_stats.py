"""The Engine API's statistics of containers on a cgroup v2 kernel: what Docker's clients know from Docker."""

from __future__ import annotations

from typing import Any

import pytest

from runtime.stats import Moment, Target, render
from taffrail.engine_stats import CgroupStats, parse_memory_stat
from taffrail.paths import Paths

#: ``memory_stats.stats`` of Docker Engine 20.10 on cgroup v2.
DOCKERS = frozenset(
    """active_anon active_file anon anon_thp file file_dirty file_mapped file_writeback inactive_anon
inactive_file kernel_stack pgactivate pgdeactivate pgfault pglazyfree pglazyfreed pgmajfault pgrefill pgscan pgsteal
shmem slab slab_reclaimable slab_unreclaimable sock thp_collapse_alloc thp_fault_alloc unevictable
workingset_activate workingset_nodereclaim workingset_refault""".split()  # noqa: SIM905
)


@pytest.fixture
def stats(v2_guest: Any) -> Any:
    """The statistics of one of the guest's loads after all of them."""
    roots = v2_guest.roots(1)
    source = CgroupStats(Paths(proc=roots.proc, sys=roots.sys))

    def of(name: str) -> dict[str, Any]:
        target = Target(v2_guest.ids[name], v2_guest.pids[name], v2_guest.cgroups[name], own_network=False)
        return render(v2_guest.ids[name], name, Moment(source.read(target), 1, 1), None, 1 << 30)

    return of


def test_all_of_the_kernels_memory_counters_are_there(v2_guest: Any, stats: Any) -> None:
    told = stats("holder")["memory_stats"]
    assert told["stats"].keys() >= DOCKERS
    assert (
        v2_guest.held_bytes <= told["stats"]["anon"] < told["usage"] < told["limit"] == v2_guest.holder_limit
    )
    assert "failcnt" not in told
    assert "max_usage" not in told


def test_what_failed_is_running_out_of_memory_and_not_hitting_the_limit(stats: Any) -> None:
    assert stats("victim")["memory_stats"]["failcnt"] == 1


def test_no_limit_of_tasks_is_the_largest_number(v2_guest: Any, stats: Any) -> None:
    assert stats("burner")["pids_stats"] == {"current": 1, "limit": 2**64 - 1}
    assert stats("holder")["pids_stats"] == {"current": v2_guest.holder_pids, "limit": 12}


def test_operations_of_devices_are_in_lower_case(v2_guest: Any, stats: Any) -> None:
    table = stats("writer")["blkio_stats"]["io_service_bytes_recursive"]
    assert [(row["op"], row["value"]) for row in table] == [
        ("read", 0),
        ("write", 2 * v2_guest.written_bytes),
    ]


def test_refaults_are_added_up_where_the_kernel_splits_them() -> None:
    refaults = b"workingset_refault_anon 2\nworkingset_refault_file 5\n"
    found = parse_memory_stat(refaults + b"workingset_activate_anon 1\nworkingset_activate_file 0\n")
    assert (found["workingset_refault"], found["workingset_activate"]) == (7, 1)
    assert parse_memory_stat(b"workingset_refault 9\n") == {"workingset_refault": 9}
