"""The engine: all containers, images, volumes and networks of one state directory, and what spans them.

Built by the composition root, served by ``runtime/api/``. Creating, removing and renaming are here because
they touch names; what a single container does is ``runtime/container.py``'s; taking over after a restart of
the engine is ``runtime/adoption.py``'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from logdrivers.journals.budget import JournalBudget
from runtime.adoption import adopt_all
from runtime.block_accounting import count_block_io
from runtime.config import ContainerConfig, FieldError
from runtime.container import Container
from runtime.container_logs import ContainerLogs
from runtime.containers import ContainerTable, check_name, new_id
from runtime.definition import Definition, merged_body
from runtime.errors import BadRequest, Conflict, EngineError, NotImplementedYet, ServerError, Unavailable
from runtime.events import EventBus
from runtime.execs import Execs
from runtime.health import check_durations
from runtime.health_monitor import Probing
from runtime.images.image import Image, ImageStore, InUse
from runtime.launch import Launcher
from runtime.log_changes import LogChanges
from runtime.merge import merge_image
from runtime.mountpoints import MountPlan
from runtime.networks.network import Network, Networks
from runtime.oci.limits import Capacity, check_limits
from runtime.options import EngineOptions
from runtime.remainders import Remainders
from runtime.restart import RestartPolicy
from runtime.rootfs import ContainerRootfs
from runtime.shim.shims import Shims
from runtime.signals import parse_signal
from runtime.state import ContainerDirectories, EngineLock, State, Status
from runtime.stats import Moment, Target, system_cpu_ns
from runtime.volume import VolumeStore

__all__ = ["Engine"]

log = logging.getLogger(__name__)


class Engine:
    """One engine. ``start`` before anything else, ``stop`` leaves containers running."""

    def __init__(self, options: EngineOptions) -> None:
        self.options = options
        self.containers = ContainerTable()
        self.events = EventBus()
        self.execs = Execs()
        self.probing = Probing(self.execs)
        self.log_changes = LogChanges()
        self._undo: contextlib.AsyncExitStack | None = None
        self._runtime_version = ""
        self._removing: set[asyncio.Task[None]] = set()
        self._stopping = False

    # --- life --------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Take the state directory and adopt what runs. Raises Locked if another engine has it."""
        async with contextlib.AsyncExitStack() as undo:
            await self._start(undo)
            self._undo = undo.pop_all()

    async def _start(self, undo: contextlib.AsyncExitStack) -> None:
        options = self.options
        for directory in (options.state_dir, options.run_dir):
            directory.mkdir(parents=True, exist_ok=True, mode=0o711)
        lock = EngineLock(options.state_dir)
        lock.acquire()
        undo.callback(lock.release)
        self.id = _engine_id(options.state_dir)
        self.host_name = os.uname().nodename
        self.capacity = Capacity.probe(options.sys / "fs/cgroup")
        count_block_io(options.sys, options.cgroup_parent)
        self.machine_memory = _machine_memory(options.proc)
        self.directories = ContainerDirectories(options.state_dir / "containers")
        self.images = ImageStore(options.state_dir / "image")
        self.logs = ContainerLogs(options, self.directories, self.host_name)
        self.volumes = VolumeStore(options.state_dir / "volumes")
        self.mounts = MountPlan(self.volumes)
        self.networks = Networks(
            options.state_dir / "network",
            options.run_dir / "net",
            bridge=options.bridge,
            subnet=options.subnet,
            table=options.bridge,
        )
        await asyncio.to_thread(self.networks.start)
        undo.push_async_callback(asyncio.to_thread, self.networks.close)
        self.shims = Shims(options.run_dir / "shims")
        await self.shims.start()
        undo.push_async_callback(self.shims.close)
        self.launcher = Launcher(self)
        undo.push_async_callback(self._leave_containers)
        self.remainders = Remainders(options.state_dir / "undelivered")
        undo.push_async_callback(asyncio.to_thread, self.remainders.close)
        await asyncio.to_thread(self.remainders.start)
        self.journal_budget = JournalBudget(self._log_directories, options.journal_max_bytes)
        undo.push_async_callback(asyncio.to_thread, self.journal_budget.close)
        self.journal_budget.start()
        await adopt_all(self)
        for container in self.containers.all():
            if not container.state.running:
                container.deliver_remainder()

    async def stop(self) -> None:
        """Let go of everything; containers and their shims go on. Nothing happens if it was not started."""
        self._stopping = True
        if self._undo is not None:
            await self._undo.aclose()
            self._undo = None

    async def _leave_containers(self) -> None:
        for container in self.containers.all():
            await container.leave()
        if self._removing:
            await asyncio.wait(self._removing, timeout=10)

    # --- containers --------------------------------------------------------------------------------------

    async def create(self, name: str, config: ContainerConfig) -> tuple[Container, list[str]]:
        """``docker create``: the container and warnings. Everything is checked before anything is made."""
        if self._stopping:
            raise Unavailable("the engine is stopping")
        if name:
            check_name(name)
        check_durations(config.healthcheck)
        container_id = new_id()
        image = self.images.get(config.image)
        config = merge_image(config, image.config)
        host, warnings = check_limits(config.host, self.capacity)
        RestartPolicy.of(host.restart_policy)
        if host.auto_remove and host.restart_policy.name not in ("", "no"):
            raise BadRequest("can't create 'AutoRemove' container with restart policy")
        if config.stop_signal:
            parse_signal(config.stop_signal)
        driver, log_options = self.logs.choose(config.host.log_config, config.labels)
        if host.network_mode.startswith("container:"):
            self.containers.get(host.network_mode.partition(":")[2])
        name = self.containers.reserve(name, container_id)
        try:
            mounts = self.mounts.plan(
                config, [self.containers.get(r.split(":")[0]) for r in host.volumes_from]
            )
            definition = Definition(
                id=container_id,
                name=name,
                created_ns=time.time_ns(),
                image_id=image.id,
                body=merged_body(config),
                config=config,
                log_driver=driver,
                log_options=log_options,
                mounts=mounts,
            )
            self.directories.create(container_id, definition.to_json())
        except (EngineError, FieldError, OSError):
            self.containers.release(name, container_id)
            raise
        container = self.make(definition, State())
        container.emit("create")
        return container, warnings

    def make(self, definition: Definition, state: State) -> Container:
        """Put a container into the table."""
        container = Container(
            definition, state, self.directories, self.events, self.launcher, self._auto_remove, self.probing
        )
        self.containers.add(container)
        return container

    async def rename(self, container: Container, name: str) -> None:
        """``docker rename``."""
        if not name.strip("/"):
            raise BadRequest("Neither old nor new names may be empty")
        wanted = check_name(name)
        if wanted == container.name:
            raise BadRequest("Renaming a container with the same name as its current name")
        async with container.lock:
            self.containers.reserve(wanted, container.id)
            before = container.name
            try:
                container.redefine(name=wanted)
            except OSError:
                self.containers.release(wanted, container.id)
                raise
            self.containers.release(before, container.id)
            container.emit("rename", oldName=before)

    async def remove(self, container: Container, *, force: bool = False, volumes: bool = False) -> None:
        """``docker rm``. Raises Conflict for a running container without ``force``."""
        if container.active:
            if not force:
                raise Conflict(_remove_refused(container))
            await self._kill_for_removal(container)
        async with container.lock:
            if not container.exists:
                return
            if container.state.running:
                raise Conflict(_remove_refused(container))
            if container.state.status is Status.REMOVING:
                raise Conflict(
                    f"removal of container {container.name.removeprefix('/')} is already in progress"
                )
            container.set_state(status=Status.REMOVING)
            try:
                await self._delete(container)
            except OSError as error:
                container.set_state(status=Status.DEAD, error=str(error))
                raise ServerError(f"cannot remove container {container.name}: {error}") from error
            container.exists = False
        if volumes or container.auto_remove:
            await self._remove_anonymous_volumes(container)
        container.emit("destroy")
        self.containers.discard(container)
        container.removed()

    async def _kill_for_removal(self, container: Container) -> None:
        try:
            if container.state.status is Status.RESTARTING:
                await container.stop(0.0)
            else:
                await container.kill("KILL")
        except Conflict:
            return  # it ended by itself meanwhile

    async def _delete(self, container: Container) -> None:
        await self.launcher.clear(container)
        await asyncio.to_thread(self.launcher.remove_files, container)

    async def _auto_remove(self, container: Container) -> None:
        """``--rm``; a task of its own, since it waits for the container's lock."""
        task = asyncio.current_task()
        if task is not None:
            self._removing.add(task)
            task.add_done_callback(self._removing.discard)
        try:
            await self.remove(container, volumes=True)
        except EngineError as error:
            log.warning("cannot remove container %s after its end: %s", container.name, error.message)

    async def _remove_anonymous_volumes(self, container: Container) -> None:
        for mount in container.definition.mounts:
            known = mount.kind == "volume" and mount.name in self.volumes
            if known and self.volumes.get(mount.name).anonymous:
                users = [u for u in self.users_of_volume(mount.name) if u != container.id]
                if not users:
                    await asyncio.to_thread(self.volumes.remove, mount.name)
                    self.events.publish("volume", "destroy", mount.name, {"driver": "local"})

    # --- stats -------------------------------------------------------------------------------------------

    def measure(self, container: Container) -> Moment | None:
        """Counters of a running container now; None if it does not run."""
        if self.options.stats is None:
            raise NotImplementedYet("this engine was started without a source of statistics")
        if not container.state.running:
            return None
        state = container.state
        own = container.definition.config.host.network_mode
        target = Target(
            container.id, state.pid, state.cgroup, not own.startswith(("host", "none", "container:"))
        )
        try:
            reading = self.options.stats.read(target)
        except OSError as error:
            log.debug("container %s ended while it was measured: %s", container.name, error)
            return None
        text = (self.options.proc / "stat").read_text()
        return Moment(reading, system_cpu_ns(text), len(os.sched_getaffinity(0)))

    # --- what others ask ---------------------------------------------------------------------------------

    def rootfs(self, container: Container) -> ContainerRootfs:
        """The container's root file system."""
        image = self.find_image(container.image_id)
        layers = image.layer_dirs if image else ()
        return ContainerRootfs(self.directories.path(container.id) / "rootfs", layers)

    def find_image(self, reference: str) -> Image | None:
        """An image by name or id, None if there is none."""
        try:
            return self.images.get(reference)
        except EngineError:
            return None

    def image_count(self) -> int:
        """How many images there are."""
        return len(self.images.list())

    def image_size(self, image_id: str) -> int:
        """Bytes of an image's layers; 0 if it is gone."""
        image = self.find_image(image_id)
        return image.size_bytes if image else 0

    def find_network(self, reference: str) -> Network | None:
        """A network by name or id, None if there is none."""
        try:
            return self.networks.get(reference)
        except EngineError:
            return None

    def task_count(self) -> int:
        """Asyncio tasks of the engine's process, what Docker's NGoroutines is for Go."""
        return len(asyncio.all_tasks())

    def _log_directories(self) -> Iterator[Path]:
        """Of containers, running or not, and of removed ones whose lines wait for a sink. From any thread."""
        for root in (self.directories.root, self.remainders.directory):
            yield from root.iterdir()

    def shown_image(self, container: Container) -> str:
        """The image as the user typed it, or its id where that name now means another image."""
        typed = container.definition.config.image
        image = self.find_image(typed)
        return typed if image is not None and image.id == container.image_id else container.image_id

    def users_of_image(self, image_id: str) -> list[InUse]:
        """Containers made from an image."""
        return [InUse(c.id, c.active) for c in self.containers.all() if c.image_id == image_id]

    def users_of_volume(self, name: str) -> list[str]:
        """Ids of containers that mount a volume."""
        return [c.id for c in self.containers.all() if any(m.name == name for m in c.definition.mounts)]

    async def remove_volume(self, name: str, *, force: bool = False) -> None:
        """``docker volume rm``. Raises Conflict while a container uses it."""
        if force and name not in self.volumes:
            return
        volume = self.volumes.get(name)
        users = self.users_of_volume(volume.name)
        if users:
            raise Conflict(f"remove {name}: volume is in use - [{', '.join(users)}]")
        await asyncio.to_thread(self.volumes.remove, name)
        self.events.publish("volume", "destroy", name, {"driver": "local"})

    def cgroup_version(self) -> str:
        """``1`` (hybrid too) or ``2``."""
        return "2" if self.capacity.cgroup_v2 else "1"

    async def runtime_version(self) -> str:
        """The OCI runtime's version, asked once; "" where it does not say."""
        if not self._runtime_version:
            try:
                process = await asyncio.create_subprocess_exec(
                    self.options.runtime, "--version", stdout=asyncio.subprocess.PIPE
                )
            except OSError as error:
                log.warning("cannot run %s --version: %s", self.options.runtime, error)
                return ""
            output, _ = await process.communicate()
            first = output.decode("utf-8", "replace").splitlines()[:1]
            self._runtime_version = first[0].split()[-1] if first and first[0].split() else ""
        return self._runtime_version


def _remove_refused(container: Container) -> str:
    word = "paused" if container.state.status is Status.PAUSED else container.state.status.value
    if word == "running":
        return (
            f'cannot remove container "{container.name}": container is running: '
            "stop the container before removing or force remove"
        )
    hint = "unpause and then stop the container" if word == "paused" else "stop the container"
    return f'cannot remove container "{container.name}": container is {word}: {hint} before removing or force remove'


def _engine_id(directory: Path) -> str:
    path = directory / "engine-id"
    if not path.exists():
        value = secrets.token_hex(16)
        path.write_text(f"{value}\n")
    return path.read_text().strip()


def _machine_memory(proc: Path) -> int:
    """Bytes of main memory from ``/proc/meminfo``."""
    for line in (proc / "meminfo").read_text().splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return 0
