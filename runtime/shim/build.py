"""Which build of shims and log drivers a process was started from, so that an engine knows a template of another.

A template lives on when new code is installed, and forks shims of the old. What is done about that is the
business of ``runtime/shim/template_client.py``.
"""

from __future__ import annotations

import hashlib
import logging
import sys
from pathlib import Path

__all__ = ["fingerprint"]

log = logging.getLogger(__name__)

_PLACE = Path(__file__).resolve().parents[2]
#: What shims consist of.
_PACKAGES = ("logdrivers", "runtime/oci", "runtime/shim")


def fingerprint(place: Path = _PLACE) -> str:
    """Sixteen hexadecimal digits over interpreter and sources: names and contents, not times.

    A file that cannot be read counts by its name; it is logged.
    """
    digest = hashlib.blake2b(sys.version.encode(), digest_size=8)
    for package in _PACKAGES:
        for path in sorted((place / package).rglob("*.py")):
            digest.update(b"\0" + str(path.relative_to(place)).encode() + b"\0")
            try:
                digest.update(path.read_bytes())
            except OSError as error:
                log.warning("read %s for the fingerprint of this build: %s", path, error)
    return digest.hexdigest()
