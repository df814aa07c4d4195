"""A container's processes as ``docker top`` shows them: the host's ``ps`` with foreign lines left out."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from runtime.errors import BadRequest, ServerError

__all__ = ["pids_in_cgroup", "processes", "select_rows"]


def pids_in_cgroup(cgroup: str, pid: int, root: Path = Path("/sys/fs/cgroup")) -> set[int]:
    """All processes of a container, nested cgroups included; its first process at least.

    The pids controller's tree on v1 and hybrid hosts, the only tree on v2.
    """
    found = {pid}
    base = root / "pids" if (root / "pids").is_dir() else root
    top = base / cgroup.lstrip("/")
    if not cgroup.strip("/"):
        return found
    for path in [top, *(p for p in top.rglob("*") if p.is_dir())]:
        try:
            found.update(int(line) for line in (path / "cgroup.procs").read_text().split())
        except OSError:
            continue  # the cgroup went while we looked
    return found


def select_rows(output: str, pids: set[int]) -> tuple[list[str], list[list[str]]]:
    """Titles and the rows of these processes from what ``ps`` printed. Raises BadRequest without a PID column.

    The last column (the command) keeps its spaces.
    """
    lines = output.splitlines()
    titles = lines[0].split() if lines else []
    if "PID" not in titles:
        raise BadRequest("Couldn't find PID field in ps output")
    column = titles.index("PID")
    rows: list[list[str]] = []
    for line in lines[1:]:
        fields = line.split(None, len(titles) - 1)
        if len(fields) > column and fields[column].isdigit() and int(fields[column]) in pids:
            rows.append(fields)
    return titles, rows


async def processes(cgroup: str, pid: int, arguments: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Run ps with the user's options. Raises BadRequest for options that ps refuses."""
    pids = pids_in_cgroup(cgroup, pid)
    # First for these processes alone; not every option goes with a list, then all are asked for.
    code, output, errors = await _ps(*arguments, "-q", ",".join(map(str, sorted(pids))))
    if code != 0:
        code, output, errors = await _ps(*arguments)
    if code != 0:
        reason = errors.strip().splitlines() or [f"exit status {code}"]
        raise BadRequest(f"error running ps {' '.join(arguments)}: {reason[0]}")
    return select_rows(output, pids)


async def _ps(*arguments: str) -> tuple[int, str, str]:
    try:
        process = await asyncio.create_subprocess_exec(
            "ps",
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except FileNotFoundError:
        raise ServerError("docker top needs ps(1) on the host: install procps") from None
    output, errors = await process.communicate()
    return process.returncode or 0, output.decode("utf-8", "replace"), errors.decode("utf-8", "replace")
