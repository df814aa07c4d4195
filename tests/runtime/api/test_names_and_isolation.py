"""Names, isolation and privilege with the real docker CLI."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from engine_process import IMAGE, EngineProcess, random_subnet

Names = Callable[[], str]


@pytest.fixture
def network(engine: EngineProcess, names: Names) -> Iterator[str]:
    name = names()
    engine.docker("network", "create", "--subnet", f"{random_subnet()}.0/24", name)
    yield name
    engine.remove_all()
    engine.docker("network", "rm", name)


def test_names_on_a_user_defined_network_and_not_on_the_default_bridge(
    engine: EngineProcess, names: Names, network: str
) -> None:
    web, plain = names(), names()
    engine.docker(
        "run", "-d", "--name", web, "--network", network, "--network-alias", "www", IMAGE, "sleep", "99"
    )
    address = engine.inspect(web, f'{{{{(index .NetworkSettings.Networks "{network}").IPAddress}}}}')
    for name in (web, "www"):
        found = engine.docker("run", "--rm", "--network", network, IMAGE, "ping", "-c", "1", name).out
        assert f"PING {name} ({address})" in found
    engine.docker("run", "-d", "--name", plain, IMAGE, "sleep", "99")
    lost = engine.docker("run", "--rm", "--dns", "127.0.0.1", IMAGE, "ping", "-c", "1", plain, check=False)
    assert lost.code == 1


def test_a_privileged_container_says_so_and_may_mount(engine: EngineProcess, names: Names) -> None:
    name = names()
    done = engine.docker("run", "--name", name, "--privileged", IMAGE, "mount", "-t", "tmpfs", "none", "/tmp")
    assert done.code == 0
    assert engine.inspect(name, "{{ .HostConfig.Privileged }}") == "true"
    refused = engine.docker("run", "--rm", IMAGE, "mount", "-t", "tmpfs", "none", "/tmp", check=False)
    assert refused.code != 0
