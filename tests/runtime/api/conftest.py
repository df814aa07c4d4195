"""Engines for tests that drive the real docker CLI and docker-py."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import docker
import pytest
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
