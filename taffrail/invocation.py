"""How this program was called, for hints that can be typed as they are printed."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["COMMAND_VARIABLE", "given_options", "typed"]

#: Set by the ``run`` script of a checkout to the path it was called by.
COMMAND_VARIABLE = "TAFFRAIL_COMMAND"


def given_options(config: Path | None, settings: Sequence[str]) -> list[str]:
    """The words of ``--config`` and ``--set`` as they were given before the command."""
    words = ["--config", str(config)] if config else []
    return words + [word for setting in settings for word in ("--set", setting)]


def typed(options: Sequence[str], environ: Mapping[str, str] | None = None, program: str = "") -> str:
    """The beginning of a command line that calls us again, with these options, quoted for a shell.

    ``program`` is ``sys.argv[0]`` unless given.
    """
    import shlex  # as shutil below: memory that a long-lived process can spare

    environ = os.environ if environ is None else environ
    words = [environ.get(COMMAND_VARIABLE) or "", *options]
    if not words[0]:
        words[:1] = _program(Path(program or sys.argv[0]))
    return shlex.join(["sudo", *words] if "SUDO_UID" in environ else words)


def _program(called: Path) -> list[str]:
    if called.name == "__main__.py":
        return [sys.executable, "-m", "taffrail"]
    import shutil

    found = shutil.which(called.name)
    return [called.name if found and os.path.realpath(found) == os.path.realpath(called) else str(called)]
