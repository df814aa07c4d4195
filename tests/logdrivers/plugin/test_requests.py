"""What a Docker Engine asks for, as values, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from logdrivers.driver import OptionError
from logdrivers.plugin.requests import ReadConfig, RequestError, parse_body, parse_info

INFO: dict[str, Any] = {
    "Config": {"sink": "gelf", "gelf-address": "udp://127.0.0.1:12201", "labels": "app"},
    "ContainerID": "ab" * 32,
    "ContainerName": "/web",
    "ContainerEntrypoint": "sh",
    "ContainerArgs": ["-c", "true"],
    "ContainerImageID": "sha256:1",
    "ContainerImageName": "bb:1",
    "ContainerCreated": "2026-11-20T19:43:32.5Z",
    "ContainerEnv": ["A=1=2", "B="],
    "ContainerLabels": {"app": "x"},
    "LogPath": "",
    "DaemonName": "docker",
}


def test_a_container_and_the_driver_it_wants() -> None:
    wanted = parse_info(INFO, Path("/s"))
    assert wanted.driver == "gelf"
    assert wanted.info.options == {"gelf-address": "udp://127.0.0.1:12201", "labels": "app"}
    assert wanted.info.command == ("sh", "-c", "true")
    assert wanted.info.env == {"A": "1=2", "B": ""}
    assert wanted.info.created_ns == 1_795_203_812_500_000_000
    assert wanted.info.directory == Path("/s") / ("ab" * 32) / "log"


def test_without_a_sink_lines_stay_on_the_host() -> None:
    assert parse_info({**INFO, "Config": None, "ContainerArgs": None}, Path("/s")).driver == "json-file"


@pytest.mark.parametrize("container_id", ["", "../../etc", None, "a/b"])
def test_an_id_that_is_a_path_is_refused(container_id: object) -> None:
    with pytest.raises(RequestError, match="ContainerID"):
        parse_info({**INFO, "ContainerID": container_id}, Path("/s"))


@pytest.mark.parametrize("config", [{"sink": "nothing"}, {"sink": "gelf"}, {"max-size": "-1"}])
def test_options_are_the_drivers_to_refuse(config: dict[str, str]) -> None:
    with pytest.raises(OptionError):
        parse_info({**INFO, "Config": config}, Path("/s"))


def test_what_to_read() -> None:
    zero = "0001-01-01T00:00:00Z"
    assert ReadConfig.parse({"Since": zero, "Until": zero, "Tail": -1, "Follow": False}) == ReadConfig()
    given = {"Since": "2026-11-20T20:43:32.5+01:00", "Until": zero, "Tail": 0, "Follow": True}
    assert ReadConfig.parse(given) == ReadConfig(1_795_203_812_500_000_000, 0, 0, True)
    with pytest.raises(RequestError, match="Since is 'yesterday', expected an RFC 3339 time"):
        ReadConfig.parse({"Since": "yesterday"})


@pytest.mark.parametrize("body", [b"", b"{", b"[]"])
def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(RequestError):
        parse_body(body)
