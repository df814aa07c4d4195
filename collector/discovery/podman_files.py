"""What podman keeps on disk of a container: names, image, labels, limits, networks, log, how it ended.

podman has no daemon to ask. Its database (bbolt up to version 4, SQLite from 4.8 on) has one JSON document
for the configuration and one for the state; ``containers.json`` of the storage library has the names where
the database cannot be read. Where these files are is told by conmon's command line (``keeper.py``).
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson

from collector.container import Container, LogSource
from collector.discovery.bolt import BoltFile
from collector.discovery.inspection import image_id, parse_time
from collector.discovery.oci_bundle import cpu_shares, memory_limit, network_mode

__all__ = ["container_of_files", "exit_code_in", "parse_podman_config", "storage_of_bundle"]

logger = logging.getLogger(__name__)

_TRIES = 3


def storage_of_bundle(bundle: str) -> Path | None:
    """podman's storage root, from a bundle ``<root>/overlay-containers/<id>/userdata``."""
    path = Path(bundle)
    if path.name != "userdata" or not path.parent.parent.name.endswith("-containers"):
        return None
    return path.parent.parent.parent


def container_of_files(storage: Path, container_id: str, known: Container) -> Container:
    """``known`` completed with what the files say; what cannot be read is left as it is, and logged."""
    config: Mapping[str, Any] | None = None
    state: Mapping[str, Any] = {}
    try:
        config, state = _from_database(storage, container_id)
    except (OSError, ValueError, sqlite3.Error) as error:
        logger.warning("cannot read podman's database in %s: %s", storage, error)
    try:
        if config is None:
            return _from_list(storage, container_id, known)
        return parse_podman_config(config, state, known)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        logger.warning("cannot read what podman says of container %s: %r", container_id[:12], error)
        return known


def parse_podman_config(config: Mapping[str, Any], state: Mapping[str, Any], known: Container) -> Container:
    """podman's own JSON of a container's configuration and state (libpod's ContainerConfig, ContainerState).

    What ``known`` has of the process (state, pid, cgroup, start) stays.
    """
    spec = config.get("spec") or {}
    networks = tuple(config.get("newNetworks") or config.get("networks") or ())
    mode = network_mode(spec)
    if config.get("netNsCtr"):
        mode = f"container:{config['netNsCtr']}"
    elif mode == "" and networks:
        mode = "bridge"
    elif mode == "":
        mode = "bridge" if config.get("createNetNS") else "none"
    driver, path = str(config.get("logDriver") or ""), str(config.get("logPath") or "")
    log = known.log
    if not log.driver:
        log = LogSource("k8s-file" if driver == "json-file" else driver, path if driver != "journald" else "")
    return Container(
        id=known.id,
        name=str(config.get("name") or known.name),
        image=str(config.get("rootfsImageName") or config.get("rawImageName") or known.image),
        image_id=image_id(str(config.get("rootfsImageID") or "")),
        engine="podman",
        state=known.state,
        pid=known.pid,
        cgroup=known.cgroup,
        network_mode=mode,
        created_ns=parse_time(str(config.get("createdTime") or "")),
        started_ns=known.started_ns,
        finished_ns=known.finished_ns,
        exit_code=known.exit_code,
        oom_killed=bool(state.get("oomKilled")) or known.oom_killed,
        restarts=int(state.get("restartCount") or 0),
        labels=dict(known.labels) | dict(config.get("labels") or {}),
        networks=networks,
        memory_limit_bytes=memory_limit(spec),
        cpu_shares=cpu_shares(spec),
        log=log,
    )


def exit_code_in(directory: Path, container_id: str) -> int | None:
    """What conmon left of a container's end in its exit directory; None where it left nothing (yet)."""
    try:
        text = (directory / container_id).read_text().strip()
    except OSError:
        return None
    return int(text) if text.lstrip("-").isdigit() else None


def _from_database(storage: Path, container_id: str) -> tuple[Mapping[str, Any] | None, Mapping[str, Any]]:
    if (storage / "db.sql").exists():
        return _from_sqlite(storage / "db.sql", container_id)
    path = storage / "libpod" / "bolt_state.db"
    if not path.exists():
        return None, {}
    for attempt in range(_TRIES):
        try:
            return _from_bolt(path, container_id)
        except ValueError:
            if attempt == _TRIES - 1:
                raise
    raise AssertionError("unreachable")


def _from_bolt(path: Path, container_id: str) -> tuple[Mapping[str, Any] | None, Mapping[str, Any]]:
    with BoltFile(path) as file:
        bucket = file.root().bucket(b"ctr", container_id.encode())
        if bucket is None:
            return None, {}
        config, state = bucket.get(b"config"), bucket.get(b"state")
        networks = bucket.bucket(b"networks")
        found = orjson.loads(config) if config else None
        if found and networks is not None and not found.get("networks"):
            found["networks"] = [name.decode(errors="replace") for name, _ in networks.items()]
        return found, orjson.loads(state) if state else {}


def _from_sqlite(path: Path, container_id: str) -> tuple[Mapping[str, Any] | None, Mapping[str, Any]]:
    uri = f"{path.absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, timeout=0.2)) as database:
        config = database.execute("SELECT JSON FROM ContainerConfig WHERE ID = ?", (container_id,)).fetchone()
        state = database.execute("SELECT JSON FROM ContainerState WHERE ID = ?", (container_id,)).fetchone()
    return (orjson.loads(config[0]) if config else None), (orjson.loads(state[0]) if state else {})


def _from_list(storage: Path, container_id: str, known: Container) -> Container:
    """The storage library's list: names and image, no labels."""
    for path in sorted(storage.glob("*-containers/containers.json")):
        for entry in orjson.loads(path.read_bytes()):
            if entry.get("id") == container_id:
                more = orjson.loads(entry.get("metadata") or "{}")
                names = entry.get("names") or [more.get("name")]
                return parse_podman_config(
                    {
                        "name": names[0],
                        "rootfsImageName": more.get("image-name"),
                        "rootfsImageID": entry.get("image"),
                        "createdTime": entry.get("created"),
                        "spec": _spec(storage, container_id),
                        "createNetNS": True,
                    },
                    {},
                    known,
                )
    return known


def _spec(storage: Path, container_id: str) -> Any:
    for path in storage.glob(f"*-containers/{container_id}/userdata/config.json"):
        return orjson.loads(path.read_bytes())
    return {}


def rootless_storage(root: Path, uid: int) -> Path | None:
    """Where a user's podman keeps its containers unless told otherwise; None for no such user.

    The user is looked for in the host's own list first, which is another than ours in a container.
    """
    home = _home_in(root / "etc/passwd", uid)
    if not home:
        import pwd  # rarely needed: users from elsewhere than the file

        try:
            home = pwd.getpwuid(uid).pw_dir
        except KeyError:
            return None
    return Path(home) / ".local/share/containers/storage"


def _home_in(passwd: Path, uid: int) -> str:
    try:
        lines = passwd.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    fields = (line.split(":") for line in lines)
    return next((each[5] for each in fields if len(each) >= 7 and each[2] == str(uid)), "")
