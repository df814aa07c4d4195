"""Engines for tests that drive the real docker CLI and docker-py."""

from __future__ import annotations

import importlib.util
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest

if "engine_process" not in sys.modules:  # tests are no package, and not on the import path
    _spec = importlib.util.spec_from_file_location(
        "engine_process", Path(__file__).with_name("engine_process.py")
    )
    assert _spec is not None
    assert _spec.loader is not None
    _module = importlib.util.module_from_spec(_spec)
    sys.modules["engine_process"] = _module
    _spec.loader.exec_module(_module)

from engine_process import EngineProcess, running_engine


@pytest.fixture(scope="session")
def shared_engine() -> Iterator[EngineProcess]:
    """One engine for all tests that do not stop or kill it."""
    with running_engine() as engine:
        yield engine


@pytest.fixture
def engine(shared_engine: EngineProcess) -> Iterator[EngineProcess]:
    """The shared engine; a test's containers are removed behind it."""
    yield shared_engine
    shared_engine.remove_all()


@pytest.fixture
def own_engine() -> Iterator[EngineProcess]:
    """An engine that the test may kill."""
    with running_engine() as engine:
        yield engine


@pytest.fixture
def client(engine: EngineProcess) -> Iterator[docker.DockerClient]:
    """docker-py."""
    client = docker.DockerClient(base_url=engine.url, version="auto")
    yield client
    client.close()


@pytest.fixture
def names() -> Callable[[], str]:
    """Container names that no other test uses."""
    return lambda: f"c-{uuid.uuid4().hex[:10]}"
