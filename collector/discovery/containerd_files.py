"""What containerd and CRI-O keep on disk of a container: the bundle, and Kubernetes' log links.

No gRPC: the bundle has the CRI annotations, containerd's database (``containerd_metadata.py``) the rest, and
``/var/log/containers`` names pod, namespace and container of every container the kubelet runs, whichever
runtime it uses. Docker's own files, reached through its shim's bundle, are read here too.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import orjson

from collector.container import Container, LogSource
from collector.discovery.containerd_metadata import Metadata
from collector.discovery.inspection import image_id, parse_inspect, parse_time
from collector.discovery.oci_bundle import (
    annotations_of,
    cpu_shares,
    memory_limit,
    mounted_from,
    network_mode,
    read_bundle,
)

__all__ = [
    "CONTAINER",
    "NAMESPACE",
    "POD",
    "POD_UID",
    "KubernetesLog",
    "containerd_container",
    "crio_container",
    "docker_container",
    "find_kubernetes_log",
    "kubernetes_container",
    "parse_log_link",
]

logger = logging.getLogger(__name__)

#: The labels by which Kubernetes' runtimes name a container; the exposition makes series labels of them.
CONTAINER = "io.kubernetes.container.name"
POD = "io.kubernetes.pod.name"
NAMESPACE = "io.kubernetes.pod.namespace"
POD_UID = "io.kubernetes.pod.uid"

_CRI = "io.kubernetes.cri."
_CRIO = "io.kubernetes.cri-o."
#: Annotations of containerd's CRI part, and the labels they become.
_CRI_LABELS = {
    "container-name": CONTAINER,
    "sandbox-name": POD,
    "sandbox-namespace": NAMESPACE,
    "sandbox-uid": POD_UID,
}
_LINK = re.compile(r"(?P<pod>[^_]+)_(?P<namespace>[^_]+)_(?P<container>.+)-(?P<id>[0-9a-f]{64})\.log")
_POD_DIRECTORY = re.compile(r"(?P<namespace>[^_]+)_(?P<pod>[^_]+)_(?P<uid>[^_]+)")


@dataclass(frozen=True, slots=True)
class KubernetesLog:
    """A container's log as the kubelet has it made."""

    path: str
    labels: Mapping[str, str]


def containerd_container(root: Path, bundle: Path, metadata: Metadata, known: Container) -> Container:
    """``known`` completed from a containerd bundle and its database's ``metadata``.

    Raises OSError, ValueError where the bundle cannot be read.
    """
    spec = read_bundle(bundle)
    given = annotations_of(spec)
    labels = dict(metadata.labels)
    labels |= {label: given[_CRI + key] for key, label in _CRI_LABELS.items() if given.get(_CRI + key)}
    found = replace(
        known,
        name=labels.get("nerdctl/name") or metadata.name or known.name,
        image=given.get(_CRI + "image-name") or metadata.image,
        image_id=metadata.image_id,
        engine="containerd",
        network_mode=network_mode(spec),
        created_ns=metadata.created_ns,
        restarts=metadata.restarts,
        memory_limit_bytes=memory_limit(spec),
        cpu_shares=cpu_shares(spec),
        labels=labels,
    )
    if metadata.log_path:
        found = replace(found, log=LogSource("cri", _below(root, metadata.log_path)))
    sandbox = given.get(_CRI + "sandbox-id", "")
    if sandbox and given.get(_CRI + "container-type") == "container":
        found = replace(found, network_mode=f"container:{sandbox}")
    if "nerdctl/state-dir" in labels:
        path = f"{labels['nerdctl/state-dir']}/{known.id}-json.log"
        found = replace(found, log=LogSource("json-file", _below(root, path)))
    return found


def crio_container(root: Path, bundle: Path, known: Container) -> Container:
    """``known`` completed from a CRI-O bundle. Raises OSError, ValueError."""
    spec = read_bundle(bundle)
    given = annotations_of(spec)
    labels = _json_labels(given.get(_CRIO + "Labels", ""))
    labels |= {key: given[key] for key in (CONTAINER, POD, NAMESPACE, POD_UID) if given.get(key)}
    sandbox = given.get(_CRIO + "ContainerType") == "sandbox"
    mode = network_mode(spec)
    if not sandbox and given.get(_CRIO + "SandboxID"):
        mode = f"container:{given[_CRIO + 'SandboxID']}"
    if sandbox:
        labels.pop(CONTAINER, None)
    path = given.get(_CRIO + "LogPath", "")
    return replace(
        known,
        name=given.get(_CRIO + "Name") or known.name,
        image=given.get(_CRIO + "ImageName") or given.get(_CRIO + "Image", ""),
        image_id=image_id(given.get(_CRIO + "ImageRef", "")),
        engine="cri-o",
        network_mode=mode,
        created_ns=parse_time(given.get(_CRIO + "Created", "")),
        restarts=_attempt(given.get(_CRIO + "Metadata", "")),
        memory_limit_bytes=memory_limit(spec),
        cpu_shares=cpu_shares(spec),
        labels=labels,
        log=LogSource("cri", _below(root, path)) if path and not sandbox else known.log,
    )


def docker_container(root: Path, bundle: Path | None, known: Container) -> Container:
    """``known`` completed from Docker's own files, found by the bundle's mounts or in the usual place.

    Raises OSError, ValueError.
    """
    directory = root / "var/lib/docker/containers" / known.id
    if bundle is not None:
        for inside in ("/etc/hostname", "/etc/hosts", "/etc/resolv.conf"):
            source = Path(mounted_from(read_bundle(bundle), inside)).parent
            if source.name == known.id:
                directory = root / str(source).lstrip("/")
                break
    answer = orjson.loads((directory / "config.v2.json").read_bytes())
    answer["Id"] = answer.get("ID")
    answer["HostConfig"] = orjson.loads((directory / "hostconfig.json").read_bytes())
    found = parse_inspect(answer, "docker", known.cgroup)
    # The files are written now and then; what was seen of the process is newer.
    return replace(
        found,
        state=known.state,
        pid=known.pid,
        started_ns=known.started_ns,
        finished_ns=0,
        exit_code=None,
        log=replace(found.log, path=_below(root, found.log.path)) if found.log.path else found.log,
    )


def find_kubernetes_log(root: Path, container_id: str) -> KubernetesLog | None:
    """The log of a container by the kubelet's links, whose names and targets say what it is."""
    directory = root / "var/log/containers"
    end = f"-{container_id}.log"
    try:
        names = [path.name for path in directory.iterdir() if path.name.endswith(end)]
    except OSError:
        return None
    if not names:
        return None
    labels = parse_log_link(names[0])
    try:
        path = os.path.normpath(Path("/var/log/containers") / (directory / names[0]).readlink())
    except OSError:
        path = ""
    pod = _POD_DIRECTORY.fullmatch(Path(path).parent.parent.name)
    if pod:
        labels[POD_UID] = pod["uid"]
    return KubernetesLog(str(root / path.lstrip("/")) if path else str(directory / names[0]), labels)


def parse_log_link(name: str) -> dict[str, str]:
    """The labels in a link's name, ``<pod>_<namespace>_<container>-<id>.log``; empty for another name."""
    match = _LINK.fullmatch(name)
    if match is None:
        return {}
    return {POD: match["pod"], NAMESPACE: match["namespace"], CONTAINER: match["container"]}


def kubernetes_container(root: Path, pod_uid: str, known: Container) -> Container:
    """``known`` with the labels and the log a container of a pod has by Kubernetes' files."""
    labels = dict(known.labels)
    labels.setdefault(POD_UID, pod_uid)
    if POD not in labels:
        labels |= _pod_by_uid(root, pod_uid)
    log = find_kubernetes_log(root, known.id)
    source = known.log
    if log is not None:
        labels = dict(log.labels) | labels
        if not source.path:
            source = LogSource("cri", log.path)
    if not source.path and CONTAINER in labels:
        source = LogSource("cri", _newest_log(root, labels))
    return replace(known, labels=labels, log=source if source.path else known.log)


def _newest_log(root: Path, labels: Mapping[str, str]) -> str:
    """The file with the highest number in a container's directory below ``/var/log/pods``, or ""."""
    if not all(labels.get(key) for key in (NAMESPACE, POD, POD_UID)):
        return ""
    pod = f"{labels[NAMESPACE]}_{labels[POD]}_{labels[POD_UID]}"
    directory = root / "var/log/pods" / pod / labels[CONTAINER]
    try:
        names = [path.name for path in directory.iterdir()]
    except OSError:
        return ""
    numbers = [int(name[:-4]) for name in names if re.fullmatch(r"\d+\.log", name)]
    return str(directory / f"{max(numbers)}.log") if numbers else ""


def _pod_by_uid(root: Path, uid: str) -> dict[str, str]:
    """The labels of a pod by its log directory ``<namespace>_<pod>_<uid>``; empty where it has none."""
    try:
        names = [path.name for path in (root / "var/log/pods").iterdir() if path.name.endswith(f"_{uid}")]
    except OSError:
        return {}
    match = _POD_DIRECTORY.fullmatch(names[0]) if names else None
    return {POD: match["pod"], NAMESPACE: match["namespace"]} if match else {}


def _attempt(metadata: str) -> int:
    """How often Kubernetes restarted the container, by CRI-O's copy of the request's metadata."""
    attempt = _json_labels(metadata).get("attempt", "")
    return int(attempt) if attempt.isdigit() else 0


def _below(root: Path, path: str) -> str:
    return str(root / path.lstrip("/"))


def _json_labels(text: str) -> dict[str, str]:
    if not text:
        return {}
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}
