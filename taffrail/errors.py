"""What a command says when it cannot go on."""

from __future__ import annotations

__all__ = ["CommandError"]


class CommandError(Exception):
    """A command cannot go on; the text is for the person who typed it."""
