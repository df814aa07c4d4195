"""Fixtures that tests of several parts use."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes is for the machine to say.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

#: Seconds for a test in a virtual machine, which has to boot: its CPU is emulated, and this one may be busy.
_EMULATED = 900


def _load(path: str) -> ModuleType:
    """A module at or below this directory, which tests then import by its name: they are not on the import path."""
    name = path.rpartition("/")[2]
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / f"{path}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


_load("held_port")
elasticsearch = _load("elasticsearch_server").elasticsearch
_load("guest_kernel")
v2_guest = _load("qemu_guest").v2_guest
v2_machine = _load("qemu_machine").v2_machine
docker_engine = _load("docker_engine").docker_engine
fluent_logger = _load("fluent_logger_node").fluent_logger
intake = _load("memory_intake").intake
_load("burning_program")
_load("host_archive")
_load("line_receiver")
_load("faulty_sink")
_load("prometheus_server")
_load("remote_write_receivers")
_load("collector/discovery/live")
_load("collector/discovery/cri")
_load("collector/discovery/host_tree")
_load("collector/inputs/stream_client")
_load("conformance/journal_forms")
_load("logdrivers/plugin/sink_receiver")
_load("logdrivers/sinks/http_server")
_load("runtime/api/engine_process")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite the files under tests/golden")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        names = getattr(item, "fixturenames", ())
        if {"v2_guest", "v2_machine"} & set(names) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(_EMULATED))


@pytest.fixture
def golden(request: pytest.FixtureRequest):
    """Compare bytes with a file under tests/golden, or rewrite it: ``golden("name", data)``."""

    def compare(name: str, data: bytes) -> None:
        path = Path(__file__).parent / "golden" / name
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        assert data.decode() == path.read_bytes().decode(), f"{name}: --update-golden rewrites it"

    return compare


@pytest.fixture(scope="session")
def localhost_certificate() -> Iterator[Path]:
    """A directory with ``cert`` and ``key`` in PEM for the name localhost, their own authority."""
    directory = Path(tempfile.mkdtemp(dir="/tmp"))
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
         "-keyout", directory / "key", "-out", directory / "cert"],
        check=True, capture_output=True,
    )  # fmt: skip
    yield directory
    shutil.rmtree(directory)
