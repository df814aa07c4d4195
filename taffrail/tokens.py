"""Files of tokens: what an agent asks for and what the command line shows."""

from __future__ import annotations

from pathlib import Path

from taffrail.errors import CommandError

__all__ = ["read_tokens"]


def read_tokens(path: str, key: str) -> tuple[str, ...]:
    """The tokens of a file, one a line. Raises CommandError naming ``key`` when it has none or cannot be read."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{key} {path}: {error}") from error
    tokens = tuple(line.strip() for line in lines if line.strip())
    if not tokens:
        raise CommandError(f"{key} {path}: expected a token on a line, the file has none")
    return tokens
