"""The kernel's table of mounts."""

from __future__ import annotations

import os
from pathlib import Path

from logdrivers.mountinfo import Mount, parse_mountinfo


def test_a_line_of_each_kind() -> None:
    data = (
        b"25 30 0:23 / /sys rw,nosuid - sysfs sysfs rw\n"
        b"36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 shared:2 - ext3 /dev/root rw,errors=continue\n"
        b"40 35 0:40 / /a\\134b\\011c rw - tmpfs \n"
    )
    assert parse_mountinfo(data) == [
        Mount("0:23", "/", "/sys", "sysfs", "sysfs", "rw"),
        Mount("98:0", "/mnt1", "/mnt 2", "ext3", "/dev/root", "rw,errors=continue"),
        Mount("0:40", "/", "/a\\b\tc", "tmpfs", "", ""),
    ]


def test_names_may_be_any_bytes() -> None:
    """A line ends at a newline alone: what else Python takes for one may stand in a name."""
    name = b"/odd\x0c\x1c\xe2\x80\xa8\xff"
    (mount,) = parse_mountinfo(b"40 35 0:40 / " + name + b" rw - tmpfs none rw\n")
    assert os.fsencode(mount.point) == name


def test_what_is_no_mount_is_passed_over() -> None:
    assert parse_mountinfo(b"\nnonsense\n1 2 3 - 4\n") == []


def test_this_hosts() -> None:
    mounts = parse_mountinfo(Path("/proc/self/mountinfo").read_bytes())
    assert {"/", "/proc"} <= {mount.point for mount in mounts}
