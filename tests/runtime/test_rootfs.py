"""Overlay root file systems: layers in order, whiteouts, many layers, and surviving a crash."""

from __future__ import annotations

import io
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.images.layers import LayerStore
from runtime.mounts import MS_BIND, mount, mount_points
from runtime.rootfs import ContainerRootfs


@pytest.fixture
def place() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="tf-", dir="/tmp"))
    yield directory
    assert mount_points(directory) == []
    shutil.rmtree(directory)


def layer(layers: LayerStore, **files: str) -> Path:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name.replace("__", "/").replace("wh_", ".wh."))
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return layers.unpack(io.BytesIO(out.getvalue())).path


def test_layers_whiteouts_and_writes(place: Path) -> None:
    layers = LayerStore(place / "layers")
    lower = layer(layers, a="lower", b="lower", d__x="lower")
    upper = layer(layers, a="upper", wh_b="")
    rootfs = ContainerRootfs(place / "c", [lower, upper])
    merged = rootfs.mount()
    assert (merged / "a").read_text() == "upper"
    assert not (merged / "b").exists()
    assert (merged / "d/x").read_text() == "lower"
    (merged / "new").write_text("12345")
    assert rootfs.size_rw_bytes() == 5
    assert (lower / "a").read_text() == "lower"
    rootfs.unmount()
    assert (rootfs.mount() / "new").read_text() == "12345"
    rootfs.remove()
    assert list((place / "c").iterdir()) == []


def test_more_layers_than_one_page_of_options(place: Path) -> None:
    layers = LayerStore(place / "layers")
    rootfs = ContainerRootfs(
        place / "c", [layer(layers, **{f"f{n}": str(n), "top": str(n)}) for n in range(100)]
    )
    merged = rootfs.mount()
    assert (merged / "top").read_text() == "99"
    assert (merged / "f0").read_text() == "0"
    rootfs.remove()


def test_a_successor_finds_the_mount_and_takes_everything_off(place: Path) -> None:
    layers = LayerStore(place / "layers")
    first = ContainerRootfs(place / "c", [layer(layers, d__a="1")])
    merged = first.mount()
    mount(str(place), merged / "d", flags=MS_BIND)  # a mount within, as a crash may leave it
    again = ContainerRootfs(place / "c", first.layers)
    assert again.mounted()
    assert again.mount() == merged
    assert len(mount_points(merged)) == 2
    again.remove()
    again.remove()
    assert (place / "layers").exists()


def test_etc_files_change_in_place(place: Path) -> None:
    rootfs = ContainerRootfs(place / "c", [])
    first = rootfs.write_etc("web", "hosts\n", "resolv\n")
    inode = first.hosts.stat().st_ino
    assert rootfs.write_etc("web", "other\n", "resolv\n").hosts.stat().st_ino == inode
    assert first.hosts.read_text() == "other\n"
    assert first.hostname.read_text() == "web\n"
    rootfs.remove()
