"""Hints are typed as they are printed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from taffrail.invocation import given_options, typed


@pytest.mark.parametrize(
    ("environ", "program", "expected"),
    [
        ({"TAFFRAIL_COMMAND": "./run"}, "/src/.venv/bin/taffrail", "./run"),
        ({"TAFFRAIL_COMMAND": "./run", "SUDO_UID": "1000"}, "/src/.venv/bin/taffrail", "sudo ./run"),
        ({"TAFFRAIL_COMMAND": "my src/run"}, "", "'my src/run'"),
        ({"SUDO_UID": "1000"}, "/src/.venv/bin/nowhere", "sudo /src/.venv/bin/nowhere"),
        ({}, "/usr/lib/taffrail/__main__.py", f"{sys.executable} -m taffrail"),
    ],
)
def test_as_it_was_called(environ: dict[str, str], program: str, expected: str) -> None:
    assert typed([], environ, program) == expected


def test_what_is_on_the_path_needs_no_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "taffrail").write_text("#!/bin/sh\n")
    (tmp_path / "taffrail").chmod(0o755)
    assert typed([], {}, str(tmp_path / "taffrail")) == str(tmp_path / "taffrail")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert typed([], {}, str(tmp_path / "taffrail")) == "taffrail"


def test_options_are_repeated_and_quoted() -> None:
    options = given_options(
        Path("my own.toml"), ["http.address=127.0.0.1:0", "engine.log_opts.tag={{.Name}}"]
    )
    assert typed(options, {"TAFFRAIL_COMMAND": "./run"}) == (
        "./run --config 'my own.toml' --set http.address=127.0.0.1:0 --set 'engine.log_opts.tag={{.Name}}'"
    )
    assert given_options(None, []) == []
