"""The demonstration: containers from a rootfs made on the spot, writing through json-file, gelf and fluentd.

The rootfs is a static busybox and nothing else, so no image registry is needed. The gelf and fluentd
containers write to the collector's own inputs, wherever those listen.
"""

from __future__ import annotations

import io
import logging
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

from taffrail.agent_client import AgentClient
from taffrail.config import Config
from taffrail.errors import CommandError
from taffrail.wiring import Endpoints, make_paths, read_endpoints

__all__ = ["DEMO_IMAGE", "DemoContainer", "busybox_rootfs", "demo_containers", "remove_demo", "start_demo"]

log = logging.getLogger(__name__)

DEMO_IMAGE = "taffrail/demo:1"

#: An access log in the combined format, one line in twenty a 404 and one in fifty a 500, with a little load.
_WEB = """
n=0
while true; do
  n=$((n+1)); s=200; [ $((n%20)) = 0 ] && s=404; [ $((n%50)) = 0 ] && s=500
  echo "10.0.0.$((n%250)) - - [$(date -u +%d/%b/%Y:%H:%M:%S) +0000] \\"GET /items/$n HTTP/1.1\\" $s $((n%9000))"
  [ $s = 500 ] && echo "upstream timed out while reading /items/$n" >&2
  i=0; while [ $i -lt 2000 ]; do i=$((i+1)); done
  sleep 0.2
done
"""
_WORKER = """
n=0
while true; do
  n=$((n+1)); l=info; [ $((n%15)) = 0 ] && l=error
  echo "{\\"level\\":\\"$l\\",\\"job\\":$n,\\"took_ms\\":$((n*37%900)),\\"msg\\":\\"job $n done\\"}"
  [ $((n%15)) = 0 ] && echo "{\\"level\\":\\"error\\",\\"job\\":$n,\\"msg\\":\\"timed out\\"}" >&2
  sleep 0.5
done
"""
_QUEUE = """
n=0; head -c 8000000 /dev/zero > /dev/shm/queue
while true; do
  n=$((n+1)); echo "level=info queue=orders depth=$((n*13%70)) msg=\\"batch $n accepted\\""
  sleep 1
done
"""


@dataclass(frozen=True, slots=True)
class DemoContainer:
    """One container of the demonstration."""

    name: str
    script: str
    driver: str
    options: dict[str, str]
    memory_bytes: int = 0

    def body(self) -> dict[str, object]:
        """The Engine API's create request."""
        return {
            "Image": DEMO_IMAGE,
            "Cmd": ["sh", "-c", self.script],
            "Labels": {"com.docker.compose.project": "demo", "com.docker.compose.service": self.name},
            "HostConfig": {
                "Memory": self.memory_bytes,
                "NanoCpus": 500_000_000,
                "LogConfig": {"Type": self.driver, "Config": self.options},
            },
        }


def demo_containers(endpoints: Endpoints) -> list[DemoContainer]:
    """The containers, a driver each; those whose input is switched off are left out."""
    wanted = [
        DemoContainer("demo-web", _WEB, "json-file", {"max-size": "10m", "max-file": "3"}),
    ]
    if endpoints.gelf:
        wanted.append(
            DemoContainer(
                "demo-worker", _WORKER, "gelf", {"gelf-address": f"udp://{endpoints.gelf}", "tag": "worker"}
            )
        )
    if endpoints.forward:
        options = {
            "fluentd-address": f"tcp://{endpoints.forward}",
            "tag": "queue",
            "fluentd-sub-second-precision": "true",
        }
        wanted.append(DemoContainer("demo-queue", _QUEUE, "fluentd", options, memory_bytes=64 * 1024 * 1024))
    return wanted


def start_demo(config: Config) -> None:
    """Make the image and start the containers; those that run already are left alone.

    Raises CommandError if the engine refuses, ConnectionError if nobody answers.
    """
    paths = make_paths(config)
    engine = AgentClient(paths.engine_socket)
    names = _existing(engine)
    if not _has_image(engine):
        engine.request("POST", "/images/create", _image_query(), busybox_rootfs()).read()
    for container in demo_containers(read_endpoints(paths)):
        if container.name not in names:
            engine.request("POST", "/containers/create", {"name": container.name}, container.body()).read()
        if names.get(container.name) != "running":
            engine.request("POST", f"/containers/{container.name}/start").read()
            log.info("started %s with log driver %s", container.name, container.driver)


def remove_demo(config: Config) -> None:
    """Stop and remove the demonstration's containers."""
    engine = AgentClient(make_paths(config).engine_socket)
    for name in _existing(engine):
        if name.startswith("demo-"):
            engine.request("DELETE", f"/containers/{name}", {"force": "1", "v": "1"}).read()
            log.info("removed %s", name)


def _existing(engine: AgentClient) -> dict[str, str]:
    """State by name of every container the engine has."""
    answer = engine.json("/containers/json", {"all": "1"})
    assert isinstance(answer, list)
    return {name.lstrip("/"): item["State"] for item in answer for name in item["Names"]}


def _has_image(engine: AgentClient) -> bool:
    answer = engine.json("/images/json")
    assert isinstance(answer, list)
    return any(DEMO_IMAGE in (image.get("RepoTags") or []) for image in answer)


def _image_query() -> dict[str, str]:
    repo, tag = DEMO_IMAGE.split(":")
    return {"fromSrc": "-", "repo": repo, "tag": tag, "message": "static busybox", "changes": 'CMD ["sh"]'}


def busybox_rootfs() -> bytes:
    """A tar of a root filesystem around the host's static busybox.

    Raises CommandError if there is none.
    """
    found = next((path for path in map(shutil.which, ("busybox", "busybox.static")) if path), None)
    if found is None or _needs_loader(Path(found)):
        raise CommandError(
            f"the demo needs a static busybox, found {found or 'none on PATH'}: apt-get install busybox-static"
        )
    applets = subprocess.run([found, "--list"], check=True, capture_output=True, text=True).stdout.split()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, mode in (
            ("bin", 0o755),
            ("etc", 0o755),
            ("proc", 0o555),
            ("sys", 0o555),
            ("dev", 0o755),
            ("tmp", 0o1777),
        ):
            _add(tar, name, tarfile.DIRTYPE, mode=mode)
        _add(tar, "bin/busybox", tarfile.REGTYPE, Path(found).read_bytes(), mode=0o755)
        for applet in applets:
            if applet != "busybox":
                _add(tar, f"bin/{applet}", tarfile.SYMTYPE, link="busybox")
        _add(
            tar,
            "etc/passwd",
            tarfile.REGTYPE,
            b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
        )
        _add(tar, "etc/group", tarfile.REGTYPE, b"root:x:0:\nnogroup:x:65534:\n")
    return buffer.getvalue()


def _add(
    tar: tarfile.TarFile, name: str, kind: bytes, data: bytes = b"", *, mode: int = 0o644, link: str = ""
) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.mode, member.size, member.linkname = kind, mode, len(data), link
    tar.addfile(member, io.BytesIO(data))


def _needs_loader(program: Path) -> bool:
    """Whether an ELF file names a dynamic loader, so that it would not run in an empty root (PT_INTERP)."""
    data = program.read_bytes()
    if data[:4] != b"\x7fELF":
        return True
    wide = data[4] == 2
    start = int.from_bytes(data[32:40] if wide else data[28:32], "little")
    size, count = (int.from_bytes(data[at : at + 2], "little") for at in ((54, 56) if wide else (42, 44)))
    return any(
        int.from_bytes(data[start + i * size : start + i * size + 4], "little") == 3 for i in range(count)
    )
