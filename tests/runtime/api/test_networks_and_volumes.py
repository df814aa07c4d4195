"""Networks, volumes and binds with the real docker CLI."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from engine_process import IMAGE, EngineProcess, random_subnet

Names = Callable[[], str]


@pytest.fixture
def network(engine: EngineProcess, names: Names) -> Iterator[tuple[str, str]]:
    """A user-defined network: its name and the first three numbers of its subnet."""
    name, subnet = names(), random_subnet()
    engine.docker("network", "create", "--subnet", f"{subnet}.0/24", "--gateway", f"{subnet}.1", name)
    yield name, subnet
    engine.remove_all()
    engine.docker("network", "rm", name)


def test_a_fixed_address_on_a_network_with_a_subnet(engine: EngineProcess, network: tuple[str, str]) -> None:
    name, subnet = network
    shown = engine.docker(
        "run", "--rm", "--network", name, "--ip", f"{subnet}.8", IMAGE, "ip", "-4", "addr"
    ).out
    assert f"inet {subnet}.8/24" in shown


def test_a_fixed_address_without_a_subnet_is_refused(engine: EngineProcess, names: Names) -> None:
    name = names()
    engine.docker("network", "create", name)
    try:
        refused = engine.docker(
            "run", "--rm", "--network", name, "--ip", "172.22.16.8", IMAGE, "true", check=False
        )
        assert refused.code == 125
        assert "user configured subnets" in refused.err
    finally:
        engine.docker("network", "rm", name)


def test_connect_and_disconnect_a_running_container(
    engine: EngineProcess, names: Names, network: tuple[str, str]
) -> None:
    name = names()
    other, subnet = network
    engine.docker("run", "-d", "--name", name, IMAGE, "sleep", "1000")
    engine.docker("network", "connect", "--ip", f"{subnet}.9", other, name)
    assert f"inet {subnet}.9/24" in engine.docker("exec", name, "ip", "addr", "show", "eth1").out
    assert (
        engine.inspect(name, f'{{{{(index .NetworkSettings.Networks "{other}").IPAddress}}}}')
        == f"{subnet}.9"
    )
    assert name in engine.docker("network", "inspect", other).out
    refused = engine.docker("network", "rm", other, check=False)
    assert "has active endpoints" in refused.err
    engine.docker("restart", "-t", "0", name)
    assert f"inet {subnet}.9/24" in engine.docker("exec", name, "ip", "addr", "show", "eth1").out
    engine.docker("network", "disconnect", other, name)
    assert engine.docker("exec", name, "ip", "addr", "show", "eth1", check=False).code == 1


def test_an_unknown_network_is_named(engine: EngineProcess) -> None:
    refused = engine.docker("run", "--rm", "--network", "nosuch", IMAGE, "true", check=False)
    assert refused.code == 125
    assert "network nosuch not found" in refused.err


def test_binds_and_volumes(engine: EngineProcess, names: Names, tmp_path: Path) -> None:
    volume = names()
    (tmp_path / "in").write_text("from the host\n")
    bind = f"{tmp_path}:/data:ro"
    assert engine.docker("run", "--rm", "-v", bind, IMAGE, "cat", "/data/in").out == "from the host\n"
    assert engine.docker("run", "--rm", "-v", bind, IMAGE, "touch", "/data/x", check=False).code == 1
    engine.docker("volume", "create", "--label", "a=b", volume)
    engine.docker("run", "--rm", "-v", f"{volume}:/v", IMAGE, "sh", "-c", "echo kept > /v/f")
    assert engine.docker("run", "--rm", "-v", f"{volume}:/v", IMAGE, "cat", "/v/f").out == "kept\n"
    assert volume in engine.docker("volume", "ls", "-q", "--filter", "label=a=b").lines
    engine.docker("create", "-v", f"{volume}:/v", IMAGE)
    assert "volume is in use" in engine.docker("volume", "rm", volume, check=False).err
    engine.remove_all()
    engine.docker("volume", "rm", volume)
    assert "no such volume" in engine.docker("volume", "inspect", volume, check=False).err


def test_anonymous_volumes_go_with_their_container(engine: EngineProcess, names: Names) -> None:
    name = names()
    engine.docker("create", "--name", name, "-v", "/data", IMAGE)
    volume = engine.inspect(name, "{{(index .Mounts 0).Name}}")
    assert volume in engine.docker("volume", "ls", "-q").lines
    engine.docker("rm", "-v", name)
    assert volume not in engine.docker("volume", "ls", "-q").lines


def test_volumes_from_another_container(engine: EngineProcess, names: Names) -> None:
    name = names()
    engine.docker("run", "--name", name, "-v", "/data", IMAGE, "sh", "-c", "echo shared > /data/f")
    assert engine.docker("run", "--rm", "--volumes-from", name, IMAGE, "cat", "/data/f").out == "shared\n"
