"""A real engine in a process of its own, and the real docker CLI pointed at it; tests import it by name."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runtime.networks.network import Networks
from runtime.shim.template_client import TemplateClient

IMAGE = "bb:1"


def busybox_tar() -> bytes:
    """The tar of a root file system with every applet of the host's static busybox."""
    program = shutil.which("busybox") or "/bin/busybox"
    applets = subprocess.run([program, "--list"], check=True, capture_output=True, text=True).stdout.split()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name in ("bin", "etc", "proc", "sys", "dev", "tmp", "root"):
            member = tarfile.TarInfo(name)
            member.type, member.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            archive.addfile(member)
        binary = Path(program).read_bytes()
        files = {
            "bin/busybox": binary,
            "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\n",
            "etc/group": b"root:x:0:\n",
        }
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o755 if name.startswith("bin") else 0o644
            archive.addfile(member, io.BytesIO(data))
        for applet in applets:
            if applet != "busybox":
                member = tarfile.TarInfo(f"bin/{applet}")
                member.type, member.linkname = tarfile.SYMTYPE, "busybox"
                archive.addfile(member)
    return out.getvalue()


def until(condition: Callable[[], Any], what: str, seconds: float = 100.0) -> Any:
    """Wait until a condition holds and return its value."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"waited {seconds:g} s in vain for {what}")


@dataclass
class Result:
    """What a CLI call printed."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


@dataclass
class EngineProcess:
    """One engine with its directories."""

    root: Path
    settings: Sequence[str] = ()
    bridge: str = field(default_factory=lambda: f"tt{uuid.uuid4().hex[:10]}")
    prefix: Sequence[str] = ()  #: what the engine's command begins with: a program that enters a namespace
    process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        return self.root / "r" / "engine.sock"

    @property
    def state(self) -> Path:
        return self.root / "s" / "engine"

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def log(self) -> str:
        return (self.root / "log").read_text()

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start the engine's process and return it, without waiting for it to answer."""
        settings = [
            f"paths.run={self.root / 'r'}",
            f"paths.state={self.root / 's'}",
            f"engine.bridge={self.bridge}",
        ]
        flags = [word for item in (*settings, *self.settings) for word in ("--set", item)]
        with (self.root / "log").open("ab") as log:
            return subprocess.Popen(
                [*self.prefix, sys.executable, "-P", "-m", "taffrail", *flags, "engine"],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )

    def start(self) -> None:
        self.process = self.spawn()

        def answers() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, self.log()
            done = subprocess.run(["docker", "-H", self.url, "version"], capture_output=True, check=False)
            return done.returncode == 0

        until(answers, "the engine to answer")

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(100)

    def docker(
        self, *words: str, stdin: bytes | None = None, check: bool = True, timeout: float = 120.0
    ) -> Result:
        """Run the docker CLI. A call that fails fails the test, unless ``check`` is False."""
        done = subprocess.run(
            ["docker", "-H", self.url, *words],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
        result = Result(done.returncode, done.stdout.decode(), done.stderr.decode())
        assert not check or result.code == 0, f"docker {' '.join(words)}: {result}\n{self.log()[-3000:]}"
        return result

    def popen(self, *words: str, **options: Any) -> subprocess.Popen[bytes]:
        """A CLI call that goes on beside the test."""
        return subprocess.Popen(["docker", "-H", self.url, *words], **options)

    @contextlib.contextmanager
    def beside(self, *words: str) -> Iterator[subprocess.Popen[bytes]]:
        """A CLI call that goes on beside the test, its output a pipe; it ends with the ``with``, however that ends."""
        with self.popen(*words, stdout=subprocess.PIPE) as process:
            try:
                yield process
            finally:
                process.kill()

    def inspect(self, name: str, template: str) -> str:
        return self.docker("inspect", "-f", template, name).out.strip()

    def remove_all(self) -> None:
        ids = self.docker("ps", "-aq").out.split()
        if ids:
            self.docker("rm", "-f", "-v", *ids)

    def destroy(self) -> None:
        """Remove everything that was made, and end what was started."""
        try:
            if self.process is not None:
                if self.process.poll() is not None:
                    self.start()
                self.remove_all()
                assert self.stop() == 0, self.log()
        finally:
            if self.process is not None and self.process.poll() is None:
                self.kill()
            asyncio.run(TemplateClient(self.root / "r" / "engine" / "shims").shutdown())
            networks = Networks(
                self.state / "network",
                self.root / "r" / "engine" / "net",
                bridge=self.bridge,
                table=self.bridge,
            )
            networks.start()
            networks.destroy()
            shutil.rmtree(self.root, ignore_errors=True)


@contextlib.contextmanager
def running_engine(*settings: str, prefix: Sequence[str] = ()) -> Iterator[EngineProcess]:
    """An engine with the busybox image, for the time of the ``with``."""
    engine = EngineProcess(Path(tempfile.mkdtemp(prefix="te", dir="/tmp")), settings, prefix=prefix)
    try:
        engine.start()
        engine.docker("import", "-c", 'CMD ["sh"]', "-", IMAGE, stdin=busybox_tar())
        yield engine
    finally:
        engine.destroy()


_JOURNALD_ELSEWHERE = (
    "mkdir -p /run/systemd && mount -t tmpfs none /run/systemd && mkdir /run/systemd/journal && "
    'mount --bind "$0" /run/systemd/journal && echo ready && exec sleep infinity'
)


@contextlib.contextmanager
def journald_in(directory: Path) -> Iterator[Sequence[str]]:
    """A mount namespace with ``directory`` as /run/systemd/journal; yields the ``prefix`` that enters it."""
    holder = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", _JOURNALD_ELSEWHERE, directory],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"ready\n"
        yield ["nsenter", f"--mount=/proc/{holder.pid}/ns/mnt", "--"]
    finally:
        holder.kill()
        holder.communicate()


def random_subnet() -> str:
    """The first three numbers of a subnet for tests (RFC 2544), which no engine takes for its own bridges."""
    return f"198.{random.choice((18, 19))}.{random.randrange(256)}"


class Events:
    """``docker events`` beside a test."""

    def __init__(self, engine: EngineProcess, *words: str) -> None:
        self.process = engine.popen(
            "events",
            "--since",
            "1",
            "--format",
            "{{json .}}",
            *words,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self.seen: list[dict[str, Any]] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.seen.append(json.loads(line))

    def actions(self, name: str) -> list[str]:
        return [e["Action"] for e in self.seen if e["Actor"]["Attributes"].get("name") == name]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._thread.join()
        assert self.process.stdout is not None
        self.process.stdout.close()
