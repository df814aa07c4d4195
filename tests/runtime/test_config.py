"""Create bodies parsed: types, defaults, and errors that name the field."""

from __future__ import annotations

from typing import Any

import pytest

from runtime.config import ContainerConfig, EndpointConfig, PortBinding, ThrottleDevice, Ulimit
from runtime.errors import BadRequest
from runtime.merge import command_line, merge_image


def test_a_body_as_the_cli_sends_it() -> None:
    body: dict[str, Any] = {
        "Image": "busybox",
        "Cmd": ["sh"],
        "Entrypoint": "/entry",
        "Env": ["A=1"],
        "ExposedPorts": {"80/tcp": {}},
        "Healthcheck": {"Test": ["CMD", "true"], "Interval": 5_000_000_000},
        "StopTimeout": 3,
        "UnknownToAnybody": {"x": 1},
        "HostConfig": {
            "Memory": 200 * 2**20,
            "PidsLimit": None,
            "CapAdd": None,
            "PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "8080"}], "81/tcp": None},
            "Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 2}],
            "BlkioDeviceWriteBps": [{"Path": "/dev/sda", "Rate": 31457280}],
            "LogConfig": {"Type": "gelf", "Config": {"gelf-address": "udp://127.0.0.1:12201"}},
            "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3},
        },
        "NetworkingConfig": {
            "EndpointsConfig": {"n2": {"IPAMConfig": {"IPv4Address": "172.22.16.8"}}, "x": None}
        },
    }
    config = ContainerConfig.from_api(body)
    assert config.entrypoint == ("/entry",)
    assert config.stop_timeout == 3
    assert config.healthcheck is not None
    assert config.healthcheck.interval_ns == 5_000_000_000
    assert config.host.port_bindings == {"80/tcp": (PortBinding("", "8080"),), "81/tcp": ()}
    assert config.host.ulimits == (Ulimit("nofile", 1, 2),)
    assert config.host.blkio_write_bps == (ThrottleDevice("/dev/sda", 31457280),)
    assert config.host.log_config.config == {"gelf-address": "udp://127.0.0.1:12201"}
    assert config.host.restart_policy.maximum_retry_count == 3
    assert config.host.network_mode == "default"
    assert config.networks == {"n2": EndpointConfig(ipv4_address="172.22.16.8"), "x": EndpointConfig()}
    assert config.raw is body


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"Cmd": [1]}, "Cmd: expected an array of strings, got an array"),
        ({"Env": "A=1"}, "Env: expected an array of strings, got the string 'A=1'"),
        ({"Tty": "yes"}, "Tty: expected a boolean, got the string 'yes'"),
        ({"Labels": {"a": 1}}, "Labels.a: expected a string, got the number 1"),
        ({"HostConfig": []}, "HostConfig: expected an object, got an array"),
        (
            {"HostConfig": {"Memory": "1g"}},
            "HostConfig.Memory: expected a 64-bit integer, got the string '1g'",
        ),
        ({"HostConfig": {"Memory": 2**63}}, "HostConfig.Memory: expected a 64-bit integer"),
        ({"HostConfig": {"Memory": True}}, "HostConfig.Memory: expected a 64-bit integer, got a boolean"),
        ({"HostConfig": {"Ulimits": [{"Soft": "x"}]}}, r"HostConfig.Ulimits\[0\].Soft: expected a 64-bit"),
        (
            {"HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": 80}]}}},
            r"HostConfig.PortBindings.80/tcp\[0\].HostPort: expected a string",
        ),
    ],
)
def test_a_wrong_field_is_named(body: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        ContainerConfig.from_api(body)


IMAGE = {
    "Cmd": ["default"],
    "Entrypoint": ["/entry"],
    "Env": ["PATH=/bin", "A=image"],
    "Labels": {"a": "image", "b": "image"},
    "WorkingDir": "/work",
    "User": "web",
    "ExposedPorts": {"80/tcp": {}},
}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, ("/entry", "default")),
        ({"Cmd": ["own"]}, ("/entry", "own")),
        ({"Entrypoint": ["/own"]}, ("/own",)),
        ({"Entrypoint": ["/own"], "Cmd": ["x"]}, ("/own", "x")),
        ({"Entrypoint": [""], "Cmd": ["x"]}, ("x",)),
    ],
)
def test_entrypoint_and_command(body: dict[str, Any], expected: tuple[str, ...]) -> None:
    assert command_line(merge_image(ContainerConfig.from_api(body), IMAGE)) == expected


def test_the_rest_of_the_image_is_merged() -> None:
    body = {"Env": ["A=own", "C=own"], "Labels": {"a": "own"}, "ExposedPorts": {"81/tcp": {}}}
    merged = merge_image(ContainerConfig.from_api(body), IMAGE)
    assert merged.env == ("A=own", "C=own", "PATH=/bin")
    assert merged.labels == {"a": "own", "b": "image"}
    assert merged.exposed_ports == ("81/tcp", "80/tcp")
    assert (merged.working_dir, merged.user) == ("/work", "web")
    with pytest.raises(BadRequest, match="no command specified"):
        merge_image(ContainerConfig.from_api({}), {})
