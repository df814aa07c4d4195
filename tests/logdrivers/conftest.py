"""Fixtures that tests of several drivers use."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def certificate() -> Iterator[Path]:
    """A directory with ``cert.pem`` and ``key.pem`` for 127.0.0.1, their own authority."""
    path = Path(tempfile.mkdtemp(dir="/tmp"))
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-keyout", path / "key.pem", "-out", path / "cert.pem", "-days", "30", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    yield path
    shutil.rmtree(path)


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """The directory of a file system of 128 KiB."""
    directory = Path(tempfile.mkdtemp(prefix="tf-full-", dir="/tmp"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tf-full", directory], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", directory], check=True)
        directory.rmdir()
