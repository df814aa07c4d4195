"""Recorded hosts, one text file each: what /proc, the cgroups and the engines' files said.

``tests/fixtures/hosts/NAME.tree`` begins with comments (``# …``) that say what host it is. Then come files,
each behind a line ``--- PATH``; below ``proc``, ``sys`` and ``root`` they are the host's, below ``api`` what its
engine answers. Further forms of that line:

    --- DIRECTORY/*         files of one short line each: ``name value``
    --- PATH | words        a command line: a word a line, in the file each ends with a zero byte
    --- PATH | zlib         bytes, compressed, in base64
    --- PATH -> TARGET      a symbolic link
    --- PATH = OTHER        a second name for the same file (one inode: processes in one network namespace)
"""

from __future__ import annotations

import base64
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

HOSTS = Path(__file__).parent / "fixtures/hosts"


def names() -> list[str]:
    """All recorded hosts."""
    return sorted(path.stem for path in HOSTS.glob("*.tree"))


def unpack(name: str, directory: Path) -> Path:
    """Make the host's files below a directory, which is returned."""
    for head, lines in _sections((HOSTS / f"{name}.tree").read_text()):
        path, kind, value = _head(head)
        if kind == "each":
            for line in lines:
                file, _, content = line.partition(" ")
                _make(directory / path / file).write_text(content + "\n")
            continue
        target = _make(directory / path)
        if kind == "link":
            target.symlink_to(value)
        elif kind == "same":
            os.link(directory / value, target)
        elif kind == "words":
            target.write_text("".join(f"{line}\0" for line in lines))
        elif kind == "zlib":
            target.write_bytes(zlib.decompress(base64.b64decode("".join(lines))))
        else:
            target.write_text("".join(f"{line}\n" for line in lines))
    return directory


def _make(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _sections(text: str) -> Iterator[tuple[str, list[str]]]:
    head, lines = "", list[str]()
    for line in text.splitlines():
        if line.startswith("--- "):
            if head:
                yield head, lines
            head, lines = line[4:], []
        elif head:
            lines.append(line)
        else:
            assert line.startswith("# "), f"{line!r}: expected a comment, or a file's head behind ---"
    yield head, lines


def _head(head: str) -> tuple[str, str, str]:
    """Path, kind and what further the kind needs."""
    if head.endswith("/*"):
        return head[:-2], "each", ""
    for separator, kind in ((" -> ", "link"), (" = ", "same"), (" | ", "")):
        path, found, value = head.partition(separator)
        if found:
            return path, kind or value, value
    return head, "text", ""
