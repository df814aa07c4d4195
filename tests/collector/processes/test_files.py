"""Open files and sockets of processes that are known."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from collector.processes.files import OpenFile, parse_fdinfo, read_files, socket_inodes
from collector.processes.reading import read_process

Program = Callable[..., "subprocess.Popen[str]"]
PROC = Path("/proc")

CODE = """
import os, select, socket
opened = os.open({path!r}, os.O_RDWR | os.O_APPEND | os.O_CREAT)
os.write(opened, b"twelve bytes")
server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname())
unix = socket.socket(socket.AF_UNIX); unix.bind("\\0known-" + str(os.getpid())); unix.listen()
poll = select.epoll()
print(server.getsockname()[1], file=open({path!r} + ".port", "w"))
"""


def files_of(pid: int) -> list[OpenFile]:
    found = read_files(PROC, pid)
    assert (found.left_out, found.socket_error) == (0, "")
    return list(found.files)


def test_every_kind_of_descriptor(program: Program, tmp_path: Path) -> None:
    path = tmp_path / "data"
    process = program(CODE.format(path=str(path)))
    port = int((tmp_path / "data.port").read_text())
    files = files_of(process.pid)
    data = next(file for file in files if file.path == str(path))
    assert (data.kind, data.position, data.flags) == ("file", 12, "rw,append,cloexec")
    sockets = [file.path for file in files if file.kind == "socket"]
    assert f"tcp 127.0.0.1:{port} LISTEN" in sockets
    assert any(
        text.startswith("tcp 127.0.0.1:") and text.endswith(f":{port} ESTABLISHED") for text in sockets
    )
    assert f"unix stream @known-{process.pid} LISTEN" in sockets
    assert [file.kind for file in files if file.fd in (0, 1)] == ["pipe", "pipe"]
    assert "eventpoll" in [file.kind for file in files]
    inodes = socket_inodes(PROC, [process.pid])
    assert {file.inode for file in files if file.kind == "socket"} == set(inodes)
    assert set(inodes.values()) == {process.pid}


def test_a_removed_file_says_so(program: Program, tmp_path: Path) -> None:
    path = tmp_path / "data"
    process = program(CODE.format(path=str(path)))
    path.unlink()
    assert any(file.path == f"{path} (deleted)" for file in files_of(process.pid))


def test_sockets_of_another_namespace_have_names_too(program: Program, tmp_path: Path) -> None:
    up = "subprocess.run(['ip', 'link', 'set', 'lo', 'up'], check=True)\n"
    code = "import subprocess\n" + up + CODE.format(path=str(tmp_path / "data"))
    process = program(code, "unshare", "--net")
    port = int((tmp_path / "data.port").read_text())
    assert any(file.path == f"tcp 127.0.0.1:{port} LISTEN" for file in files_of(process.pid))


def test_a_process_that_is_gone_or_another(program: Program) -> None:
    process = program("pass")
    started = read_process(PROC, process.pid).stat.start_ticks
    assert read_files(PROC, process.pid, started).files
    with pytest.raises(ProcessLookupError):
        read_files(PROC, process.pid, started + 1)
    process.communicate("")
    with pytest.raises(FileNotFoundError):
        read_files(PROC, process.pid)


def test_of_many_descriptors_the_rest_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("collector.processes.files.MAX_FILES", 2)
    fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(3)]
    found = read_files(PROC, os.getpid())
    for fd in fds:
        os.close(fd)
    assert len(found.files) == 2
    assert found.left_out > 3


def test_fdinfo() -> None:
    assert parse_fdinfo(b"pos:\t12\nflags:\t0100002\nmnt_id:\t25\n") == (12, 0o100002)
    with pytest.raises(ValueError, match="fdinfo"):
        parse_fdinfo(b"flags:\t0\n")
