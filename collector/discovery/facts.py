"""What can be known of a cgroup without asking an engine: by its path, its processes, and engines' files.

Puts ``scopes.py`` (the path), ``keeper.py`` (who keeps its first process) and the readers of engines' files
together to a ``Container``. When to look is ``cgroups.py``'s.
"""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

from collector.container import Container, LogSource
from collector.discovery.containerd_files import (
    containerd_container,
    crio_container,
    docker_container,
    kubernetes_container,
)
from collector.discovery.containerd_metadata import read_metadata
from collector.discovery.keeper import Keeper, Process, boot_time_ns, keeper_of, read_process
from collector.discovery.podman_files import container_of_files, rootless_storage, storage_of_bundle
from collector.discovery.scopes import Kind, Scope
from collector.roots import Roots

__all__ = ["Facts", "Found"]

logger = logging.getLogger(__name__)

_USER_SLICE = re.compile(r"/user-(\d+)\.slice/")
_MOST_PROCESSES = 64
_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Found:
    """A container, and where its engine tells of its end."""

    container: Container
    exit_directory: Path | None = None  #: conmon's
    storage: Path | None = None  #: podman's and CRI-O's, with the container's directory in it
    status: Path | None = None  #: of containerd's CRI part, in a directory it removes with the container


class Facts:
    """Looks things up below the host's roots."""

    def __init__(self, roots: Roots) -> None:
        self._roots = roots
        self._boot_ns = boot_time_ns(roots.proc)
        self._tick_ns = 1_000_000_000 // os.sysconf("SC_CLK_TCK")

    def first_process(self, directory: Path, kind: Kind) -> Process | None:
        """The process of a cgroup whose parent is outside of it; a container's may be in a child of its cgroup."""
        if kind in (Kind.SLICE, Kind.POD):
            return None  # what is below is not theirs
        depth = 3 if kind is Kind.CONTAINER else 0
        for _ in range(_ATTEMPTS):
            process = self._first_of(_pids_in(directory, depth))
            # One that ended may have left its number to a process elsewhere before that was read.
            if process is None or process.pid in _pids_in(directory, depth):
                return process
        return None

    def _first_of(self, pids: set[int]) -> Process | None:
        found: list[Process] = []
        for pid in sorted(pids)[:_MOST_PROCESSES]:
            try:
                process = read_process(self._roots.proc, pid)
            except (OSError, ValueError):
                continue  # it has ended
            if process.parent not in pids:
                return process
            found.append(process)
        return found[0] if found else None

    def find(self, scope: Scope, process: Process | None) -> Found:
        """Everything there is to know; files that cannot be read leave gaps."""
        keeper = self._keeper(process)
        container_id, engine, name = _identity(scope, keeper)
        container = Container(
            id=container_id,
            name=name,
            engine=engine,
            pid=process.pid if process else 0,
            cgroup=scope.path,
            network_mode="" if engine else "none",  # a bare cgroup's interfaces are the host's
            started_ns=self._boot_ns + process.started_ticks * self._tick_ns if process else 0,
        )
        if not engine:
            return Found(self._pod(scope, container) if scope.pod_uid else container)
        try:
            return self._complete(scope, keeper, container)
        except (OSError, ValueError) as error:
            logger.debug("no files say more of container %s of %s: %s", name, engine, error)
            return Found(self._pod(scope, container) if scope.pod_uid else container)

    def _complete(self, scope: Scope, keeper: Keeper | None, container: Container) -> Found:
        bundle = self._below(keeper.bundle) if keeper and keeper.bundle else None
        exits = self._below(keeper.exit_directory) if keeper and keeper.exit_directory else None
        storage = status = None
        if container.engine == "podman":
            storage = storage_of_bundle(str(bundle)) if bundle else None
            storage = storage or self._usual_storage(scope)
            if keeper and keeper.log_driver:
                path = str(self._below(keeper.log_path)) if keeper.log_path else ""
                container = replace(container, log=LogSource(keeper.log_driver, path))
            container = container_of_files(storage, container.id, container)
        elif container.engine == "cri-o":
            bundle = bundle or self._below(
                f"/run/containers/storage/overlay-containers/{container.id}/userdata"
            )
            storage = storage_of_bundle(str(bundle))
            container = crio_container(self._roots.root, bundle, container)
        elif container.engine == "docker":
            inside = bundle.parent / container.id if bundle else None
            container = docker_container(self._roots.root, inside, container)
        elif container.engine == "containerd":
            container, status = self._containerd(keeper, bundle, scope, container)
        if scope.pod_uid:
            container = self._pod(scope, container)
        container = replace(container, log=replace(container.log, user=_user(keeper, scope)))
        return Found(container, exits, storage, status)

    def _containerd(
        self, keeper: Keeper | None, bundle: Path | None, scope: Scope, container: Container
    ) -> tuple[Container, Path | None]:
        if keeper is None or bundle is None:
            namespace = "k8s.io" if scope.pod_uid else "default"
            name = container.id
            bundle = self._below(f"/run/containerd/io.containerd.runtime.v2.task/{namespace}/{name}")
        else:  # a shim of a pod keeps all its containers: their bundles are beside each other
            namespace = keeper.namespace
            own = scope.id or scope.path.rpartition("/")[2]
            name = own if (bundle.parent / own).is_dir() else keeper.id
            bundle = bundle.parent / name
        metadata = read_metadata(self._roots.root, bundle, namespace, name)
        return containerd_container(self._roots.root, bundle, metadata, container), metadata.status

    def _pod(self, scope: Scope, container: Container) -> Container:
        return kubernetes_container(self._roots.root, scope.pod_uid, container)

    def _keeper(self, process: Process | None) -> Keeper | None:
        if process is None:
            return None
        try:
            return keeper_of(self._roots.proc, process)
        except (OSError, ValueError):
            return None  # it has ended, or we may not look

    def _usual_storage(self, scope: Scope) -> Path:
        user = _user(None, scope)
        own = rootless_storage(self._roots.root, user) if user else None
        return self._below(str(own or "/var/lib/containers/storage"))

    def _below(self, path: str) -> Path:
        return self._roots.root / path.lstrip("/")


def _user(keeper: Keeper | None, scope: Scope) -> int:
    """Whose container it is: root's or, of an engine without root, a user's."""
    if keeper is not None:
        return keeper.user
    found = _USER_SLICE.search(scope.path)
    return int(found[1]) if found else 0


def _identity(scope: Scope, keeper: Keeper | None) -> tuple[str, str, str]:
    """Id, engine and provisional name."""
    engine = scope.engine
    if keeper is None:
        if scope.kind is Kind.CONTAINER and scope.pod_uid:
            engine = engine or "kubernetes"
        if engine:
            return scope.id, engine, scope.id[:12]
        return scope.path, "", ""
    if keeper.kind == "conmon":
        if scope.kind is not Kind.CONTAINER and keeper.id not in scope.path:
            return scope.path, "", ""  # podman's --cgroups=no-conmon and the like: somebody else's cgroup
        if engine != "cri-o":
            engine = "cri-o" if keeper.name.startswith("k8s_") else "podman"
        return scope.id or keeper.id, engine, keeper.name or keeper.id[:12]
    own = scope.path.rpartition("/")[2]
    if keeper.namespace == "moby":
        return scope.id or keeper.id, "docker", (scope.id or keeper.id)[:12]
    if scope.kind is Kind.CONTAINER:
        return scope.id, "containerd", scope.id[:12]
    if scope.kind is Kind.CGROUP and own in (keeper.id, f"{keeper.namespace}-{keeper.id}"):
        return f"{keeper.id}@{keeper.namespace}", "containerd", keeper.id
    return scope.path, "", ""


def _pids_in(directory: Path, depth: int) -> set[int]:
    """The processes of a cgroup, or of the nearest of its descendants that have any."""
    try:
        pids = {int(word) for word in (directory / "cgroup.procs").read_bytes().split()}
    except (OSError, ValueError):  # gone, or a threaded cgroup, which does not answer
        pids = set()
    pids.discard(0)  # a process outside our pid namespace
    if pids or depth == 0:
        return pids
    try:
        children = sorted(
            entry.path for entry in os.scandir(directory) if entry.is_dir(follow_symlinks=False)
        )
    except OSError:
        return pids
    for child in children:
        pids = _pids_in(Path(child), depth - 1)
        if pids:
            return pids
    return pids
