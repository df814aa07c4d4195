"""Image layers on disk: each unpacked once, in a directory named by the digest of its uncompressed tar.

``layers/<hex>/diff`` is usable as an overlayfs lower directory. A layer appears by a rename, so a crash
leaves only a temporary directory that the next start removes. Which image uses which layer is ``image``'s.
"""

from __future__ import annotations

import bz2
import hashlib
import io
import logging
import lzma
import shutil
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

import zstandard
from isal import igzip

from runtime.images.extract import ArchiveError, extract

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["Layer", "LayerStore", "decompressed"]

log = logging.getLogger(__name__)

_DRAIN_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Layer:
    """One unpacked layer."""

    diff_id: str  #: ``sha256:…`` of the uncompressed tar stream
    size_bytes: int  #: of its regular files
    path: Path  #: an overlayfs lower directory


class _Rewound(io.RawIOBase):
    """A stream whose first bytes were read already."""

    def __init__(self, head: bytes, rest: IO[bytes]) -> None:
        self.head = head
        self.rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, target: WriteableBuffer) -> int:
        view = memoryview(target).cast("B")
        piece = self.head[: len(view)] or self.rest.read(len(view))
        self.head = self.head[len(piece) :]
        view[: len(piece)] = piece
        return len(piece)


class _Hashing:
    """A stream that keeps the SHA-256 of what went through it."""

    def __init__(self, source: IO[bytes]) -> None:
        self.source = source
        self.sha256 = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        piece = self.source.read(size)
        self.sha256.update(piece)
        return piece


def decompressed(stream: IO[bytes]) -> IO[bytes]:
    """The stream as it is, or through gzip, bzip2, xz or zstd, told by its first bytes."""
    head = b""
    while len(head) < 6 and (piece := stream.read(6 - len(head))):
        head += piece
    whole = cast("IO[bytes]", _Rewound(head, stream))
    if head.startswith(b"\x1f\x8b"):
        return cast("IO[bytes]", igzip.IGzipFile(fileobj=whole, mode="rb"))  # type: ignore[no-untyped-call]
    if head.startswith(b"BZh"):
        return cast("IO[bytes]", bz2.BZ2File(whole))
    if head.startswith(b"\xfd7zXZ\x00"):
        return cast("IO[bytes]", lzma.LZMAFile(whole))
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        return cast("IO[bytes]", zstandard.ZstdDecompressor().stream_reader(whole, read_across_frames=True))
    return whole


class LayerStore:
    """All layers below one directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True, mode=0o710)
        for left in root.glob("tmp-*"):
            log.info("remove %s, left by an interrupted unpack", left)
            shutil.rmtree(left)

    def unpack(self, stream: IO[bytes], expected: str = "") -> Layer:
        """Unpack a (compressed) tar stream. Raises ArchiveError, also if the digest is not ``expected``."""
        temporary = Path(tempfile.mkdtemp(prefix="tmp-", dir=self.root))
        try:
            diff = temporary / "diff"
            diff.mkdir(mode=0o755)
            digest, size = _unpack(stream, diff)
            if expected and digest != expected:
                raise ArchiveError(f"layer verification failed: expected {expected}, got {digest}")
            (temporary / "size").write_text(f"{size}\n")
            temporary.chmod(0o710)
            target = self._directory(digest)
            if not target.exists():
                temporary.rename(target)
            return self.get(digest)
        finally:
            if temporary.exists():
                shutil.rmtree(temporary)

    def get(self, diff_id: str) -> Layer:
        """A layer by its digest. Raises FileNotFoundError."""
        directory = self._directory(diff_id)
        return Layer(diff_id, int((directory / "size").read_text()), directory / "diff")

    def __contains__(self, diff_id: str) -> bool:
        return (self._directory(diff_id) / "size").exists()

    def all(self) -> set[str]:
        """The digests of all layers."""
        return {f"sha256:{entry.name}" for entry in self.root.iterdir() if len(entry.name) == 64}

    def remove(self, diff_id: str) -> None:
        """Remove a layer; nothing happens if it is not there."""
        directory = self._directory(diff_id)
        if directory.exists():
            doomed = self.root / f"tmp-removing-{directory.name}"
            directory.rename(doomed)
            shutil.rmtree(doomed)

    def _directory(self, diff_id: str) -> Path:
        algorithm, _, digits = diff_id.partition(":")
        if algorithm != "sha256" or len(digits) != 64 or digits.strip("0123456789abcdef"):
            raise ArchiveError(f"invalid layer digest {diff_id!r}: expected sha256 and 64 hexadecimal digits")
        return self.root / digits


def _unpack(stream: IO[bytes], diff: Path) -> tuple[str, int]:
    try:
        hashing = _Hashing(decompressed(stream))
        size = extract(cast("IO[bytes]", hashing), diff)
        while hashing.read(_DRAIN_BYTES):
            pass
    except (EOFError, zlib.error, lzma.LZMAError, igzip.BadGzipFile, zstandard.ZstdError) as error:
        raise ArchiveError(f"error reading archive: {error or 'unexpected EOF'}") from error
    return f"sha256:{hashing.sha256.hexdigest()}", size
