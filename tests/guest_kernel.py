"""The kernel of the tests' virtual machines, with its modules, and the initial file systems they boot from.

The kernel comes from Debian's archive (fetched once, into ``.cache/``), the initial file system is static
busybox, a script and modules; what runs in a machine is its own affair.
"""

from __future__ import annotations

import fcntl
import io
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_CACHE = Path(__file__).resolve().parent.parent / ".cache" / "guest-kernel"
_PACKAGE = "linux-image-cloud-amd64"


@dataclass(frozen=True, slots=True)
class Kernel:
    """An unpacked kernel package."""

    directory: Path

    @property
    def image(self) -> Path:
        """What qemu boots."""
        (image,) = self.directory.glob("boot/vmlinuz-*")
        return image

    @property
    def modules(self) -> Path:
        """The directory that belongs at ``/lib/modules/RELEASE``, with its list of dependencies."""
        (modules,) = self.directory.glob("lib/modules/*")
        return modules

    def needed_by(self, *names: str) -> list[Path]:
        """The modules' files and those they depend on, in the order they are to be loaded.

        Raises ValueError naming a module that the kernel has not.
        """
        depends: dict[str, list[str]] = {}
        for line in (self.modules / "modules.dep").read_text().splitlines():
            path, _, others = line.partition(":")
            depends[path] = others.split()
        of_name = {Path(path).stem.replace("-", "_"): path for path in depends}
        found: list[str] = []

        def add(path: str) -> None:
            if path not in found:
                for other in depends[path]:
                    add(other)
                found.append(path)

        for name in names:
            if name not in of_name:
                raise ValueError(f"module {name}: {self.modules} does not have it")
            add(of_name[name])
        return [self.modules / path for path in found]


def kernel() -> Kernel:
    """The kernel; fetched and unpacked once, whoever asks first."""
    unpacked = _CACHE / "unpacked"
    _CACHE.mkdir(parents=True, exist_ok=True)
    with (_CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not unpacked.exists():
            with tempfile.TemporaryDirectory(dir=_CACHE) as directory:
                fresh = Path(directory) / "fresh"
                _unpack(_download(Path(directory)), fresh)
                fresh.rename(unpacked)
    return Kernel(unpacked)


def _download(directory: Path) -> Path:
    """The package that the nameless one stands for: its versioned dependency has the files."""
    listed = _depends()
    if not listed:
        subprocess.run(["apt-get", "update", "-qq"], check=True, timeout=300)
        listed = _depends()
    names = [line.split()[-1] for line in listed.splitlines() if "Depends: linux-image-" in line]
    if not names:
        raise RuntimeError(f"package {_PACKAGE}: expected a dependency linux-image-…, found {listed!r}")
    command = ["apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", names[0]]
    subprocess.run(command, check=True, timeout=300, cwd=directory, stdout=subprocess.DEVNULL)
    (package,) = directory.glob("*.deb")
    return package


def _depends() -> str:
    command = ["apt-cache", "depends", _PACKAGE]
    return subprocess.run(command, check=False, timeout=60, capture_output=True, text=True).stdout


def _unpack(package: Path, directory: Path) -> None:
    subprocess.run(["dpkg-deb", "-x", package, directory], check=True, timeout=120)
    fresh = Kernel(directory)
    subprocess.run(["busybox", "depmod", "-b", directory, fresh.modules.name], check=True, timeout=60)


def write_initrd(file: Path, script: str, applets: Iterable[str], modules: Iterable[Path] = ()) -> None:
    """A cpio archive in the "newc" format (the kernel's Documentation/driver-api/early-userspace).

    ``script`` is its ``/init``, the modules are in ``/modules``, busybox's applets in ``/bin``.
    """
    busybox = Path(shutil.which("busybox") or "/bin/busybox").read_bytes()
    archive = io.BytesIO()
    for name in ("bin", "proc", "sys", "dev", "modules"):
        _add(archive, name, stat.S_IFDIR | 0o755)
    _add(archive, "bin/busybox", stat.S_IFREG | 0o755, busybox)
    for name in applets:
        _add(archive, f"bin/{name}", stat.S_IFLNK | 0o777, b"busybox")
    for module in modules:
        _add(archive, f"modules/{module.name}", stat.S_IFREG | 0o644, module.read_bytes())
    _add(archive, "init", stat.S_IFREG | 0o755, script.encode())
    _add(archive, "TRAILER!!!", 0)
    file.write_bytes(archive.getvalue())


def _add(archive: io.BytesIO, name: str, mode: int, data: bytes = b"") -> None:
    def pad() -> None:
        archive.write(b"\0" * (-archive.tell() % 4))

    # inode mode uid gid links mtime size device(2) special(2) length-of-name checksum
    numbers = (archive.tell() + 1, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
    archive.write(b"070701" + b"".join(b"%08X" % number for number in numbers) + name.encode() + b"\0")
    pad()
    archive.write(data)
    pad()
