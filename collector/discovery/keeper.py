"""The process that keeps a container for its engine (conmon, a containerd shim), and what it was started with.

It is the parent of the container's first process, and its command line says where the engine's files of
this container are, so that engines with directories of their own are found without being told of. Reading
those files is left to ``podman_files.py`` and its siblings.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

__all__ = ["Keeper", "Process", "boot_time_ns", "keeper_of", "parse_conmon", "parse_shim", "read_process"]


_GENERATIONS = 4


@dataclass(frozen=True, slots=True)
class Process:
    """What ``/proc/PID/stat`` says that discovery wants."""

    pid: int
    parent: int
    started_ticks: int  #: since boot, in clock ticks


@dataclass(frozen=True, slots=True)
class Keeper:
    """A container's keeper."""

    kind: str  #: ``conmon`` or ``shim``
    id: str  #: the container's (with a shim of a pod: the sandbox's)
    bundle: str  #: directory with the container's ``config.json``; a shim's: of the id above
    namespace: str = ""  #: containerd's
    name: str = ""  #: conmon's ``-n``
    log_driver: str = ""  #: conmon's ``-l``: ``k8s-file``, ``journald``, ``none``, ``passthrough``
    log_path: str = ""
    exit_directory: str = ""  #: where conmon leaves a file with the exit code, named by the id
    user: int = 0  #: who started it


def read_process(proc: Path, pid: int) -> Process:
    """Raises OSError when it is gone, ValueError on text that is not the kernel's."""
    data = (proc / str(pid) / "stat").read_bytes()
    words = data[data.rfind(b")") + 1 :].split()
    if len(words) < 20:
        raise ValueError(f"{proc}/{pid}/stat: expected the fields of proc_pid_stat(5), got {data[:60]!r}")
    return Process(pid, int(words[1]), int(words[19]))


def boot_time_ns(proc: Path) -> int:
    """When the host was started, by ``/proc/stat``; 0 where it does not say. Raises OSError."""
    for line in (proc / "stat").read_bytes().splitlines():
        if line.startswith(b"btime "):
            return int(line[6:]) * 1_000_000_000
    return 0


def keeper_of(proc: Path, process: Process) -> Keeper | None:
    """The keeper of a container, from its first process: the parent, but for the moment of its start, when
    the runtime stands between them. Raises OSError, ValueError when a process on the way is gone.
    """
    for _ in range(_GENERATIONS):
        if process.parent <= 1:
            return None
        parent = proc / str(process.parent)
        words = (parent / "cmdline").read_bytes().decode(errors="surrogateescape").split("\0")
        program = Path(words[0]).name
        if program == "conmon":
            found = parse_conmon(words)
        elif program.startswith("containerd-shim"):
            found = parse_shim(words, str((parent / "cwd").readlink()))
        else:
            process = read_process(proc, process.parent)
            continue
        return replace(found, user=_user(parent)) if found else None
    return None


def parse_conmon(words: list[str]) -> Keeper | None:
    """conmon's command line (conmon(8)); None where it names no container."""
    given = _options(
        words, ("-c", "--cid", "-b", "--bundle", "-n", "--name", "-l", "--log-path", "--exit-dir")
    )
    driver, colon, path = given.get("-l", given.get("--log-path", "")).partition(":")
    if not colon and driver.startswith("/"):  # older ones name a file alone
        driver, path = "k8s-file", driver
    container_id = _text(given.get("-c", given.get("--cid", "")))
    if not container_id:
        return None
    return Keeper(
        "conmon",
        container_id,
        given.get("-b", given.get("--bundle", "")),
        name=_text(given.get("-n", given.get("--name", ""))),
        log_driver=driver,
        log_path=path,
        exit_directory=given.get("--exit-dir", ""),
    )


def parse_shim(words: list[str], directory: str) -> Keeper | None:
    """A shim's command line; its working directory is the bundle. None where it names no container."""
    given = _options(words, ("-namespace", "-id"))
    if not given.get("-id"):
        return None
    return Keeper("shim", _text(given["-id"]), directory, namespace=_text(given.get("-namespace", "")))


def _user(process: Path) -> int:
    """The real user of a process. The owner of its directory in procfs is root's where it cannot be dumped."""
    for line in (process / "status").read_bytes().split(b"\n"):
        if line.startswith(b"Uid:"):
            return int(line.split()[1])
    raise ValueError(f"{process}/status: expected a line Uid:")


def _text(word: str) -> str:
    """A word that is no path and goes where only Unicode goes; anybody may start a program with any words."""
    return word.encode(errors="surrogateescape").decode(errors="replace")


def _options(words: list[str], wanted: tuple[str, ...]) -> dict[str, str]:
    """The first value of each wanted option, as ``-c value`` or ``--cid=value``."""
    found: dict[str, str] = {}
    for number, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in wanted and name not in found:
            if equals:
                found[name] = value
            elif number + 1 < len(words):
                found[name] = words[number + 1]
    return found
