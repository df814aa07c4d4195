"""Images: import with changes, tags, removal, archives in and layers that cannot escape."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import stat
import subprocess
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import zstandard

from runtime.errors import BadRequest, Conflict, NotFound
from runtime.images.archive import load_archive
from runtime.images.extract import ArchiveError
from runtime.images.image import ImageStore, InUse
from runtime.images.layers import LayerStore


def tar(*members: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for item in members:
            data = item.pop("data", b"")
            member = tarfile.TarInfo(item.pop("name"))
            member.size = len(data)
            for key, value in item.items():
                setattr(member, key, value)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def file(name: str, data: bytes = b"x", **more: Any) -> dict[str, Any]:
    return {"name": name, "data": data, **more}


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> dict[str, Any]:
    return {"name": name, "type": kind, "linkname": target}


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "store")


@pytest.fixture
def layers(tmp_path: Path) -> LayerStore:
    return LayerStore(tmp_path / "layers")


def unpack(layers: LayerStore, *members: dict[str, Any]) -> Path:
    return layers.unpack(io.BytesIO(tar(*members))).path


def free(_: str) -> Sequence[InUse]:
    return ()


def test_import_makes_content_ids(store: ImageStore) -> None:
    data = tar(file("etc/x", b"hello"))
    image = store.import_tar(
        io.BytesIO(data), "web:1", ['CMD ["run"]', "ENV A=1 B='two words'", "EXPOSE 80"], "mine"
    )
    assert image.layers[0].diff_id == f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert image.id == f"sha256:{hashlib.sha256(store.config_bytes(image)).hexdigest()}"
    assert image.config == {"Cmd": ["run"], "Env": ["A=1", "B=two words"], "ExposedPorts": {"80/tcp": {}}}
    assert image.document["comment"] == "mine"
    assert image.size_bytes == 5
    assert (image.layer_dirs[0] / "etc/x").read_bytes() == b"hello"
    assert ImageStore(store.layers.root.parent).get("web:1") == image


@pytest.mark.parametrize(
    "compress",
    [gzip.compress, bz2.compress, lzma.compress, zstandard.ZstdCompressor().compress],
    ids=["gzip", "bzip2", "xz", "zstd"],
)
def test_compressed_archives_have_the_same_layer(
    layers: LayerStore, compress: Callable[[bytes], bytes]
) -> None:
    data = tar(file("x", os.urandom(100_000)))
    assert layers.unpack(io.BytesIO(compress(data))) == layers.unpack(io.BytesIO(data))
    with pytest.raises(ArchiveError, match="error reading archive"):
        layers.unpack(io.BytesIO(compress(data)[:5000]))
    assert len(list(layers.root.iterdir())) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("FLY high", "FLY is not a valid change command"),
        ("ENV", "ENV requires at least one argument"),
        ("ENV A=1 B", "can't find = in 'B'"),
        ("EXPOSE 70000", "invalid containerPort: 70000"),
    ],
)
def test_changes_refused(store: ImageStore, change: str, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        store.import_tar(io.BytesIO(tar(file("x"))), "", [change])
    assert store.list() == []


def test_get_by_every_name(store: ImageStore) -> None:
    image = store.import_tar(io.BytesIO(tar(file("x"))), "registry:5000/team/app:1")
    store.tag(image.id, "docker.io/library/web")
    digits = image.id.removeprefix("sha256:")
    for reference in (
        "registry:5000/team/app:1",
        "web",
        "web:latest",
        "library/web",
        image.id,
        digits,
        digits[:6],
    ):
        assert store.get(reference).id == image.id
    assert store.get("web").repo_tags == ("registry:5000/team/app:1", "web:latest")
    with pytest.raises(NotFound, match=r"No such image: other:latest"):
        store.get("other")
    with pytest.raises(BadRequest, match="repository name must be lowercase"):
        store.tag(image.id, "Web")


def test_remove_tags_then_image(store: ImageStore) -> None:
    image = store.import_tar(io.BytesIO(tar(file("x"))), "a:1")
    store.tag(image.id, "b:1")
    with pytest.raises(Conflict, match="image is referenced in multiple repositories"):
        store.remove(image.id[7:19], free)
    assert [item.to_api() for item in store.remove("a:1", free)] == [{"Untagged": "a:1"}]
    removed = [item.to_api() for item in store.remove("b:1", free)]
    assert removed == [{"Untagged": "b:1"}, {"Deleted": image.id}]
    assert store.layers.all() == set()


def test_remove_of_a_used_image(store: ImageStore) -> None:
    image = store.import_tar(io.BytesIO(tar(file("x"))), "a:1")

    def running(_: str) -> Sequence[InUse]:
        return [InUse("c" * 64, True)]

    def stopped(_: str) -> Sequence[InUse]:
        return [InUse("c" * 64, False)]

    with pytest.raises(Conflict, match=r"container cccccccccccc is using its referenced image"):
        store.remove("a:1", stopped)
    with pytest.raises(Conflict, match=r"\(cannot be forced\) - image is being used by running container"):
        store.remove(image.id, running, force=True)
    with pytest.raises(Conflict, match=r"\(must be forced\) - image is being used by stopped container"):
        store.remove(image.id, stopped)
    assert store.get("a:1").id == image.id


def test_a_layer_that_two_images_share_stays(store: ImageStore) -> None:
    data = tar(file("x"))
    first = store.import_tar(io.BytesIO(data), "a:1", ["ENV A=1"])
    second = store.import_tar(io.BytesIO(data), "b:1", ["ENV A=2"])
    assert first.layers == second.layers
    store.remove("a:1", free)
    assert (store.get("b:1").layer_dirs[0] / "x").exists()


ESCAPES = {
    "parent": [file("../../outside/hit")],
    "absolute": [file("/outside/hit")],
    "link to root": [link("out", "/"), file("out/outside/hit")],
    "link by parents": [link("d/out", "../../../../../.."), file("d/out/outside/hit")],
    "link over link": [link("a", "b"), link("b", "/"), file("a/outside/hit")],
    "directory through a link": [
        link("out", "/outside"),
        {"name": "outside", "type": tarfile.DIRTYPE, "mode": 0o755},
        {"name": "out/hit", "type": tarfile.DIRTYPE, "mode": 0o777},
    ],
    "whiteout": [link("out", "/outside"), file("out/.wh.hit")],
}


@pytest.mark.parametrize("members", ESCAPES.values(), ids=ESCAPES.keys())
def test_nothing_is_written_outside(layers: LayerStore, members: list[dict[str, Any]]) -> None:
    path = unpack(layers, file("outside/x"), *(dict(member) for member in members))
    assert not Path("/outside").exists()
    assert (path / "outside" / "hit").lstat()


def test_a_hard_link_cannot_bring_in_a_file_of_the_host(layers: LayerStore) -> None:
    for target in ("/etc/hostname", "../../../../../../etc/hostname"):
        with pytest.raises(ArchiveError, match="hard link"):
            unpack(layers, link("stolen", target, tarfile.LNKTYPE))
    # and a link to a link is the link itself, not what it points to
    path = unpack(layers, link("a", "/etc/hostname"), link("b", "a", tarfile.LNKTYPE))
    assert (path / "b").is_symlink()


def test_a_file_replaces_a_link_and_does_not_write_through_it(layers: LayerStore, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("safe")
    path = unpack(layers, link("x", str(victim)), file("x", b"evil"))
    assert victim.read_text() == "safe"
    assert (path / "x").read_bytes() == b"evil"


def test_whiteouts_become_overlayfs_ones(layers: LayerStore) -> None:
    path = unpack(
        layers, file("d/.wh.gone"), file("e/.wh..wh..opq"), file("e/new"), file(".wh..wh.plnk/0"), file("f/.wh.kept"),
        file("f/kept"),
    )  # fmt: skip
    gone = (path / "d" / "gone").lstat()
    assert stat.S_ISCHR(gone.st_mode)
    assert gone.st_rdev == 0
    assert os.getxattr(path / "e", "trusted.overlay.opaque") == b"y"
    assert sorted(entry.name for entry in (path / "e").iterdir()) == ["new"]
    assert (path / "f" / "kept").read_bytes() == b"x"


def test_overlay_attributes_of_an_archive_are_refused(layers: LayerStore) -> None:
    headers = {"SCHILY.xattr.trusted.overlay.redirect": "/etc", "SCHILY.xattr.user.note": "kept"}
    path = unpack(layers, file("x", pax_headers=headers))
    assert os.listxattr(path / "x") == ["user.note"]


def test_owner_mode_times_and_special_files(layers: LayerStore) -> None:
    path = unpack(
        layers,
        {"name": "d", "type": tarfile.DIRTYPE, "mode": 0o1750, "uid": 7, "gid": 8, "mtime": 1_000},
        file("d/f", mode=0o4711, uid=5, gid=6, mtime=2_000),
        {"name": "d/p", "type": tarfile.FIFOTYPE},
        {"name": "d/null", "type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3, "mode": 0o666},
    )
    directory, plain = (path / "d").stat(), (path / "d/f").stat()
    assert (stat.S_IMODE(directory.st_mode), directory.st_uid, directory.st_gid) == (0o1750, 7, 8)
    assert directory.st_mtime == 1_000
    assert (stat.S_IMODE(plain.st_mode), plain.st_uid, plain.st_gid, plain.st_mtime) == (0o4711, 5, 6, 2_000)
    assert stat.S_ISFIFO((path / "d/p").stat().st_mode)
    assert (path / "d/null").stat().st_rdev == os.makedev(1, 3)


def test_a_damaged_archive_is_refused_at_every_cut(layers: LayerStore) -> None:
    data = tar(file("a", b"1" * 700), file("b", b"2" * 700))
    for cut in (0, 1, 511, 513, 1000, 2048, 2100, 2600, 3000):
        with pytest.raises(ArchiveError):
            layers.unpack(io.BytesIO(data[:cut]))
    broken = bytearray(data)
    broken[1536 + 150] ^= 0xFF  # the second header's checksum
    with pytest.raises(ArchiveError):
        layers.unpack(io.BytesIO(bytes(broken)))
    assert layers.all() == set()


def blob(files: dict[str, bytes], kind: str, data: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(data).hexdigest()
    files[f"blobs/sha256/{digest}"] = data
    return {"digest": f"sha256:{digest}", "size": len(data), "mediaType": f"application/vnd.oci.image.{kind}"}


def image_files(annotations: dict[str, str]) -> dict[str, bytes]:
    layer = tar(file("hello", b"world"))
    config = {
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["/hello"]}, "created": "2020-01-02T03:04:05Z",
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }  # fmt: skip
    files: dict[str, bytes] = {}
    manifest = {
        "schemaVersion": 2,
        "config": blob(files, "config.v1+json", json.dumps(config).encode()),
        "layers": [blob(files, "layer.v1.tar+gzip", gzip.compress(layer, mtime=0))],
    }
    descriptor = blob(files, "manifest.v1+json", json.dumps(manifest).encode())
    files["index.json"] = json.dumps({"manifests": [{**descriptor, "annotations": annotations}]}).encode()
    files["oci-layout"] = b'{"imageLayoutVersion":"1.0.0"}'
    return files


def archive(files: dict[str, bytes]) -> io.BytesIO:
    return io.BytesIO(tar(*(file(name, data) for name, data in files.items())))


def test_load_an_oci_archive(store: ImageStore) -> None:
    files = image_files({"org.opencontainers.image.ref.name": "docker.io/library/hello:2"})
    assert load_archive(store, archive(files)) == ["Loaded image: hello:2"]
    image = store.get("hello:2")
    assert (image.layer_dirs[0] / "hello").read_bytes() == b"world"
    assert image.created_ns == 1_577_934_245_000_000_000
    assert load_archive(store, archive(image_files({}))) == [f"Loaded image ID: {image.id}"]


def test_load_checks_every_digest(store: ImageStore) -> None:
    files = image_files({})
    for name in [name for name in files if name.startswith("blobs/")]:
        damaged = dict(files)
        damaged[name] = (
            gzip.compress(tar(file("evil"))) if files[name][:2] == b"\x1f\x8b" else files[name] + b" "
        )
        with pytest.raises(ArchiveError, match=r"another content|layer verification failed"):
            load_archive(store, archive(damaged))
    assert store.list() == []


def test_load_what_is_no_archive(store: ImageStore) -> None:
    with pytest.raises(BadRequest, match=r"neither a manifest.json nor an index.json"):
        load_archive(store, archive({"x": b""}))
    with pytest.raises(BadRequest, match="error reading archive"):
        load_archive(store, io.BytesIO(b"nonsense" * 200))


def test_load_a_docker_archive_with_linked_layers(store: ImageStore) -> None:
    layer = tar(file("x", b"1"))
    digest = hashlib.sha256(layer).hexdigest()
    config = json.dumps({"rootfs": {"diff_ids": [f"sha256:{digest}"] * 2}}).encode()
    manifest = [
        {"Config": "c.json", "RepoTags": ["old:1", "old:2"], "Layers": ["1/layer.tar", "2/layer.tar"]}
    ]
    data = tar(
        file("1/layer.tar", layer), link("2/layer.tar", "../1/layer.tar"), file("c.json", config),
        file("manifest.json", json.dumps(manifest).encode()),
    )  # fmt: skip
    assert load_archive(store, io.BytesIO(data)) == ["Loaded image: old:1", "Loaded image: old:2"]
    assert store.get("old:2").repo_tags == ("old:1", "old:2")


def test_skopeo_writes_what_we_load(store: ImageStore, tmp_path: Path) -> None:
    files = image_files({"org.opencontainers.image.ref.name": "hello:2"})
    layout = tmp_path / "layout"
    for name, data in files.items():
        (layout / name).parent.mkdir(parents=True, exist_ok=True)
        (layout / name).write_bytes(data)
    target = tmp_path / "docker.tar"
    command = ["skopeo", "--insecure-policy", "--tmpdir", str(tmp_path), "copy", "-q"]
    source = f"oci:{layout}:hello:2"
    subprocess.run([*command, source, f"docker-archive:{target}:hello:3"], check=True, timeout=60)
    with target.open("rb") as stream:
        assert load_archive(store, stream) == ["Loaded image: hello:3"]
