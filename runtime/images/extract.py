"""Unpacking a layer's tar stream into a directory, so that overlayfs can use it as a lower layer.

Nothing in an archive can reach outside the directory: the parent of every name is opened with
openat2(RESOLVE_IN_ROOT), where links and ``..`` end at the root as in a chroot, and the last component is
never followed. Whiteouts (``.wh.name``, ``.wh..wh..opq``; OCI image spec, layer.md) become what overlayfs
understands. Digests and decompression are left to ``layers``.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import tarfile
from collections import OrderedDict
from pathlib import Path
from typing import IO, Self

from runtime.errors import BadRequest
from runtime.images.inroot import open_in_root

__all__ = ["ArchiveError", "extract"]

log = logging.getLogger(__name__)

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_METADATA = ".wh..wh."  # AUFS's own files, of no meaning to others
_COPY_BYTES = 1 << 20
_OPEN_DIRECTORIES = 64
_DEEPEST = 256
_XATTR = "SCHILY.xattr."
# overlayfs's own attributes could make a lower layer point anywhere: they never come from an archive.
_REFUSED_XATTRS = ("trusted.overlay.", "user.overlay.")


class ArchiveError(BadRequest):
    """The archive is damaged or holds something that cannot be unpacked."""


class _StrictInfo(tarfile.TarInfo):
    """A damaged header in the middle is an error; tarfile alone would take it for the end."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.HeaderError as error:
            if type(error).__name__ in ("InvalidHeaderError", "TruncatedHeaderError"):
                raise tarfile.ReadError(str(error)) from error
            raise


def extract(stream: IO[bytes], directory: Path) -> int:
    """Unpack an uncompressed tar stream; return the bytes of its regular files (Docker's layer size).

    Reads to the end of the archive, not of the stream. Raises ArchiveError for a damaged archive, OSError
    when the file system refuses.
    """
    root_fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    unpacking = _Unpacking(root_fd)
    try:
        with tarfile.open(fileobj=stream, mode="r|", tarinfo=_StrictInfo) as archive:
            for member in archive:
                unpacking.member(archive, member)
        unpacking.directory_times()
    except tarfile.TarError as error:
        raise ArchiveError(f"error reading archive: {error}") from error
    except (ValueError, OverflowError) as error:  # impossible times, owners, device numbers, names
        raise ArchiveError(f"error reading archive: {error}") from error
    finally:
        unpacking.close()
        os.close(root_fd)
    return unpacking.size_bytes


class _Unpacking:
    """State of one extraction: open parent directories, and directory times to set at the end."""

    def __init__(self, root_fd: int) -> None:
        self.root_fd = root_fd
        self.size_bytes = 0
        self.parents: OrderedDict[str, int] = OrderedDict()
        self.times: dict[str, tuple[int, int]] = {}

    def close(self) -> None:
        for fd in self.parents.values():
            os.close(fd)
        self.parents.clear()

    def member(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        path = _normal(member.name)
        parent, _, name = path.rpartition("/")
        if name in ("", "."):
            if member.isdir():
                self._attributes(self._directory(""), ".", "", member)
            return
        if "\0" in path:
            raise ArchiveError(f"archive member {member.name!r}: name holds a zero byte")
        if name.startswith(_WHITEOUT):
            self._whiteout(parent, name)
            return
        if member.isdir():
            self._make_directory(self._directory(parent), name, path)
        else:
            self._clear(self._directory(parent), name, path)
            self._make_leaf(archive, member, self._directory(parent), name)
        if not member.islnk():  # a hard link shares the inode that has its attributes already
            self._attributes(self._directory(parent), name, path, member)

    def _directory(self, path: str) -> int:
        """The descriptor of a directory below the root, made (0755) if it is not there."""
        fd = self.parents.get(path)
        if fd is not None:
            self.parents.move_to_end(path)
            return fd
        try:
            fd = open_in_root(self.root_fd, path, os.O_DIRECTORY | os.O_RDONLY)
        except (FileNotFoundError, NotADirectoryError):
            fd = self._make_missing(path)
        self.parents[path] = fd
        if len(self.parents) > _OPEN_DIRECTORIES:
            os.close(self.parents.popitem(last=False)[1])
        return fd

    def _make_missing(self, path: str) -> int:
        parent, _, name = path.rpartition("/")
        parent_fd = self._directory(parent)
        try:
            os.mkdir(name, 0o755, dir_fd=parent_fd)
        except FileExistsError as error:
            raise ArchiveError(f"archive path {path!r}: not a directory") from error
        return os.open(name, os.O_DIRECTORY | os.O_NOFOLLOW | os.O_RDONLY | os.O_CLOEXEC, dir_fd=parent_fd)

    def _clear(self, fd: int, name: str, path: str) -> bool:
        """Remove what stands at a name; True if it was a whiteout."""
        try:
            found = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        if stat.S_ISDIR(found.st_mode) or stat.S_ISLNK(found.st_mode):
            self.close()  # kept descriptors may lead through it
            fd = self._directory(path.rpartition("/")[0])
        if stat.S_ISDIR(found.st_mode):
            _remove_tree(fd, name)
        else:
            os.unlink(name, dir_fd=fd)
        return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0

    def _make_directory(self, fd: int, name: str, path: str) -> None:
        try:
            os.mkdir(name, 0o755, dir_fd=fd)
        except FileExistsError:
            found = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode):
                return
            whiteout = self._clear(fd, name, path)
            os.mkdir(name, 0o755, dir_fd=fd)
            if whiteout:
                self._opaque(path)

    def _make_leaf(self, archive: tarfile.TarFile, member: tarfile.TarInfo, fd: int, name: str) -> None:
        """Make anything but a directory at a name where nothing stands."""
        if member.isreg():
            self._make_file(archive, member, fd, name)
        elif member.islnk():
            self._make_link(member, fd, name)
        elif member.issym():
            os.symlink(member.linkname, name, dir_fd=fd)
        elif member.isfifo():
            os.mkfifo(name, 0o600, dir_fd=fd)
        elif member.ischr() or member.isblk():
            kind = stat.S_IFCHR if member.ischr() else stat.S_IFBLK
            os.mknod(name, kind | 0o600, os.makedev(member.devmajor, member.devminor), dir_fd=fd)
        else:
            raise ArchiveError(f"archive member {member.name!r}: unknown type {member.type!r}")

    def _make_file(self, archive: tarfile.TarFile, member: tarfile.TarInfo, fd: int, name: str) -> None:
        source = archive.extractfile(member)
        if source is None:
            raise ArchiveError(f"archive member {member.name!r}: no content")
        file = os.open(
            name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=fd
        )
        with open(file, "wb", buffering=0) as target:
            left = member.size
            while left:
                piece = source.read(min(left, _COPY_BYTES))
                if not piece:
                    raise ArchiveError(
                        f"archive member {member.name!r}: unexpected EOF, {left} bytes missing"
                    )
                target.write(piece)
                left -= len(piece)
        self.size_bytes += member.size

    def _make_link(self, member: tarfile.TarInfo, fd: int, name: str) -> None:
        parent, _, target = _normal(member.linkname).rpartition("/")
        try:
            source = open_in_root(self.root_fd, parent, os.O_PATH | os.O_DIRECTORY)
            try:
                os.link(target, name, src_dir_fd=source, dst_dir_fd=fd, follow_symlinks=False)
            finally:
                os.close(source)
        except OSError as error:
            raise ArchiveError(
                f"archive member {member.name!r}: hard link to {member.linkname!r}: {error.strerror}"
            ) from error

    def _whiteout(self, parent: str, name: str) -> None:
        if name == _OPAQUE:
            self._directory(parent)
            self._opaque(parent)
            return
        if name.startswith(_METADATA):
            return
        hidden = name.removeprefix(_WHITEOUT)
        if hidden in ("", ".", ".."):
            raise ArchiveError(f"invalid whiteout {name!r} in the archive")
        try:
            os.mknod(hidden, stat.S_IFCHR | 0o600, os.makedev(0, 0), dir_fd=self._directory(parent))
        except FileExistsError:
            return  # the same layer brings the name anew: its own entry hides the lower one

    def _opaque(self, path: str) -> None:
        os.setxattr(self._directory(path), "trusted.overlay.opaque", b"y")

    def _attributes(self, fd: int, name: str, path: str, member: tarfile.TarInfo) -> None:
        """Owner, mode, extended attributes and times; the owner first, as chown clears the others."""
        os.chown(name, member.uid, member.gid, dir_fd=fd, follow_symlinks=False)
        if not member.issym():
            os.chmod(name, member.mode & 0o7777, dir_fd=fd)
        for key, value in member.pax_headers.items():
            if key.startswith(_XATTR):
                _set_xattr(fd, name, key.removeprefix(_XATTR), value)
        times = (int(member.mtime * 1_000_000_000),) * 2
        if member.isdir():
            self.times[path] = times
        else:
            os.utime(name, ns=times, dir_fd=fd, follow_symlinks=False)

    def directory_times(self) -> None:
        """Set the times of directories, which their entries have changed meanwhile."""
        for path, times in self.times.items():
            try:
                fd = open_in_root(self.root_fd, path, os.O_DIRECTORY | os.O_RDONLY)
            except (FileNotFoundError, NotADirectoryError):
                continue  # a later member of the archive replaced it
            try:
                os.utime(fd, ns=times)
            finally:
                os.close(fd)


def _normal(name: str) -> str:
    """A member's name without leading ``/``, ``.`` and ``..`` components that would leave the root."""
    parts: list[str] = []
    for part in name.split("/"):
        if part == "..":
            if parts:
                parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    if len(parts) > _DEEPEST:
        raise ArchiveError(f"archive path of {len(parts)} components: at most {_DEEPEST} are taken")
    return "/".join(parts)


def _set_xattr(fd: int, name: str, key: str, value: str) -> None:
    if key.startswith(_REFUSED_XATTRS):
        log.warning("unpack %s: refused extended attribute %s", name, key)
        return
    path = f"/proc/self/fd/{fd}/{name}"
    try:
        os.setxattr(path, key, value.encode("utf-8", "surrogateescape"), follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.EPERM):
            raise
        log.warning("unpack %s: extended attribute %s: %s", name, key, error.strerror)


def _remove_tree(parent_fd: int, name: str) -> None:
    fd = os.open(name, os.O_DIRECTORY | os.O_NOFOLLOW | os.O_RDONLY | os.O_CLOEXEC, dir_fd=parent_fd)
    try:
        with os.scandir(fd) as entries:
            children = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        for child, is_directory in children:
            if is_directory:
                _remove_tree(fd, child)
            else:
                os.unlink(child, dir_fd=fd)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=parent_fd)
