"""File systems that hang hold nobody up."""

from __future__ import annotations

import os
import threading
import time

from collector.host.probe import Probe

SIZES = os.statvfs("/")


class Mounts:
    """Stands for the kernel: paths in ``hung`` do not return before they are let go."""

    def __init__(self, *hung: str) -> None:
        self.gates = {path: threading.Event() for path in hung}
        self.asked: list[str] = []

    def statvfs(self, path: str) -> os.statvfs_result:
        self.asked.append(path)
        if path in self.gates:
            self.gates[path].wait(60)
        return SIZES


def test_the_others_are_answered_while_one_hangs_and_it_is_not_asked_again() -> None:
    mounts = Mounts("/nfs")
    probe = Probe(mounts.statvfs, seconds=1.0, total_seconds=60)
    assert probe.ask(["/", "/nfs", "/home"]) == {"/": SIZES, "/nfs": None, "/home": SIZES}
    assert probe.hanging == {"/nfs"}
    assert probe.ask(["/nfs", "/home"]) == {"/nfs": None, "/home": SIZES}
    assert mounts.asked.count("/nfs") == 1
    mounts.gates["/nfs"].set()
    deadline = time.monotonic() + 60
    while probe.hanging:
        assert time.monotonic() < deadline, "the mount that answered is still called hanging"
        time.sleep(0.01)
    assert probe.ask(["/nfs"]) == {"/nfs": SIZES}


def test_every_hanging_mount_has_a_thread_and_there_are_only_so_many() -> None:
    paths = [f"/nfs{number}" for number in range(6)]
    mounts = Mounts(*paths)
    probe = Probe(mounts.statvfs, seconds=0.5, total_seconds=60, max_hanging=3)
    try:
        assert probe.ask(paths) == dict.fromkeys(paths)
        assert len(probe.hanging) == 3
        assert probe.ask([*paths, "/"]) == dict.fromkeys([*paths, "/"])
        assert len(mounts.asked) == 3
    finally:
        for gate in mounts.gates.values():
            gate.set()


def test_an_error_is_an_answer() -> None:
    def refuse(path: str) -> os.statvfs_result:
        raise PermissionError(13, "Permission denied", path)

    answer = Probe(refuse, seconds=60).ask(["/x"])["/x"]
    assert isinstance(answer, PermissionError)
