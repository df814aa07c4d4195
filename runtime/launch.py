"""Starting a container: root file system and network side by side, then the OCI bundle, then the shim.

All parts are made here and cleared away here, so a start that fails leaves nothing behind. When a container
may be started is ``runtime/container.py``'s to decide.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from runtime.errors import BadRequest, Conflict, EngineError, ServerError
from runtime.etc_files import hosts_text, resolv_conf_text
from runtime.fields import FieldError
from runtime.launched import Launched
from runtime.mountpoints import spec_mounts
from runtime.networks.network import Attachment
from runtime.oci.limits import check_limits
from runtime.oci.spec import make_spec
from runtime.remainders import has_journal
from runtime.rootfs import ContainerRootfs, EtcFiles
from runtime.shim.exit_status import EXIT_FILE, INIT_FILE, ExitStatus
from runtime.shim.messages import LOG_DRIVER_FAILED
from runtime.shim.shims import (
    ShimSpec,
    StartError,
    TemplateError,
    end_last_shim,
    finish_last_shim,
    finishing_shim,
)
from runtime.state import read_json

if TYPE_CHECKING:
    from runtime.container import Container
    from runtime.engine import Engine

__all__ = ["Launcher"]

log = logging.getLogger(__name__)

SPEC_FILE = "shim-spec.json"
#: What runc says when the container's own configuration is at fault: the client's error, not ours.
_CLIENT_FAULTS = (
    "executable file not found",
    "no such file or directory",
    "permission denied",
    "is a directory",
)


class Launcher:
    """Starts, clears and adopts the containers of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._root = engine.options.run_dir / "c"
        self._runc_root = engine.options.run_dir / "runc"
        for directory in (self._root, self._runc_root):
            directory.mkdir(parents=True, exist_ok=True, mode=0o711)

    def run_directory(self, container: Container) -> Path:
        """The container's volatile directory."""
        return self._root / container.id

    def run_directories(self) -> Iterator[Path]:
        """All of them, those of containers that are gone too."""
        yield from self._root.iterdir()

    # --- start -------------------------------------------------------------------------------------------

    async def start(self, container: Container) -> Launched:
        """Put all parts together and run; EngineError with everything cleared away again."""
        try:
            spec, document = await self._prepare(container)
            await asyncio.to_thread(self._engine.remainders.release, container.id)
            handle = await self._engine.shims.run(spec)
        except (EngineError, FieldError, StartError, TemplateError, OSError, ValueError) as error:
            await self.clear(container)
            raise _start_error(error) from error
        return Launched(handle, document["linux"]["cgroupsPath"])

    async def _prepare(self, container: Container) -> tuple[ShimSpec, dict[str, Any]]:
        rootfs = self._engine.rootfs(container)
        mounting = asyncio.to_thread(self._mount, container, rootfs)
        networking = asyncio.to_thread(self._network, container)
        mounted, attached = await asyncio.gather(mounting, networking, return_exceptions=True)
        if isinstance(mounted, BaseException):
            raise mounted
        if isinstance(attached, BaseException):
            raise attached
        return await asyncio.to_thread(self._bundle, container, rootfs, attached)

    def _mount(self, container: Container, rootfs: ContainerRootfs) -> None:
        if self._engine.find_image(container.image_id) is None:
            raise BadRequest(f"No such image: {container.image_id}")
        rootfs.mount()

    def _network(self, container: Container) -> Attachment:
        config = container.definition.config
        host = config.host
        mode = "none" if config.network_disabled else host.network_mode
        if mode == "default":
            mode = "bridge"
        if mode.startswith("container:"):
            mode = f"container:{self._joined(mode, 'network').id}"
        return self._engine.networks.prepare(
            container.id,
            mode,
            config.networks,
            name=container.name.removeprefix("/"),
            port_bindings=host.port_bindings,
            exposed=config.exposed_ports,
            publish_all=host.publish_all_ports,
            dns=host.dns,
        )

    def _joined(self, mode: str, what: str) -> Container:
        target = self._engine.containers.get(mode.partition(":")[2])
        if not target.state.running:
            raise Conflict(f"cannot join {what} of a non running container: {target.id}")
        return target

    def _bundle(
        self, container: Container, rootfs: ContainerRootfs, attachment: Attachment
    ) -> tuple[ShimSpec, dict[str, Any]]:
        """Write the bundle; runs in a thread."""
        engine = self._engine
        definition = container.definition
        host, _ = check_limits(definition.config.host, engine.capacity)
        config = replace(definition.config, host=host)
        document = make_spec(
            container_id=container.id,
            config=config,
            rootfs=rootfs.merged,
            hostname=self._hostname(container),
            netns=attachment.netns_path,
            namespaces=self._namespaces(container),
            etc=self._etc(container, rootfs, attachment),
            mounts=spec_mounts(definition.mounts),
            cgroup_parent=engine.options.cgroup_parent,
            cgroup_v2=engine.capacity.cgroup_v2,
        )
        run_dir = self.run_directory(container)
        bundle = run_dir / "bundle"
        bundle.mkdir(parents=True, exist_ok=True, mode=0o711)
        (bundle / "config.json").write_bytes(orjson.dumps(document))
        user = document["process"]["user"]
        spec = ShimSpec(
            container_id=container.id,
            bundle=bundle,
            run_dir=run_dir,
            driver=definition.log_driver,
            info=engine.logs.info(container),
            runtime=engine.options.runtime,
            runtime_root=self._runc_root,
            tty=config.tty,
            open_stdin=config.open_stdin,
            stdin_once=config.stdin_once,
            uid=user["uid"],
            gid=user["gid"],
            await_attach=container.waiters.awaits_attach,
        )
        (run_dir / SPEC_FILE).write_bytes(
            orjson.dumps({"spec": spec.to_json(), "cgroup": document["linux"]["cgroupsPath"]})
        )
        return spec, document

    def _hostname(self, container: Container) -> str:
        mode = container.definition.config.host.network_mode
        if mode.startswith("container:"):
            return self._joined(mode, "network").definition.hostname
        if mode == "host" and not container.definition.config.hostname:
            return self._engine.host_name
        return container.definition.hostname

    def _etc(self, container: Container, rootfs: ContainerRootfs, attachment: Attachment) -> EtcFiles:
        host = container.definition.config.host
        if host.network_mode.startswith("container:"):
            return self._engine.rootfs(self._joined(host.network_mode, "network")).etc
        hostname = self._hostname(container)
        own = attachment.endpoints
        hosts = hosts_text(
            [endpoint.ip for endpoint in own],
            hostname,
            container.definition.config.domainname,
            host.extra_hosts,
            host_gateway=own[0].gateway if own else "127.0.0.1",
            host_network=Path("/etc/hosts") if attachment.mode == "host" else None,
        )
        return rootfs.write_etc(hostname, hosts, resolv_conf_text(host, attachment.nameserver))

    def _namespaces(self, container: Container) -> dict[str, str]:
        """Namespaces of other containers to join."""
        host = container.definition.config.host
        modes = {"pid": host.pid_mode, "ipc": host.ipc_mode}
        return {
            kind: f"/proc/{self._joined(mode, kind.upper()).state.pid}/ns/{kind}"
            for kind, mode in modes.items()
            if mode.startswith("container:")
        }

    # --- end ---------------------------------------------------------------------------------------------

    async def clear(self, container: Container) -> None:
        """Network and mounts of a container that has ended. Never raises; failures are logged."""
        results = await asyncio.gather(
            asyncio.to_thread(self._engine.networks.release, container.id),
            asyncio.to_thread(self._engine.rootfs(container).unmount),
            return_exceptions=True,
        )
        for what, result in zip(("network", "root file system"), results, strict=True):
            if isinstance(result, Exception):
                log.error("cannot clear the %s of container %s: %s", what, container.name, result)
            elif isinstance(result, BaseException):
                raise result

    async def deliver_remainder(self, container: Container, shim_seconds: float = 3.0) -> None:
        """See to it that what the container's sink has not taken is delivered, by its shim at first, then by us."""
        info = self._engine.logs.info(container)
        if not has_journal(info.directory):
            return  # its lines stay on the host
        await asyncio.sleep(shim_seconds)
        if not container.state.running:  # not under the lock: starting or removing it waits for no sink
            await finish_last_shim(self.run_directory(container), container.id)
        async with container.lock:
            if not container.exists or container.state.running:
                return
            await asyncio.to_thread(end_last_shim, self.run_directory(container), container.id)
            await asyncio.to_thread(self._engine.remainders.take, container.definition.log_driver, info)

    def remove_files(self, container: Container) -> None:
        """Everything of a container on disk but lines to be delivered, for good. Raises OSError."""
        info = self._engine.logs.info(container)
        if has_journal(info.directory):
            shim = finishing_shim(self.run_directory(container), container.id)
            self._engine.remainders.bury(container.definition.log_driver, info, shim)
        self._engine.remainders.rate_limited.take(container.id, info.directory)
        self._engine.rootfs(container).remove()
        if self._engine.directories.path(container.id).exists():
            self._engine.directories.remove(container.id)
        shutil.rmtree(self.run_directory(container), ignore_errors=True)

    # --- adoption ----------------------------------------------------------------------------------------

    def was_launched(self, container: Container) -> bool:
        """Whether a run of the container is on record whose end the state does not know yet."""
        run_dir = self.run_directory(container)
        if not (run_dir / INIT_FILE).exists():
            return False
        if not (run_dir / EXIT_FILE).exists():
            return True
        status = ExitStatus.read(run_dir)
        return status is not None and status.finished_ns > container.state.finished_ns

    async def adopt(self, container: Container) -> Launched | None:
        """Find a running (or meanwhile ended) container again; None if nothing is left of its run."""
        path = self.run_directory(container) / SPEC_FILE
        try:
            saved = read_json(path)
            spec = ShimSpec.from_json(saved["spec"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.error("cannot read %s: %s", path, error)
            return None
        try:
            handle = await self._engine.shims.adopt(spec)
        except (StartError, TemplateError, OSError) as error:
            log.error("cannot take over container %s: %s", container.name, error)
            return None
        return Launched(handle, str(saved["cgroup"]))


def _start_error(error: Exception) -> EngineError:
    if isinstance(error, EngineError):
        return error
    if isinstance(error, FieldError):
        return BadRequest(str(error))
    if isinstance(error, StartError):
        text = str(error)
        if text.startswith(LOG_DRIVER_FAILED):
            return ServerError(text)
        message = (
            "failed to create task for container: failed to create shim task: OCI runtime create failed: "
            f"runc create failed: {text}: unknown"
        )
        return BadRequest(message) if any(fault in text for fault in _CLIENT_FAULTS) else ServerError(message)
    return ServerError(f"failed to start container: {error}")
