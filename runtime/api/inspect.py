"""One container as ``GET /containers/{name}/json`` shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runtime.api.endpoints import network_settings
from runtime.api.times import rfc3339
from runtime.health import Health
from runtime.state import Status

if TYPE_CHECKING:
    from runtime.container import Container
    from runtime.engine import Engine

__all__ = ["inspect"]

#: What Docker fills in where the request said nothing; clients read these without looking whether they exist.
_HOST_DEFAULTS: dict[str, Any] = {
    "Binds": None,
    "ContainerIDFile": "",
    "NetworkMode": "default",
    "PortBindings": {},
    "AutoRemove": False,
    "VolumeDriver": "",
    "VolumesFrom": None,
    "ConsoleSize": [0, 0],
    "CapAdd": None,
    "CapDrop": None,
    "CgroupnsMode": "host",
    "Dns": [],
    "DnsOptions": [],
    "DnsSearch": [],
    "ExtraHosts": None,
    "GroupAdd": None,
    "IpcMode": "private",
    "Cgroup": "",
    "Links": None,
    "OomScoreAdj": 0,
    "PidMode": "",
    "Privileged": False,
    "PublishAllPorts": False,
    "ReadonlyRootfs": False,
    "SecurityOpt": None,
    "UTSMode": "",
    "UsernsMode": "",
    "ShmSize": 67108864,
    "Isolation": "",
    "CpuShares": 0,
    "Memory": 0,
    "NanoCpus": 0,
    "CgroupParent": "",
    "BlkioWeight": 0,
    "BlkioWeightDevice": [],
    "BlkioDeviceReadBps": [],
    "BlkioDeviceWriteBps": [],
    "BlkioDeviceReadIOps": [],
    "BlkioDeviceWriteIOps": [],
    "CpuPeriod": 0,
    "CpuQuota": 0,
    "CpuRealtimePeriod": 0,
    "CpuRealtimeRuntime": 0,
    "CpusetCpus": "",
    "CpusetMems": "",
    "Devices": [],
    "DeviceCgroupRules": None,
    "DeviceRequests": None,
    "MemoryReservation": 0,
    "MemorySwap": 0,
    "MemorySwappiness": None,
    "OomKillDisable": False,
    "PidsLimit": None,
    "Ulimits": [],
    "CpuCount": 0,
    "CpuPercent": 0,
    "IOMaximumIOps": 0,
    "IOMaximumBandwidth": 0,
    "MaskedPaths": None,
    "ReadonlyPaths": None,
}

_CONFIG_DEFAULTS: dict[str, Any] = {
    "Domainname": "",
    "User": "",
    "AttachStdin": False,
    "AttachStdout": False,
    "AttachStderr": False,
    "Tty": False,
    "OpenStdin": False,
    "StdinOnce": False,
    "Cmd": None,
    "Volumes": None,
    "Entrypoint": None,
    "OnBuild": None,
}


def inspect(engine: Engine, container: Container, *, size: bool = False) -> dict[str, Any]:
    """The whole body; ``size`` adds what the container wrote, which walks its files."""
    definition = container.definition
    directory = engine.directories.path(container.id)
    rootfs = engine.rootfs(container)
    body = {
        "Id": container.id,
        "Created": rfc3339(definition.created_ns),
        "Path": definition.path,
        "Args": list(definition.args),
        "State": state(container),
        "Image": definition.image_id,
        "ResolvConfPath": str(rootfs.etc.resolv_conf),
        "HostnamePath": str(rootfs.etc.hostname),
        "HostsPath": str(rootfs.etc.hosts),
        "LogPath": engine.logs.path(container),
        "Name": container.name,
        "RestartCount": container.state.restarts,
        "Driver": "overlay2",
        "Platform": definition.platform,
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": engine.execs.ids_of(container.id) or None,
        "HostConfig": _host_config(container),
        "GraphDriver": {
            "Name": "overlay2",
            "Data": {
                "LowerDir": ":".join(str(path) for path in reversed(rootfs.layers)),
                "MergedDir": str(rootfs.merged),
                "UpperDir": str(rootfs.upper),
                "WorkDir": str(rootfs.work),
            },
        },
        "Mounts": [mount.render() for mount in definition.mounts],
        "Config": _config(container),
        "NetworkSettings": network_settings(engine, container),
        "Taffrail": {"LogDirectory": str(directory), "CgroupPath": container.state.cgroup},
    }
    if size:
        written = rootfs.size_rw_bytes()
        body |= {"SizeRw": written, "SizeRootFs": written + engine.image_size(definition.image_id)}
    return body


def state(container: Container) -> dict[str, Any]:
    """``State``. As Docker has it, Running is true for a paused and for a restarting container too."""
    now = container.state
    body: dict[str, Any] = {
        "Status": now.status.value,
        "Running": container.active,
        "Paused": now.status is Status.PAUSED,
        "Restarting": now.status is Status.RESTARTING,
        "OOMKilled": now.oom_killed,
        "Dead": now.status is Status.DEAD,
        "Pid": now.pid,
        "ExitCode": now.exit_code,
        "Error": now.error,
        "StartedAt": rfc3339(now.started_ns),
        "FinishedAt": rfc3339(now.finished_ns),
    }
    if container.health.health is not None:
        body["Health"] = health(container.health.health)
    return body


def health(now: Health) -> dict[str, Any]:
    """``State.Health``; a container without a check, or never started, has none."""
    return {
        "Status": now.status,
        "FailingStreak": now.failing_streak,
        "Log": [
            {
                "Start": rfc3339(result.start_ns),
                "End": rfc3339(result.end_ns),
                "ExitCode": result.exit_code,
                "Output": result.output,
            }
            for result in now.log
        ],
    }


def _host_config(container: Container) -> dict[str, Any]:
    definition = container.definition
    asked = definition.config.host.raw
    body = _HOST_DEFAULTS | {key: value for key, value in asked.items() if value is not None}
    body["LogConfig"] = {"Type": definition.log_driver, "Config": dict(definition.log_options)}
    body["RestartPolicy"] = container.policy.render()
    if body["NetworkMode"] == "default":
        body["NetworkMode"] = "bridge"
    for name in ("CgroupnsMode", "IpcMode", "ShmSize"):
        body[name] = body[name] or _HOST_DEFAULTS[name]
    if body["Memory"] and not body["MemorySwap"]:
        body["MemorySwap"] = 2 * body["Memory"]
    return body


def _config(container: Container) -> dict[str, Any]:
    definition = container.definition
    asked = {k: v for k, v in definition.body.items() if k not in ("HostConfig", "NetworkingConfig")}
    body = _CONFIG_DEFAULTS | {key: value for key, value in asked.items() if value is not None}
    body["Hostname"] = definition.hostname
    body["Image"] = definition.config.image
    return body
