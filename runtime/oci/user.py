"""Who a container's process runs as: a name or number looked up in the image's passwd and group files.

The files are the image's and may hold anything: they are read inside the root, with a size limit, and lines
that are no entries are passed over, as C libraries do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import BadRequest
from runtime.images.inroot import read_in_root

__all__ = ["ProcessUser", "find_user"]

_HIGHEST_ID = 2**31 - 1
_FILE_LIMIT = 8 << 20


@dataclass(frozen=True, slots=True)
class ProcessUser:
    """Numbers for the OCI spec's ``process.user``, and the home directory."""

    uid: int = 0
    gid: int = 0
    additional_gids: tuple[int, ...] = ()
    home: str = "/"


def find_user(rootfs: Path, user: str, groups: Sequence[str] = ()) -> ProcessUser:
    """Resolve ``user[:group]`` and ``--group-add``. Raises BadRequest with Docker's words."""
    name, _, group = user.partition(":")
    entry = _passwd_entry(rootfs, name or "0")
    if entry is None:
        if not name.isdigit() and name:
            raise BadRequest(f"unable to find user {name}: no matching entries in passwd file")
        entry = ("", _checked(int(name or 0)), 0, "/")
    login, uid, gid, home = entry
    group_lines = list(_group_entries(rootfs))
    member_of = [number for _, number, members in group_lines if login and login in members]
    if group:
        gid = _group_id(group_lines, group)
        member_of = []
    extra = [_group_id(group_lines, wanted) for wanted in groups]
    return ProcessUser(uid, gid, tuple(dict.fromkeys([gid, *member_of, *extra])), home)


def _passwd_entry(rootfs: Path, name: str) -> tuple[str, int, int, str] | None:
    by_number = None
    for fields in _lines(rootfs, "/etc/passwd"):
        if len(fields) < 4 or not (fields[2].isdigit() and fields[3].isdigit()):
            continue
        home = fields[5] if len(fields) > 5 and fields[5] else "/"
        entry = (fields[0], _checked(int(fields[2])), _checked(int(fields[3])), home)
        if fields[0] == name:
            return entry
        if by_number is None and fields[2] == name:
            by_number = entry
    return by_number


def _group_entries(rootfs: Path) -> Iterator[tuple[str, int, list[str]]]:
    for fields in _lines(rootfs, "/etc/group"):
        if len(fields) >= 3 and fields[2].isdigit():
            members = fields[3].split(",") if len(fields) > 3 else []
            yield fields[0], int(fields[2]), members


def _group_id(entries: Sequence[tuple[str, int, list[str]]], group: str) -> int:
    for name, number, _ in entries:
        if name == group:
            return _checked(number)
    if group.isdigit():
        return _checked(int(group))
    raise BadRequest(f"unable to find group {group}: no matching entries in group file")


def _checked(number: int) -> int:
    if number > _HIGHEST_ID:
        raise BadRequest(f"uids and gids must be in range 0-{_HIGHEST_ID}")
    return number


def _lines(rootfs: Path, path: str) -> Iterator[list[str]]:
    try:
        text = read_in_root(rootfs, path, _FILE_LIMIT).decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return
    except ValueError as error:
        raise BadRequest(str(error)) from error
    for line in text.splitlines():
        if line and not line.startswith("#"):
            yield line.strip().split(":")
