"""Every engine's layout on every kind of host, found from files alone."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from host_tree import HostTree

from collector.container import Container
from collector.discovery.cgroups import CgroupDiscovery
from collector.discovery.registry import Containers

ID, SANDBOX = "1f" * 32, "2e" * 32
UID = "0c1e6a3b-6d7e-4f00-9a4b-1234567890ab"
SLICE_UID = UID.replace("-", "_")
NAMESPACES = [{"type": "pid"}, {"type": "network"}]


@pytest.fixture(params=["v1", "hybrid", "v2"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return HostTree(tmp_path, request.param)


def discover(
    tree: Any, then: Callable[[Containers, CgroupDiscovery], Awaitable[None]] | None = None, **more: Any
) -> Containers:
    """What is found at the start; ``then`` goes on while it is followed."""
    containers = Containers()

    async def scenario() -> None:
        discovery = CgroupDiscovery(containers, tree.roots, patience_seconds=0.05, **more)
        task = asyncio.create_task(discovery.run())
        while not discovery.known:
            await asyncio.sleep(0.005)
            assert not task.done(), task.result()
        if then is not None:
            await then(containers, discovery)
        assert discovery.failures == {}
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scenario())
    return containers


def only(containers: Containers) -> Container:
    found = containers.all()
    assert len(found) == 1, found
    return found[0]


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(120):
        while not condition():
            await asyncio.sleep(0.005)


# --- Docker ------------------------------------------------------------------------------------------


def docker_files(tree: Any, root: str, container_id: str = ID) -> None:
    config = {
        "ID": container_id,
        "Name": "/web",
        "Created": "2026-01-02T03:04:05Z",
        "Image": "sha256:" + "a" * 64,
        "RestartCount": 2,
        "LogPath": f"{root}/containers/{container_id}/{container_id}-json.log",
        "State": {"Running": True, "Pid": 4, "StartedAt": "2026-01-02T03:04:06Z", "Health": {"Status": "healthy"}},
        "Config": {"Image": "nginx:1", "Labels": {"com.docker.compose.project": "shop"}},
        "NetworkSettings": {"Networks": {"shop_default": {}}},
    }  # fmt: skip
    tree.write(f"root/{root}/containers/{container_id}/config.v2.json", config)
    host = {
        "NetworkMode": "shop_default",
        "Memory": 1 << 20,
        "LogConfig": {"Type": "json-file", "Config": {}},
    }
    tree.write(f"root/{root}/containers/{container_id}/hostconfig.json", host)


@pytest.mark.parametrize(
    "path",
    [f"/docker/{ID}", f"/system.slice/docker-{ID}.scope", f"/team.slice/docker-{ID}.scope", f"/build/{ID}"],
)
def test_docker_whose_socket_is_not_followed(tree: Any, path: str) -> None:
    root, bundle = "/srv/docker", f"/run/docker/containerd/daemon/io.containerd.runtime.v2.task/moby/{ID}"
    docker_files(tree, root)
    mounts = [{"destination": "/etc/hostname", "source": f"{root}/containers/{ID}/hostname"}]
    tree.write(f"root{bundle}/config.json", {"mounts": mounts})
    pid = tree.process("nginx", parent=tree.shim("moby", ID, bundle))
    tree.cgroup(path, pid)
    found = only(discover(tree))
    assert (found.id, found.name, found.image, found.engine) == (ID, "web", "nginx:1", "docker")
    assert (found.state, found.pid, found.cgroup, found.exit_code) == ("running", pid, path, None)
    assert (found.health, found.restarts, found.networks) == ("healthy", 2, ("shop_default",))
    assert found.labels["com.docker.compose.project"] == "shop"
    assert (found.memory_limit_bytes, found.log.driver) == (1 << 20, "json-file")
    assert found.started_ns == 1_700_000_042_000_000_000


def test_docker_without_a_process_to_ask_by_its_usual_place(tree: Any) -> None:
    docker_files(tree, "var/lib/docker")
    tree.cgroup(f"/docker/{ID}", tree.process("nginx"))
    assert only(discover(tree)).name == "web"


# --- podman ------------------------------------------------------------------------------------------

PODMAN = {
    "id": ID,
    "name": "db",
    "rootfsImageName": "docker.io/library/postgres:16",
    "rootfsImageID": "b" * 64,
    "labels": {"io.podman.compose.project": "shop"},
    "createdTime": "2026-01-02T03:04:05Z",
    "logDriver": "k8s-file",
    "logPath": "/x/ctr.log",
    "newNetworks": {"podman": {}},
    "spec": {"linux": {"namespaces": NAMESPACES, "resources": {"memory": {"limit": 5 << 20}}}},
}


def podman_database(tree: Any, storage: str, config: dict[str, Any], state: dict[str, Any]) -> None:
    import json

    path = tree.write(f"root{storage}/db.sql", "")
    with sqlite3.connect(path) as database:
        database.execute(
            "CREATE TABLE ContainerConfig (ID TEXT PRIMARY KEY, Name TEXT, PodID TEXT, JSON TEXT)"
        )
        database.execute(
            "CREATE TABLE ContainerState (ID TEXT PRIMARY KEY, State INT, ExitCode INT, JSON TEXT)"
        )
        database.execute("INSERT INTO ContainerConfig VALUES (?, ?, NULL, ?)", (ID, "db", json.dumps(config)))
        database.execute("INSERT INTO ContainerState VALUES (?, 3, 0, ?)", (ID, json.dumps(state)))
    database.close()


@pytest.mark.parametrize(
    ("path", "inner", "storage"),
    [
        (f"/machine.slice/libpod-{ID}.scope", "/container", "/var/lib/containers/storage"),
        (f"/libpod_parent/libpod-{ID}", "", "/var/lib/containers/storage"),
        (
            f"/machine.slice/machine-libpod_pod_{SANDBOX}.slice/libpod-{ID}.scope",
            "",
            "/var/lib/containers/storage",
        ),
        (f"/system.slice/db.service/libpod-payload-{ID}", "", "/var/lib/containers/storage"),
        (
            f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope",
            "/container",
            "/home/jo/.local/share/containers/storage",
        ),
    ],
)
def test_podman_root_and_rootless(tree: Any, path: str, inner: str, storage: str) -> None:
    podman_database(tree, storage, PODMAN, {"restartCount": 3})
    bundle = f"{storage}/overlay-containers/{ID}/userdata"
    log = f"{bundle}/ctr.log"
    pid = tree.process("postgres", parent=tree.conmon(ID, bundle, f"k8s-file:{log}", "db", user=1000))
    tree.cgroup(path + inner, pid)
    containers = discover(tree)
    found = only(containers)
    assert (found.id, found.name, found.image) == (ID, "db", "docker.io/library/postgres:16")
    assert (found.engine, found.pid, found.cgroup) == ("podman", pid, path)
    assert (found.labels, found.networks) == ({"io.podman.compose.project": "shop"}, ("podman",))
    assert (found.restarts, found.memory_limit_bytes, found.network_mode) == (3, 5 << 20, "bridge")
    assert (found.log.driver, found.log.path) == ("k8s-file", str(tree.directory / "root") + log)
    assert found.log.user == 1000, "only files of whoever started conmon are read"
    assert all("container" not in cgroup.id for cgroup in containers.cgroups())


@pytest.mark.parametrize(
    ("more", "mode"),
    [
        ({"netNsCtr": SANDBOX}, f"container:{SANDBOX}"),
        ({"newNetworks": None, "spec": {"linux": {"namespaces": [{"type": "pid"}]}}}, "host"),
        ({"newNetworks": None, "createNetNS": False}, "none"),
    ],
)
def test_podmans_network_modes(tree: Any, more: dict[str, Any], mode: str) -> None:
    storage = "/var/lib/containers/storage"
    podman_database(tree, storage, PODMAN | more, {})
    bundle = f"{storage}/overlay-containers/{ID}/userdata"
    tree.cgroup(
        f"/machine.slice/libpod-{ID}.scope", tree.process("x", parent=tree.conmon(ID, bundle, "none", "db"))
    )
    assert only(discover(tree)).network_mode == mode


def test_podman_by_its_list_where_there_is_no_database(tree: Any) -> None:
    storage = "root/var/lib/containers/storage"
    entry = {"id": ID, "names": ["db"], "image": "b" * 64, "metadata": '{"image-name":"pg:1"}'}
    tree.write(f"{storage}/overlay-containers/containers.json", [entry])
    tree.write(f"{storage}/overlay-containers/{ID}/userdata/config.json", PODMAN["spec"])
    tree.cgroup(f"/machine.slice/libpod-{ID}.scope", tree.process("x"))  # its conmon is gone
    found = only(discover(tree))
    assert (found.name, found.image, found.memory_limit_bytes) == ("db", "pg:1", 5 << 20)


# --- Kubernetes --------------------------------------------------------------------------------------

CGROUPFS = f"/kubepods/burstable/pod{UID}"
SYSTEMD = f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{SLICE_UID}.slice"
GUARANTEED = f"/kubepods.slice/kubepods-pod{SLICE_UID}.slice"
ODD = f"/system.slice/containerd.service/kubepods-burstable-pod{SLICE_UID}.slice"
KUBERNETES = {
    "io.kubernetes.container.name": "app",
    "io.kubernetes.pod.name": "shop-0",
    "io.kubernetes.pod.namespace": "prod",
    "io.kubernetes.pod.uid": UID,
}


def kubernetes_logs(tree: Any) -> str:
    path = f"/var/log/pods/prod_shop-0_{UID}/app/2.log"
    tree.write(f"root{path}", "")
    tree.link(f"root/var/log/containers/shop-0_prod_app-{ID}.log", path)
    return str(tree.directory / "root") + path


@pytest.mark.parametrize(
    "path",
    [
        f"{CGROUPFS}/{ID}",
        f"/kubepods/pod{UID}/{ID}",
        f"{SYSTEMD}/cri-containerd-{ID}.scope",
        f"{GUARANTEED}/cri-containerd-{ID}.scope",
        f"{ODD}:cri-containerd:{ID}",
        f"/docker/{'9' * 64}/kubelet/kubepods/besteffort/pod{UID}/{ID}",
    ],
)
def test_kubernetes_with_containerd(tree: Any, path: str) -> None:
    log = kubernetes_logs(tree)
    tasks = "/run/containerd/io.containerd.runtime.v2.task/k8s.io"
    cri = "io.kubernetes.cri."
    spec = {
        "annotations": {
            cri + "container-type": "container",
            cri + "container-name": "app",
            cri + "sandbox-id": SANDBOX,
            cri + "sandbox-name": "shop-0",
            cri + "sandbox-namespace": "prod",
            cri + "image-name": "registry/app:7",
        },
        "linux": {"namespaces": NAMESPACES, "resources": {"memory": {"limit": 7 << 20}}},
    }
    tree.write(f"root{tasks}/{ID}/config.json", spec)
    keeper = tree.shim("k8s.io", SANDBOX, f"{tasks}/{SANDBOX}")  # one shim for the whole pod
    pid = tree.process("app", parent=keeper)
    tree.cgroup(path, pid)
    found = discover(tree).get(ID)
    assert found is not None
    assert (found.id, found.engine, found.image) == (ID, "containerd", "registry/app:7")
    assert found.labels == KUBERNETES
    assert (found.cgroup, found.pid, found.memory_limit_bytes) == (path, pid, 7 << 20)
    assert found.network_mode == f"container:{SANDBOX}"
    assert (found.log.driver, found.log.path) == ("cri", log)


@pytest.mark.parametrize("path", [f"{CGROUPFS}/crio-{ID}", f"{SYSTEMD}/crio-{ID}.scope"])
def test_kubernetes_with_cri_o(tree: Any, path: str) -> None:
    log = f"/var/log/pods/prod_shop-0_{UID}/app/0.log"
    bundle = f"/run/containers/storage/overlay-containers/{ID}/userdata"
    crio = "io.kubernetes.cri-o."
    spec = {
        "annotations": KUBERNETES
        | {
            crio + "ContainerType": "container",
            crio + "SandboxID": SANDBOX,
            crio + "ImageName": "registry/app:7",
            crio + "LogPath": log,
            crio + "Labels": '{"tier":"front"}',
        },
        "linux": {"namespaces": NAMESPACES},
    }
    tree.write(f"root{bundle}/config.json", spec)
    name = f"k8s_app_shop-0_prod_{UID}_0"
    pid = tree.process("app", parent=tree.conmon(ID, bundle, log, name))
    tree.cgroup(path, pid)
    found = only(discover(tree))
    assert (found.engine, found.name, found.image) == ("cri-o", name, "registry/app:7")
    assert found.labels == KUBERNETES | {"tier": "front"}
    assert (found.log.driver, found.log.path) == ("cri", f"{tree.directory}/root{log}")
    assert found.network_mode == f"container:{SANDBOX}"


def test_a_pods_container_by_the_kubelets_links_alone(tree: Any) -> None:
    log = kubernetes_logs(tree)
    tree.cgroup(f"{CGROUPFS}/{ID}", tree.process("app"))
    containers = discover(tree)
    found = only(containers)
    assert (found.engine, found.labels, found.log.path) == ("kubernetes", KUBERNETES, log)
    pod = next(cgroup for cgroup in containers.cgroups() if cgroup.id == CGROUPFS)
    assert (pod.labels["io.kubernetes.pod.name"], pod.name, pod.image) == ("shop-0", "", "")


# --- containerd alone, services, anything else -------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "namespace", "name", "expected"),
    [
        ("/tst/box1", "tst", "box1", ("box1@tst", "box1")),
        (f"/default/{ID}", "default", ID, (ID, "web")),
        (f"/system.slice/nerdctl-{ID}.scope", "default", ID, (ID, "web")),
    ],
)
def test_containerd_by_ctr_and_nerdctl(
    tree: Any, path: str, namespace: str, name: str, expected: tuple[str, str]
) -> None:
    bundle = f"/run/containerd/io.containerd.runtime.v2.task/{namespace}/{name}"
    tree.write(f"root{bundle}/config.json", {"linux": {"namespaces": NAMESPACES}})
    tree.cgroup(path, tree.process("x", parent=tree.shim(namespace, name, bundle)))
    found = only(discover(tree))
    provisional = ID[:12] if name == ID else name
    assert (found.id, found.name, found.engine) == (expected[0], provisional, "containerd")


def test_services_and_slices_are_bare(tree: Any) -> None:
    pid = tree.process("sshd")
    tree.cgroup("/system.slice/ssh.service", pid)
    tree.cgroup("/mine/deep/er")
    containers = discover(tree)
    assert containers.all() == ()
    found = {cgroup.id: cgroup for cgroup in containers.cgroups()}
    assert set(found) == {
        "/system.slice",
        "/system.slice/ssh.service",
        "/mine",
        "/mine/deep",
        "/mine/deep/er",
    }
    ssh = found["/system.slice/ssh.service"]
    assert (ssh.name, ssh.image, ssh.engine, ssh.cgroup, ssh.pid) == ("", "", "", ssh.id, pid)
    assert found["/system.slice"].pid == 0  # the service's process is not the slice's


def test_what_a_container_does_inside_is_its_own_but_for_containers(tree: Any) -> None:
    outer = f"/docker/{ID}"
    tree.cgroup(outer, tree.process("dockerd"))
    tree.cgroup(f"{outer}/init.scope", tree.process("systemd"))
    tree.cgroup(f"{outer}/docker/{SANDBOX}", tree.process("inner"))
    containers = discover(tree)
    assert {container.id for container in containers.all()} == {ID, SANDBOX}
    assert {cgroup.id for cgroup in containers.cgroups()} == {"/docker"}


# --- while it is followed ----------------------------------------------------------------------------


def test_cgroups_come_and_go(tree: Any) -> None:
    tree.cgroup("/docker")

    async def then(containers: Containers, discovery: CgroupDiscovery) -> None:
        heard: list[tuple[str, str]] = []
        containers.subscribe(lambda event, c: heard.append((event, c.id)), cgroups=True)
        tree.cgroup(f"/docker/{ID}", tree.process("nginx"))
        tree.cgroup("/later")
        await until(lambda: {("added", ID), ("added", "/later")} <= set(heard))
        tree.remove(f"/docker/{ID}")
        tree.remove("/later")
        await until(lambda: {("removed", ID), ("removed", "/later")} <= set(heard))
        assert containers.all() == ()
        stone = containers.tombstones()[0].container
        assert (stone.id, stone.state, stone.exit_code) == (ID, "exited", None)
        assert discovery.watches == len(containers.cgroups()) + 1

    discover(tree, then)


def test_what_an_engines_api_tells_is_believed(tree: Any) -> None:
    tree.cgroup(f"/docker/{ID}", tree.process("nginx"))
    other = "3" * 64
    connected = [True]

    async def then(containers: Containers, discovery: CgroupDiscovery) -> None:
        better = Container(ID, "told", engine="docker", pid=7, cgroup=f"/docker/{ID}")
        containers.update(better)
        tree.cgroup(f"/docker/{other}", tree.process("private"))  # no engine we follow has it
        await until(lambda: containers.get(other))
        assert containers.get(ID) is better
        tree.remove(f"/docker/{other}")
        await until(lambda: containers.get(other) and containers.get(other).state == "exited")
        connected[0] = False  # the engine is away, and its container ends
        tree.remove(f"/docker/{ID}")
        await until(lambda: containers.get(ID).state == "exited")
        assert [container.name for container in containers.all()] == ["told"]

    discover(tree, then, followed=lambda engine: connected[0])


def test_a_tree_too_large_is_looked_at_and_said_to_be(tree: Any) -> None:
    for number in range(20):
        tree.cgroup(f"/docker/{number:064x}", tree.process("x"))

    async def then(containers: Containers, discovery: CgroupDiscovery) -> None:
        assert (discovery.watches, discovery.unwatched) == (5, 17)
        await until(lambda: len(containers.all()) == 20)

    discover(tree, then, max_watches=5)
