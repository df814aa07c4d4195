"""An image made of a static busybox, and running a container of it under the real OCI runtime."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from runtime.config import ContainerConfig
from runtime.images.image import Image, ImageStore
from runtime.merge import merge_image
from runtime.mounts import mount_points, unmount
from runtime.oci.limits import Capacity, check_limits
from runtime.oci.spec import make_spec
from runtime.rootfs import ContainerRootfs

APPLETS = (
    *("sh", "cat", "echo", "sleep", "ls", "id", "env", "pwd", "hostname", "mount", "unshare", "ip", "ping"),
    *(
        "nc",
        "test",
        "mkdir",
        "stat",
        "ulimit",
        "touch",
        "grep",
        "true",
        "head",
        "wc",
        "date",
        "mknod",
        "nslookup",
    ),
)
PASSWD = "root:x:0:0:root:/root:/bin/sh\nweb:x:1001:1002:Web:/home/web:/bin/sh\nbroken line\n"
GROUP = "root:x:0:\nweb:x:1002:\naudio:x:29:web,other\nlogs:x:40:\n"


def busybox_tree(files: Mapping[str, str] | None = None, links: Mapping[str, str] | None = None) -> bytes:
    """The tar of a root file system with busybox, passwd and group."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name in ("proc", "dev", "sys", "tmp", "etc", "root", "home/web", "bin"):
            add_member(archive, name, tarfile.DIRTYPE, mode=0o1777 if name == "tmp" else 0o755)
        busybox = Path(shutil.which("busybox") or "/bin/busybox").read_bytes()
        add_member(archive, "bin/busybox", data=busybox, mode=0o755)
        for applet in APPLETS:
            add_member(archive, f"bin/{applet}", tarfile.SYMTYPE, link="busybox")
        for name, text in {"etc/passwd": PASSWD, "etc/group": GROUP, **(files or {})}.items():
            add_member(archive, name, data=text.encode())
        for name, target in (links or {}).items():
            add_member(archive, name, tarfile.SYMTYPE, link=target)
    return out.getvalue()


def add_member(
    archive: tarfile.TarFile,
    name: str,
    kind: bytes = tarfile.REGTYPE,
    *,
    data: bytes = b"",
    link: str = "",
    mode: int = 0o644,
    **more: Any,
) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.size, member.linkname, member.mode = kind, len(data), link, mode
    for key, value in more.items():
        setattr(member, key, value)
    archive.addfile(member, io.BytesIO(data))


@dataclass(frozen=True)
class Finished:
    """A container that ran to its end."""

    code: int
    out: str
    err: str


class Bundles:
    """Makes bundles from create bodies and runs them; cleans up what it made."""

    def __init__(self, directory: Path, image: Image) -> None:
        self.directory = directory
        self.image = image
        self.cgroup = f"/taffrail-test-{uuid.uuid4().hex[:10]}"
        self.capacity = Capacity.probe()
        self.ids: list[str] = []

    def bundle(self, body: Mapping[str, Any], image: Image | None = None, **spec: Any) -> tuple[str, Path]:
        """Write a bundle; its container's id and directory."""
        container_id = uuid.uuid4().hex * 2
        image = image or self.image
        config = merge_image(ContainerConfig.from_api({"Image": "busybox", **body}), image.config)
        check_limits(config.host, self.capacity)
        rootfs = ContainerRootfs(self.directory / container_id, image.layer_dirs)
        merged = rootfs.mount()
        document = make_spec(
            container_id=container_id,
            config=config,
            rootfs=merged,
            cgroup_parent=self.cgroup,
            cgroup_v2=self.capacity.cgroup_v2,
            **spec,
        )
        (rootfs.directory / "config.json").write_text(json.dumps(document))
        self.ids.append(container_id)
        return container_id, rootfs.directory

    def run(self, body: Mapping[str, Any], image: Image | None = None, **spec: Any) -> Finished:
        """Run to the end."""
        container_id, directory = self.bundle(body, image, **spec)
        done = self.runc("run", "--bundle", str(directory), container_id)
        return Finished(done.returncode, done.stdout, done.stderr)

    def start(self, body: Mapping[str, Any], **spec: Any) -> tuple[str, int]:
        """Start and leave running: the id and the pid."""
        container_id, directory = self.bundle(body, **spec)
        pid_file = directory / "pid"
        self.runc(
            "run", "--detach", "--pid-file", str(pid_file), "--bundle", str(directory), container_id,
            check=True, silent=True,
        )  # fmt: skip
        return container_id, int(pid_file.read_text())

    def runc(self, *args: str, check: bool = False, silent: bool = False) -> subprocess.CompletedProcess[str]:
        """The runtime, with its state apart from everyone's."""
        output = subprocess.DEVNULL if silent else subprocess.PIPE
        return subprocess.run(
            ["runc", "--root", str(self.directory / "runc"), *args],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, text=True, check=check, timeout=120,
        )  # fmt: skip

    def close(self) -> None:
        for container_id in self.ids:
            self.runc("delete", "--force", container_id)
        for point in mount_points(self.directory):
            unmount(point)
        everywhere = Path("/sys/fs/cgroup")
        for path in (*everywhere.glob(f"*{self.cgroup}"), *everywhere.glob(self.cgroup[1:])):
            path.rmdir()


@pytest.fixture(scope="session")
def short_dir() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="tf-", dir="/tmp"))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def image_store(short_dir: Path) -> ImageStore:
    return ImageStore(short_dir / "images")


@pytest.fixture(scope="session")
def make_image(image_store: ImageStore) -> Callable[..., Image]:
    def make(changes: Sequence[str] = (), **tree: Mapping[str, str]) -> Image:
        return image_store.import_tar(io.BytesIO(busybox_tree(**tree)), "", changes)

    return make


@pytest.fixture(scope="session")
def busybox_image(make_image: Callable[..., Image]) -> Image:
    return make_image(['CMD ["sh"]', "ENV GREETING=hello"])


@pytest.fixture
def bundles(short_dir: Path, busybox_image: Image) -> Iterator[Bundles]:
    running = Bundles(short_dir, busybox_image)
    yield running
    running.close()
