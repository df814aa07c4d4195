"""Signals by the names and numbers that the docker CLI takes."""

from __future__ import annotations

import signal

from runtime.errors import BadRequest

__all__ = ["parse_signal"]


def parse_signal(value: str) -> int:
    """A signal's number from ``9``, ``KILL``, ``SIGKILL`` or ``RTMIN+3``. Raises BadRequest."""
    text = value.strip().upper().removeprefix("SIG")
    if text.isdigit():
        number = int(text)
        if 0 < number < signal.NSIG:
            return number
        raise BadRequest(f"invalid signal: {value}")
    base, sep, offset = text.partition("+")
    if base == "RTMIN" and sep and offset.isdigit():
        number = signal.SIGRTMIN + int(offset)
        if number <= signal.SIGRTMAX:
            return number
    try:
        return int(signal.Signals[f"SIG{text}"])
    except KeyError:
        raise BadRequest(f"invalid signal: {value}") from None
