"""Open files of a process: what each descriptor is, where it points, its position and flags.

Sockets are named by what the namespace's socket list says of their inode; a container's own view of a path
is left as the kernel shows it.
"""

from __future__ import annotations

import logging
import os
import re
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from collector.namespaces import in_namespace
from collector.processes.procfs import parse_stat
from collector.processes.sock_diag import (
    InetSocket,
    UnixSocket,
    inet_sockets,
    unix_sockets,
)

__all__ = [
    "MAX_FILES",
    "OpenFile",
    "OpenFiles",
    "describe",
    "endpoint",
    "parse_fdinfo",
    "read_files",
    "socket_inodes",
]

log = logging.getLogger(__name__)

#: Descriptors read of one process at most; the rest are counted.
MAX_FILES = 20_000

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_SOCKET = re.compile(r"socket:\[(\d+)\]")
_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFCHR: "character",
    stat.S_IFBLK: "block",
    stat.S_IFIFO: "pipe",
    stat.S_IFSOCK: "socket",
}
_ACCESS = {os.O_RDONLY: "r", os.O_WRONLY: "w", os.O_RDWR: "rw"}
_FLAGS = (
    (os.O_APPEND, "append"),
    (os.O_NONBLOCK, "nonblock"),
    (os.O_SYNC, "sync"),
    (os.O_DIRECT, "direct"),
    (os.O_CLOEXEC, "cloexec"),
    (os.O_PATH, "path"),
)


@dataclass(frozen=True, slots=True)
class OpenFile:
    """One descriptor."""

    fd: int
    kind: str  #: file, directory, character, block, pipe, socket, or what an anonymous inode calls itself
    path: str  #: as the kernel shows it; for a socket its ends and state, where known
    position: int
    flags: str  #: ``r``, ``w`` or ``rw``, then the others, comma-separated
    inode: int  #: of sockets, else 0


@dataclass(frozen=True, slots=True)
class OpenFiles:
    """The descriptors of one process."""

    files: tuple[OpenFile, ...]
    left_out: int  #: beyond ``MAX_FILES``
    socket_error: str  #: why sockets have no names, "" where they have


def read_files(proc: Path, pid: int, start_ticks: int | None = None) -> OpenFiles:
    """Every descriptor of a process, those closed meanwhile left out.

    Raises FileNotFoundError or ProcessLookupError when the process is gone or another has its number,
    PermissionError where we may not look.
    """
    directory = os.open(f"{proc}/{pid}", _DIRECTORY)
    try:
        if start_ticks is not None:
            fd = os.open("stat", os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
            with os.fdopen(fd, "rb") as opened:
                if parse_stat(opened.read()).start_ticks != start_ticks:
                    raise ProcessLookupError(f"process {pid} is another one by now")
        files, left_out = _descriptors(directory)
        error = ""
        if any(file.kind == "socket" for file in files):
            try:
                inet, unix = in_namespace(directory, lambda: (inet_sockets(), unix_sockets()))
            except OSError as failure:
                error = str(failure)
            else:
                known = {s.inode: s for s in inet} | {u.inode: u for u in unix}
                files = [_named(file, known) for file in files]
        return OpenFiles(tuple(files), left_out, error)
    finally:
        os.close(directory)


def socket_inodes(proc: Path, pids: Iterable[int]) -> dict[int, int]:
    """The process of every open socket, by inode; of several (after a fork) the one with the lowest number."""
    owners: dict[int, int] = {}
    for pid in sorted(pids):
        with suppress(OSError):  # it is gone, or not ours to look into: its sockets stay without a process
            directory = os.open(f"{proc}/{pid}/fd", _DIRECTORY)
            try:
                with os.scandir(directory) as entries:
                    for entry in entries:
                        with suppress(FileNotFoundError):
                            target = os.readlink(entry.name, dir_fd=directory)
                            if target.startswith("socket:["):
                                owners.setdefault(int(target[8:-1]), pid)
            finally:
                os.close(directory)
    return owners


def parse_fdinfo(data: bytes) -> tuple[int, int]:
    """Position and flags (``O_…``) of ``fdinfo``. Raises ValueError."""
    words = data.split(maxsplit=4)
    if len(words) < 4 or words[0] != b"pos:" or words[2] != b"flags:":
        raise ValueError(f"fdinfo {data[:40]!r}: expected 'pos:' and 'flags:'")
    return int(words[1]), int(words[3], 8)


def describe(opened: InetSocket | UnixSocket) -> str:
    """A socket in one line: ``tcp 10.0.0.2:80 LISTEN``, ``tcp 10.0.0.2:80 -> 10.0.0.3:4711 ESTABLISHED``."""
    if isinstance(opened, UnixSocket):
        return f"unix {opened.kind} {opened.path or 'unnamed'} {opened.state}"
    local = endpoint(opened.local, opened.local_port)
    if opened.remote_port == 0:
        return f"{opened.protocol} {local} {opened.state}"
    return f"{opened.protocol} {local} -> {endpoint(opened.remote, opened.remote_port)} {opened.state}"


def endpoint(address: str, port: int) -> str:
    """``10.0.0.2:80`` or ``[::1]:80``."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _descriptors(directory: int) -> tuple[list[OpenFile], int]:
    fds = os.open("fd", _DIRECTORY, dir_fd=directory)
    infos = -1
    try:
        infos = os.open("fdinfo", _DIRECTORY, dir_fd=directory)
        with os.scandir(fds) as entries:
            numbers = sorted(int(entry.name) for entry in entries)
        found = [_file(fds, infos, number) for number in numbers[:MAX_FILES]]
    finally:
        os.close(fds)
        if infos >= 0:
            os.close(infos)
    return [file for file in found if file is not None], len(numbers[MAX_FILES:])


def _file(fds: int, infos: int, number: int) -> OpenFile | None:
    name = str(number)
    try:
        target = os.readlink(name, dir_fd=fds)
    except (FileNotFoundError, ProcessLookupError):  # closed meanwhile
        return None
    position, flags, mode = 0, 0, 0
    try:
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=infos)
        try:
            position, flags = parse_fdinfo(os.read(fd, 4096))
        finally:
            os.close(fd)
        mode = os.stat(name, dir_fd=fds).st_mode
    except (FileNotFoundError, ProcessLookupError):
        return None
    except OSError as error:  # a dead network file system: the path is what there is
        log.debug("descriptor %d of %s is of unknown kind: %s", number, target, error)
    kind = _KINDS.get(stat.S_IFMT(mode), "unknown")
    if target.startswith("anon_inode:"):
        kind = target[11:].strip("[]")
    found = _SOCKET.fullmatch(target)
    words = [_ACCESS.get(flags & os.O_ACCMODE, "?")]
    words += [word for flag, word in _FLAGS if flags & flag == flag]
    return OpenFile(number, kind, target, position, ",".join(words), int(found[1]) if found else 0)


def _named(file: OpenFile, known: Mapping[int, InetSocket | UnixSocket]) -> OpenFile:
    opened = known.get(file.inode) if file.inode else None
    if opened is None:
        return file
    return OpenFile(file.fd, file.kind, describe(opened), file.position, file.flags, file.inode)
