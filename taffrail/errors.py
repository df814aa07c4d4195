"""What a command says when it cannot go on."""

from __future__ import annotations

__all__ = ["CommandError", "UsageError"]


class CommandError(Exception):
    """A command cannot go on; the text is for the person who typed it."""


class UsageError(CommandError):
    """What was typed cannot be read: exit status 2."""
