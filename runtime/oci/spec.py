"""The OCI runtime spec (config.json) of a container, with Docker's defaults.

``make_spec`` is a function of its arguments, except that it looks up the user in the mounted root file system
and devices in /dev. Mounting, networks and running the runtime are left to others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.config import ContainerConfig, HostConfig
from runtime.errors import BadRequest
from runtime.merge import command_line
from runtime.oci.capabilities import effective_capabilities
from runtime.oci.devices import spec_devices
from runtime.oci.limits import linux_resources
from runtime.oci.seccomp import default_profile, profile_from_docker
from runtime.oci.user import ProcessUser, find_user
from runtime.rootfs import EtcFiles

__all__ = ["DEFAULT_PATH", "Security", "SpecMount", "make_spec", "security_options"]

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_INIT_PATH = "/sbin/docker-init"
_DEFAULT_SHM_BYTES = 64 << 20

MASKED_PATHS = (
    "/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
    "/sys/devices/virtual/powercap",
)  # fmt: skip
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


@dataclass(frozen=True, slots=True)
class SpecMount:
    """One volume, bind or tmpfs, ready for the spec."""

    destination: str
    source: str
    type: str = "bind"  #: ``bind`` or ``tmpfs``
    options: tuple[str, ...] = ("rbind", "rprivate")


@dataclass(frozen=True, slots=True)
class Security:
    """What ``--security-opt`` says."""

    no_new_privileges: bool = False
    seccomp: str = ""  #: "" the default profile, ``unconfined``, or a profile's JSON text
    apparmor: str = ""
    unmasked: bool = False  #: systempaths=unconfined


def make_spec(
    *,
    container_id: str,
    config: ContainerConfig,
    rootfs: Path,
    hostname: str = "",
    netns: Path | None = None,
    namespaces: Mapping[str, str] | None = None,
    etc: EtcFiles | None = None,
    mounts: Sequence[SpecMount] = (),
    cgroup_parent: str = "/taffrail",
    cgroup_v2: bool = False,
    init_path: Path | None = None,
    console_size: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """The spec of one container.

    ``config``: after ``merge_image`` and ``check_limits``. ``rootfs``: the mounted root, for passwd.
    ``netns``: the namespace to join; None with network mode ``host`` shares the host's, and makes an own empty
    one otherwise. ``namespaces``: paths to join by type (``pid``, ``ipc``, ``uts``), for ``container:`` modes.
    ``init_path``: the host's tini, used if ``HostConfig.Init``. ``console_size``: rows and columns.
    Raises BadRequest for options, users and devices that cannot be.
    """
    host = config.host
    hostname = hostname or config.hostname or container_id[:12]
    user = find_user(rootfs, config.user, host.group_add)
    capabilities = effective_capabilities(host.cap_add, host.cap_drop, host.privileged)
    security = security_options(host.security_opt)
    init = init_path if host.init else None
    linux = _linux(host, capabilities, security, cgroup_v2)
    linux["cgroupsPath"] = f"{(host.cgroup_parent or cgroup_parent).rstrip('/')}/{container_id}"
    linux["namespaces"] = _namespaces(host, netns, namespaces or {}, cgroup_v2)
    if sysctls := _sysctls(host):
        linux["sysctl"] = sysctls
    spec: dict[str, Any] = {
        "ociVersion": "1.0.2",
        "process": _process(config, user, capabilities, security, hostname, init, console_size),
        "root": {"path": str(rootfs), "readonly": host.readonly_rootfs},
        "mounts": [*_system_mounts(host), *_own_mounts(host, etc, mounts, init)],
        "linux": linux,
    }
    if host.uts_mode != "host":
        spec["hostname"] = hostname
    return spec


def security_options(options: Sequence[str]) -> Security:
    """Parse ``HostConfig.SecurityOpt``. Raises BadRequest with Docker's words."""
    values: dict[str, Any] = {}
    for option in options:
        key, mark, value = option.partition("=")
        if not mark:
            key, mark, value = option.partition(":")
        if key == "no-new-privileges":
            if value not in ("", "true", "false"):
                raise BadRequest(f'invalid --security-opt 2: "{option}"')
            values["no_new_privileges"] = value != "false"
        elif key in ("seccomp", "apparmor") and mark:
            values[key] = value
        elif key == "systempaths" and value == "unconfined":
            values["unmasked"] = True
        elif key == "label" and mark:
            continue  # SELinux labels: runc's hosts here have none; disable is what happens anyway
        else:
            raise BadRequest(f'invalid --security-opt 1: "{option}"')
    return Security(**values)


def _process(
    config: ContainerConfig,
    user: ProcessUser,
    capabilities: Sequence[str],
    security: Security,
    hostname: str,
    init: Path | None,
    console_size: tuple[int, int] | None,
) -> dict[str, Any]:
    args = list(command_line(config))
    if init:
        args = [_INIT_PATH, "--", *args]
    process: dict[str, Any] = {
        "terminal": config.tty,
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.additional_gids)},
        "args": args,
        "env": _environment(config, hostname, user.home),
        "cwd": config.working_dir or "/",
        "capabilities": _capability_sets(capabilities, user),
        "noNewPrivileges": security.no_new_privileges,
        "oomScoreAdj": config.host.oom_score_adj,
        "rlimits": [
            {"type": f"RLIMIT_{limit.name.upper()}", "soft": _rlimit(limit.soft), "hard": _rlimit(limit.hard)}
            for limit in config.host.ulimits
        ],
    }
    if console_size and config.tty:
        process["consoleSize"] = {"height": console_size[0], "width": console_size[1]}
    if security.apparmor and security.apparmor != "unconfined" and not config.host.privileged:
        process["apparmorProfile"] = security.apparmor
    return process


def _rlimit(value: int) -> int:
    return value if value >= 0 else 2**64 - 1


def _environment(config: ContainerConfig, hostname: str, home: str) -> list[str]:
    """PATH, HOSTNAME, TERM and HOME first, unless the container sets them; ``KEY`` without = removes one."""
    env = {"PATH": DEFAULT_PATH, "HOSTNAME": hostname}
    if config.tty:
        env["TERM"] = "xterm"
    for item in config.env:
        key, mark, value = item.partition("=")
        if mark:
            env[key] = value
        else:
            env.pop(key, None)
    env.setdefault("HOME", home)
    return [f"{key}={value}" for key, value in env.items()]


def _capability_sets(capabilities: Sequence[str], user: ProcessUser) -> dict[str, list[str]]:
    """Only the bounding set for others than root: what execve would leave them."""
    names = list(capabilities)
    if user.uid != 0:
        return {"bounding": names}
    return {"bounding": names, "effective": names, "permitted": names}


def _linux(
    host: HostConfig, capabilities: Sequence[str], security: Security, cgroup_v2: bool
) -> dict[str, Any]:
    devices = spec_devices(host.devices, host.device_cgroup_rules, host.privileged)
    linux: dict[str, Any] = {
        "resources": {**linux_resources(host), "devices": devices.rules},
        "devices": devices.nodes,
    }
    if not host.privileged:
        unmasked = security.unmasked
        masked = MASKED_PATHS if host.masked_paths is None else host.masked_paths
        readonly = READONLY_PATHS if host.readonly_paths is None else host.readonly_paths
        linux["maskedPaths"] = [] if unmasked else list(masked)
        linux["readonlyPaths"] = [] if unmasked else list(readonly)
        if not security.seccomp or security.seccomp == "builtin":
            linux["seccomp"] = default_profile(capabilities)
        elif security.seccomp != "unconfined":
            linux["seccomp"] = profile_from_docker(security.seccomp, capabilities)
    return linux


def _namespaces(
    host: HostConfig, netns: Path | None, joined: Mapping[str, str], cgroup_v2: bool
) -> list[dict[str, str]]:
    wanted = ["mount"]
    # without a path, container: means a container on the host's network
    if netns or not (host.network_mode == "host" or host.network_mode.startswith("container:")):
        wanted.append("network")
    if host.uts_mode != "host":
        wanted.append("uts")
    if host.pid_mode != "host":
        wanted.append("pid")
    if host.ipc_mode != "host":
        wanted.append("ipc")
    if host.cgroupns_mode == "private" or (not host.cgroupns_mode and cgroup_v2 and not host.privileged):
        wanted.append("cgroup")
    paths = dict(joined)
    if netns:
        paths["network"] = str(netns)
    return [{"type": kind, "path": paths[kind]} if kind in paths else {"type": kind} for kind in wanted]


def _sysctls(host: HostConfig) -> dict[str, str]:
    """Unprivileged ping and low ports, as Docker allows them, where the container has its own network."""
    own_network = host.network_mode != "host" and not host.network_mode.startswith("container:")
    defaults = (
        {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}
        if own_network
        else {}
    )
    for name in host.sysctls:
        if name.startswith("net.") and not own_network and host.network_mode == "host":
            raise BadRequest(f"sysctl '{name}' not allowed in host network namespace")
    return {**defaults, **host.sysctls}


def _system_mounts(host: HostConfig) -> list[dict[str, Any]]:
    safe = ["nosuid", "noexec", "nodev"]
    system_access = [] if host.privileged else ["ro"]
    shm = host.shm_size or _DEFAULT_SHM_BYTES
    mounts = [
        _mount("/proc", "proc", "proc", safe),
        _mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        _mount("/dev/pts", "devpts", "devpts",
               ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        _mount("/sys", "sysfs", "sysfs", [*safe, *system_access]),
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", [*safe, *system_access]),
    ]  # fmt: skip
    if host.ipc_mode == "host":
        mounts.append(_mount("/dev/mqueue", "bind", "/dev/mqueue", ["rbind", *safe]))
        mounts.append(_mount("/dev/shm", "bind", "/dev/shm", ["rbind", *safe]))
    else:
        mounts.append(_mount("/dev/mqueue", "mqueue", "mqueue", safe))
        if host.ipc_mode != "none" and "/dev/shm" not in host.tmpfs:
            mounts.append(_mount("/dev/shm", "tmpfs", "shm", [*safe, "mode=1777", f"size={shm}"]))
    return mounts


def _own_mounts(
    host: HostConfig, etc: EtcFiles | None, mounts: Sequence[SpecMount], init: Path | None
) -> list[dict[str, Any]]:
    """Volumes and binds with parents before children, then the /etc files unless the user mounts them."""
    out = [_mount(item.destination, item.type, item.source, list(item.options)) for item in mounts]
    out += [_tmpfs(path, options) for path, options in host.tmpfs.items()]
    out.sort(key=lambda item: len([part for part in item["destination"].split("/") if part]))
    taken = {item["destination"] for item in out}
    access = ["ro"] if host.readonly_rootfs else []
    if etc:
        out += [
            _mount(destination, "bind", str(source), ["rbind", "rprivate", *access])
            for destination, source in (
                ("/etc/resolv.conf", etc.resolv_conf),
                ("/etc/hostname", etc.hostname),
                ("/etc/hosts", etc.hosts),
            )
            if destination not in taken
        ]
    if init:
        out.append(_mount(_INIT_PATH, "bind", str(init), ["bind", "ro"]))
    return out


def _mount(destination: str, kind: str, source: str, options: list[str]) -> dict[str, Any]:
    return {"destination": destination, "type": kind, "source": source, "options": options}


def _tmpfs(path: str, options: str) -> dict[str, Any]:
    words = [word for word in options.split(",") if word]
    if any(word.partition("=")[0] in ("source", "lowerdir", "bind", "remount") for word in words):
        raise BadRequest(f"invalid tmpfs option {options!r} for {path}")
    defaults = [word for word in ("noexec", "nosuid", "nodev") if word.removeprefix("no") not in words]
    return _mount(path, "tmpfs", "tmpfs", [*defaults, *words])
