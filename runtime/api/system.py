"""``/_ping``, ``/version``, ``/info``, ``/system/df`` and ``/auth``: the engine about itself."""

from __future__ import annotations

import asyncio
import os
import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web

from runtime.api.routing import API_VERSION, MIN_API_VERSION, Call, Routes, json_response
from runtime.api.times import rfc3339
from runtime.disk import disk_usage as usage
from runtime.errors import NotImplementedYet
from runtime.state import Status

if TYPE_CHECKING:
    from runtime.engine import Engine

__all__ = ["routes"]

routes = Routes()

#: What clients expect in ``docker info`` and this engine has none of.
_NOT_HERE: dict[str, Any] = {
    "SystemStatus": None,
    "Debug": False,
    "IndexServerAddress": "https://index.docker.io/v1/",
    "RegistryConfig": {"IndexConfigs": {}, "InsecureRegistryCIDRs": [], "Mirrors": []},
    "GenericResources": None,
    "HttpProxy": "",
    "HttpsProxy": "",
    "NoProxy": "",
    "ExperimentalBuild": False,
    "Swarm": {
        "NodeID": "",
        "NodeAddr": "",
        "LocalNodeState": "inactive",
        "ControlAvailable": False,
        "Error": "",
        "RemoteManagers": None,
    },
    "Isolation": "",
    "InitBinary": "",
    "ContainerdCommit": {"ID": "", "Expected": ""},
    "InitCommit": {"ID": "", "Expected": ""},
    "Warnings": None,
}


@routes.head("/_ping")
@routes.get("/_ping")
async def ping(call: Call) -> web.StreamResponse:
    """Alive, with the headers that clients negotiate the version from."""
    response = web.Response(text="" if call.request.method == "HEAD" else "OK")
    response.headers["Cache-Control"] = "no-cache, no-store, must-revalidate"
    response.headers["Pragma"] = "no-cache"
    response.headers["Builder-Version"] = "1"
    response.headers["Swarm"] = "inactive"
    return response


@routes.get("/version")
async def version(call: Call) -> web.StreamResponse:
    """``docker version``."""
    options = call.engine.options
    kernel = os.uname()
    details = {
        "ApiVersion": str(API_VERSION),
        "Arch": _architecture(),
        "BuildTime": "",
        "Experimental": "false",
        "GitCommit": "",
        "GoVersion": f"python{platform.python_version()}",
        "KernelVersion": kernel.release,
        "MinAPIVersion": str(MIN_API_VERSION),
        "Os": "linux",
    }
    runc = await call.engine.runtime_version()
    return json_response(
        {
            "Platform": {"Name": "Taffrail"},
            "Components": [
                {"Name": "Engine", "Version": options.version, "Details": details},
                {"Name": options.runtime, "Version": runc, "Details": {"GitCommit": ""}},
            ],
            "Version": options.version,
            "ApiVersion": details["ApiVersion"],
            "MinAPIVersion": details["MinAPIVersion"],
            "GitCommit": "",
            "GoVersion": details["GoVersion"],
            "Os": "linux",
            "Arch": details["Arch"],
            "KernelVersion": kernel.release,
            "BuildTime": "",
        }
    )


@routes.get("/info")
async def info(call: Call) -> web.StreamResponse:
    """``docker info``."""
    engine = call.engine
    return json_response(
        {
            **_NOT_HERE,
            **_contents(engine),
            **_host(engine),
            **_configuration(engine),
            "RuncCommit": {"ID": await engine.runtime_version(), "Expected": ""},
        }
    )


def _contents(engine: Engine) -> dict[str, Any]:
    """What the engine holds and does at the moment."""
    running = sum(c.state.running and c.state.status is not Status.PAUSED for c in engine.containers.all())
    paused = sum(c.state.status is Status.PAUSED for c in engine.containers.all())
    return {
        "ID": engine.id,
        "Containers": len(engine.containers),
        "ContainersRunning": running,
        "ContainersPaused": paused,
        "ContainersStopped": len(engine.containers) - running - paused,
        "Images": engine.image_count(),
        "NFd": sum(1 for _ in Path("/proc/self/fd").iterdir()),
        "NGoroutines": engine.task_count(),
        "NEventsListener": engine.events.subscribers,
        "SystemTime": rfc3339(time.time_ns()),
    }


def _host(engine: Engine) -> dict[str, Any]:
    """The machine, its kernel, and which limits that can enforce."""
    kernel = os.uname()
    release = _os_release(Path("/etc/os-release"))
    return {
        "MemoryLimit": True,
        "SwapLimit": True,
        "CpuCfsPeriod": True,
        "CpuCfsQuota": True,
        "CPUShares": True,
        "CPUSet": True,
        "PidsLimit": True,
        "OomKillDisable": engine.cgroup_version() == "1",
        "IPv4Forwarding": _is_one("/proc/sys/net/ipv4/ip_forward"),
        "BridgeNfIptables": _is_one("/proc/sys/net/bridge/bridge-nf-call-iptables"),
        "BridgeNfIp6tables": _is_one("/proc/sys/net/bridge/bridge-nf-call-ip6tables"),
        "CgroupVersion": engine.cgroup_version(),
        "KernelVersion": kernel.release,
        "OperatingSystem": release.get("PRETTY_NAME", "Linux"),
        "OSVersion": release.get("VERSION_ID", ""),
        "OSType": "linux",
        "Architecture": kernel.machine,
        "NCPU": os.cpu_count() or 1,
        "MemTotal": engine.machine_memory,
        "Name": kernel.nodename,
    }


def _configuration(engine: Engine) -> dict[str, Any]:
    """How the engine was set up and what it works with."""
    options = engine.options
    return {
        "Driver": "overlay2",
        "DriverStatus": [["Backing Filesystem", _filesystem(options.state_dir)]],
        "Plugins": {
            "Volume": ["local"],
            "Network": ["bridge", "host", "null"],
            "Authorization": None,
            "Log": list(engine.logs.drivers()),
        },
        "LoggingDriver": options.default_log_driver,
        "CgroupDriver": "cgroupfs",
        "DockerRootDir": str(options.state_dir),
        "Labels": list(options.labels),
        "ServerVersion": options.version,
        "Runtimes": {options.runtime: {"path": options.runtime}},
        "DefaultRuntime": options.runtime,
        "LiveRestoreEnabled": True,
        "SecurityOptions": ["name=seccomp,profile=builtin"],
    }


@routes.get("/system/df")
async def disk_usage(call: Call) -> web.StreamResponse:
    """``docker system df``."""
    return json_response(await asyncio.to_thread(usage, call.engine))


@routes.post("/auth")
async def auth(call: Call) -> web.StreamResponse:
    """``docker login``: this engine keeps no registry credentials."""
    raise NotImplementedYet(
        "registry login is not served by this engine: it has no registry client of its own"
    )


def _architecture() -> str:
    machine = os.uname().machine
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


def _is_one(path: str) -> bool:
    try:
        return Path(path).read_text().strip() == "1"
    except OSError:
        return False


def _os_release(path: Path) -> dict[str, str]:
    """os-release(5): shell assignments, values maybe quoted."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    return {key: value.strip().strip("\"'") for key, value in pairs}


def _filesystem(path: Path) -> str:
    """The type of the filesystem a path is on: the longest mount point above it."""
    best, kind = "", ""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, point, this_kind, *_ = line.split(" ")
        inside = str(path) == point or str(path).startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, this_kind
    return kind
