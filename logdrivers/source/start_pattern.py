"""A user's pattern for one line, turned into one that can be run over many lines at once.

Python's patterns know no "never across a line's end": a negated class or ``\\s`` takes the newline too. Here
those are narrowed; a pattern with anything that cannot be is left to be asked line by line.
"""

from __future__ import annotations

import re

__all__ = ["line_pattern"]

_TOKEN = re.compile(r"\\(?:x[0-9a-fA-F]{2}|.)|\[\^?\]?|\(\?(?:P?<?[a-zA-Z=!<:]*|[^)]*\))|.", re.DOTALL)
_NARROW = {"\\s": r"[ \t\r\f\v]", "\\W": r"[^\w\n]", "\\D": r"[^\d\n]"}
_SAFE_GROUPS = frozenset({"(?:", "(?=", "(?!", "(?P<"})
_FLAGS = re.compile(r"\(\?([ai]+)\)")


def line_pattern(pattern: str) -> bytes | None:
    """What, at the beginning of a line in a text (with ``re.MULTILINE``), matches where ``pattern`` is found in it.

    None if that cannot be said so. ``pattern`` compiles.
    """
    flags = ""
    if match := _FLAGS.match(pattern):
        flags, pattern = match[1], pattern[match.end() :]
    narrowed = _narrowed(pattern)
    if narrowed is None:
        return None
    if flags:
        narrowed = f"(?{flags}:{narrowed})"
    anchored = pattern.startswith("^") and "|" not in pattern
    text = narrowed if anchored else rf"[^\n]*?(?:{narrowed})"
    try:
        re.compile(text)
    except re.error:  # a flag in the middle, a group's number
        return None
    return text.encode()


def _narrowed(pattern: str) -> str | None:
    out: list[str] = []
    in_class = negated = False
    at = 0
    while at < len(pattern):
        if in_class:
            token = pattern[at : at + 2] if pattern[at] == "\\" else pattern[at]
            if not _is_plain(token) or (not negated and not _is_narrow(token, out[-1])):
                return None
            in_class = token != "]"
            out.append(r" \t\r\f\v" if token == "\\s" and not negated else token)
        else:
            match = _TOKEN.match(pattern, at)
            assert match is not None
            token = match[0]
            if token.startswith("["):
                in_class, negated = True, token.startswith("[^")
                if negated and pattern[at + len(token) :].startswith("-"):
                    return None  # would become a range
                # A newline is not to be matched; a "]" right behind the bracket is itself.
                out.append({"[^": r"[^\n", "[^]": r"[^\]\n"}.get(token, token))
            elif token.startswith("(?"):
                if not token.startswith(tuple(_SAFE_GROUPS)) or token.startswith("(?P="):
                    return None
                out.append(token)
            elif token in _NARROW:
                out.append(_NARROW[token])
            elif not _is_plain(token):
                return None
            else:
                out.append(token)
        at += len(token)
    return "".join(out)


def _is_narrow(token: str, before: str) -> bool:
    """Whether a token in a class brings no newline into it: a complement or a range from below would."""
    return token not in ("\\W", "\\D") and not (token == "-" and (before == "\\t" or before < " "))


def _is_plain(token: str) -> bool:
    """Whether a token matches no newline, and nothing but what is in its own line."""
    if token == "\n":
        return False
    if not token.startswith("\\"):
        return True
    # Escapes of ASCII letters and digits mean something; these mean nothing beyond the line.
    return not token[1:].isalnum() or token[1] in "dwsSbtrfvWD"
