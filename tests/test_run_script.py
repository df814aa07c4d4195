"""The ``run`` script of a checkout, with the programs that it calls replaced by ones that tell."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

RUN = Path(__file__).parents[1] / "run"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose virtual environment is there, on a machine whose packages are."""
    root = tmp_path / "a checkout"
    (root / ".venv/bin").mkdir(parents=True)
    shutil.copy(RUN, root / "run")
    (root / "pyproject.toml").write_text("")
    (root / ".venv/.installed-run").write_text(hashlib.sha256(b"").hexdigest())
    program(root / ".venv/bin/taffrail", 'echo "$TAFFRAIL_COMMAND|$PWD|$*"')
    (tmp_path / "bin").mkdir()
    program(tmp_path / "bin/dpkg-query", 'echo "$@" >>"$ASKED"; echo installed')
    return root


def program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def call(checkout: Path, *words: str, cwd: Path | None = None) -> tuple[str, bool]:
    """What the command was given, and whether packages were looked for."""
    asked = checkout.parent / "asked"
    asked.unlink(missing_ok=True)
    path = f"{checkout.parent}/bin:{os.environ['PATH']}"
    answer = subprocess.run(
        words,
        cwd=cwd or checkout,
        env=os.environ | {"PATH": path, "ASKED": str(asked)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return answer.stdout.strip(), asked.exists() and "busybox-static" in asked.read_text()


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("up --demo", True),
        ("--config my.toml up", True),
        ("--config=my.toml --set a.b=c engine", True),
        ("--conf my.toml --set a.b=c agent", True),
        ("--version demo", True),
        ("stats up", False),
        ("--config up stats", False),
        ("--set up", False),
        ("--set a=b search up", False),
    ],
)
def test_what_containers_need_is_installed_for_commands_that_run_them(
    checkout: Path, words: str, wanted: bool
) -> None:
    given, looked = call(checkout, "./run", *words.split())
    assert given == f"./run|{checkout}|{words}"
    assert looked == wanted


def test_from_elsewhere_the_command_stays_there(checkout: Path, tmp_path: Path) -> None:
    assert call(checkout, "a checkout/run", "stats", cwd=tmp_path)[0] == f"a checkout/run|{tmp_path}|stats"
    assert call(checkout, "bash", "run", "stats")[0] == f"./run|{checkout}|stats"


def test_without_words_it_says_what_it_does(checkout: Path) -> None:
    assert "./run up --demo" in call(checkout, "./run")[0]
    assert "./run up --demo" in call(checkout, str(checkout / "run"), "--help", cwd=checkout.parent)[0]
