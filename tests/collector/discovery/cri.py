"""A real containerd with its CRI part, in a network namespace of its own, spoken to as a kubelet does.

CRI is gRPC: protocol buffers in HTTP/2, which curl speaks; the few messages needed are put together by
their field numbers in k8s.io/cri-api's ``runtime/v1/api.proto``.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
import subprocess
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

from live import Containerd

Field = tuple[int, "int | str | list[Field]"]


def encode(fields: list[Field]) -> bytes:
    """A message, from numbers and values of its fields."""
    data = b""
    for number, value in fields:
        if isinstance(value, int):
            data += _varint(number << 3) + _varint(value)
        else:
            inner = value.encode() if isinstance(value, str) else encode(value)
            data += _varint(number << 3 | 2) + _varint(len(inner)) + inner
    return data


def _varint(value: int) -> bytes:
    data = b""
    while value > 127:
        data += bytes([value & 127 | 128])
        value >>= 7
    return data + bytes([value])


def string_map(number: int, values: dict[str, str]) -> list[Field]:
    """A map of strings."""
    return [(number, [(1, key), (2, value)]) for key, value in values.items()]


def first_string(answer: bytes) -> str:
    """The string that is an answer's only field of interest, its first."""
    assert answer[0] == 1 << 3 | 2, answer
    return answer[2 : 2 + answer[1]].decode()


@dataclass
class Pod:
    """A sandbox, and what was asked for."""

    id: str
    config: list[Field]
    labels: dict[str, str]


@dataclass
class Cri(Containerd):
    """containerd as a node has it, the images ``localhost/pause:1`` and ``localhost/bb:1`` imported."""

    namespace: str = "k8s.io"
    network: str = ""
    pods: list[Pod] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.network = self.root.name
        _ip("netns", "add", self.network)
        _ip("-n", self.network, "link", "set", "lo", "up")
        (self.root / "net").mkdir()
        (Path("/sys/fs/cgroup/memory") / self.cgroup).mkdir()  # to be followed before there is a pod
        plugin = {"type": "ptp", "ipam": {"type": "host-local", "subnet": "10.213.77.0/24"}}
        plugin["ipam"]["dataDir"] = str(self.root / "addresses")  # type: ignore[index]
        network = {"cniVersion": "0.4.0", "name": "tf", "plugins": [plugin]}
        (self.root / "net/10.conflist").write_text(json.dumps(network))
        super().__post_init__()
        for name, command in (("pause:1", ["/bin/sleep", "100000"]), ("bb:1", ["/bin/sh"])):
            archive = self.root / "image.tar"
            archive.write_bytes(image(self.rootfs, f"localhost/{name}", command))
            self("image", "import", str(archive))

    @property
    def cgroup(self) -> str:
        return self.root.name

    @property
    def configuration(self) -> str:
        cri = '[plugins."io.containerd.grpc.v1.cri"'
        return (
            f'{cri}]\nsandbox_image = "localhost/pause:1"\nrestrict_oom_score_adj = true\n'
            f'{cri}.containerd]\nsnapshotter = "native"\n'
            f'{cri}.cni]\nbin_dir = "/usr/lib/cni"\nconf_dir = "{self.root}/net"\n'
        )

    @property
    def launcher(self) -> list[str]:
        return ["nsenter", f"--net=/run/netns/{self.network}"]

    def call(self, method: str, fields: list[Field]) -> bytes:
        """Call a method of the runtime service; its answer, undecoded."""
        message, trailers = encode(fields), self.root / "trailers"
        done = subprocess.run(
            [
                *("curl", "-sS", "--max-time", "60", "--http2-prior-knowledge", "--unix-socket", f"{self.root}/s"),
                *("-H", "content-type: application/grpc", "-H", "te: trailers", "--data-binary", "@-"),
                *("-D", str(trailers), f"http://cri/runtime.v1.RuntimeService/{method}"),
            ],
            input=b"\0" + struct.pack(">I", len(message)) + message,
            capture_output=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "grpc-status: 0" in trailers.read_text(), trailers.read_text()
        return done.stdout[5:]

    def pod(self, name: str, namespace: str, uid: str) -> Pod:
        """Run a sandbox with a network namespace; its logs are below the directory ``pods``."""
        labels = {
            "io.kubernetes.pod.name": name,
            "io.kubernetes.pod.namespace": namespace,
            "io.kubernetes.pod.uid": uid,
        }
        cgroup = f"/{self.cgroup}/kubepods/burstable/pod{uid}"
        config: list[Field] = [
            (1, [(1, name), (2, uid), (3, namespace)]),
            (2, name),
            (3, f"{self.root}/pods/{namespace}_{name}_{uid}"),
            *string_map(6, labels),
            (8, [(1, cgroup), (2, [(1, [(1, 0), (2, 1)])])]),  # POD's network, CONTAINER's processes
        ]
        pod = Pod(first_string(self.call("RunPodSandbox", [(1, config)])), config, labels)
        self.pods.append(pod)
        return pod

    def container(
        self, pod: Pod, name: str, script: str, *, attempt: int = 0, memory: int = 0, quota: int = 0
    ) -> str:
        """Start a container of the pod; returns its id."""
        limits: list[Field] = [(1, 100_000), (2, quota), (3, 512), (4, memory)]
        config: list[Field] = [
            (1, [(1, name), (2, attempt)]),
            (2, [(1, "localhost/bb:1")]),
            *((3, word) for word in ("/bin/sh", "-c", script)),
            *string_map(9, pod.labels | {"io.kubernetes.container.name": name}),
            (11, f"{name}/{attempt}.log"),
            (15, [(1, limits)]),
        ]
        answer = self.call("CreateContainer", [(1, pod.id), (2, config), (3, pod.config)])
        container_id = first_string(answer)
        self.call("StartContainer", [(1, container_id)])
        return container_id

    def close(self) -> None:
        for pod in self.pods:
            self.call("StopPodSandbox", [(1, pod.id)])
            self.call("RemovePodSandbox", [(1, pod.id)])
        self.pods.clear()
        super().close()
        _ip("netns", "del", self.network)


def image(tree: Path, name: str, command: list[str]) -> bytes:
    """A directory as an image archive."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        archive.add(tree, ".")
    digest = hashlib.sha256(layer.getvalue()).hexdigest()
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": command},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        for path, data in (
            ("config.json", json.dumps(config).encode()),
            ("layer.tar", layer.getvalue()),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            entry = tarfile.TarInfo(path)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return whole.getvalue()


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
