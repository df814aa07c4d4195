"""Image references: ``[host[:port]/]path[:tag][@digest]``, in the familiar and in the full form.

The grammar is the distribution project's documented one; Docker Hub's official images have no ``library/``
in the familiar form. Finding the image behind a reference is left to ``image``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from runtime.errors import BadRequest

__all__ = ["Reference", "parse_reference"]

_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_HOST = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])"
_HOST_PORT = re.compile(rf"{_HOST}(?::[0-9]+)?\Z")
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*\Z")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\Z")
_DIGEST = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}\Z")
_HEX64 = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True, slots=True)
class Reference:
    """A parsed reference. ``name`` is familiar: ``busybox``, ``user/app``, ``registry:5000/app``."""

    name: str
    tag: str = ""
    digest: str = ""

    def __str__(self) -> str:
        return f"{self.name}{':' + self.tag if self.tag else ''}{'@' + self.digest if self.digest else ''}"

    def tagged(self) -> Reference:
        """With the tag ``latest`` where neither tag nor digest was given."""
        return self if self.tag or self.digest else Reference(self.name, "latest")


def parse_reference(text: str) -> Reference:
    """Parse a reference. Raises BadRequest with Docker's words."""
    rest, _, digest = text.partition("@")
    if digest and not _DIGEST.match(digest):
        raise BadRequest("invalid reference format")
    head, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        head, tag = rest, ""
    elif not _TAG.match(tag):
        raise BadRequest("invalid reference format")
    host, slash, path = head.partition("/")
    if not slash or not (any(mark in host for mark in ".:[") or host == "localhost" or host != host.lower()):
        host, path = "", head
    if _HEX64.match(head):
        raise BadRequest(f"invalid repository name ({head}), cannot specify 64-byte hexadecimal strings")
    if host and not _HOST_PORT.match(host):
        raise BadRequest("invalid reference format")
    if not _PATH.match(path):
        if _PATH.match(path.lower()):
            raise BadRequest("invalid reference format: repository name must be lowercase")
        raise BadRequest("invalid reference format")
    if host in ("docker.io", "index.docker.io"):
        host, path = "", path.removeprefix("library/")
    elif not host:
        path = path.removeprefix("library/")
    name = f"{host}/{path}" if host else path
    if len(name) > 255:
        raise BadRequest("invalid reference format: repository name must not be more than 255 characters")
    return Reference(name, tag, digest)
