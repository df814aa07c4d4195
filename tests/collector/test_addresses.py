import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from collector.addresses import local_addresses, parse_fib_trie, parse_if_inet6

FIB = """Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 127.0.0.0/8 2 0 2
        |-- 127.0.0.1
           /32 host LOCAL
     +-- 172.17.0.0/16 2 0 2
        |-- 172.17.0.0
           /16 link UNICAST
        |-- 172.17.0.12
           /32 host LOCAL
        |-- 172.17.255.255
           /32 link BROADCAST
     |-- 169.254.1.1
        /32 host LOCAL
     |-- 10.0.0.3
        /24 link UNICAST
        /32 host LOCAL
"""


def test_local_addresses_of_every_table_in_order_and_once() -> None:
    assert parse_fib_trie(FIB + FIB.replace("Main", "Local")) == ("10.0.0.3", "172.17.0.12")
    assert parse_fib_trie("") == ()


def test_ipv6_of_global_scope() -> None:
    text = (
        "00000000000000000000000000000001 01 80 10 80       lo\n"
        "fd000000000000000000000000000002 04 40 00 82     eth0\n"
        "fe8000000000000000fc00fffe000001 04 40 20 80     eth0\n"
    )
    assert parse_if_inet6(text) == ("fd00::2",)


@pytest.fixture
def namespace() -> Iterator[str]:
    name = f"tg{uuid.uuid4().hex[:8]}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    yield name
    subprocess.run(["ip", "netns", "del", name], check=True)


def test_a_real_namespace_tells_its_own(namespace: str) -> None:
    for command in (
        "link add d0 type veth peer name d1",
        "link set d0 up",
        "addr add 198.51.100.7/24 dev d0",
        "addr add fd00:1::7/64 dev d0 nodad",
    ):
        subprocess.run(["ip", "-n", namespace, *command.split()], check=True)
    sleeper = subprocess.Popen(
        ["ip", "netns", "exec", namespace, "sh", "-c", "echo; exec sleep 600"], stdout=-1
    )
    try:
        assert sleeper.stdout is not None
        sleeper.stdout.readline()
        assert local_addresses(Path("/proc"), sleeper.pid) == ("198.51.100.7", "fd00:1::7")
        assert "198.51.100.7" not in local_addresses(Path("/proc"), os.getpid())
    finally:
        sleeper.kill()
        sleeper.communicate()
    with pytest.raises(OSError, match=r"No such|process"):
        local_addresses(Path("/proc"), sleeper.pid)
