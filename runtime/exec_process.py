"""The OCI process of a ``docker exec``: the container's own with the command, user and environment changed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runtime.errors import BadRequest, ServerError, Unavailable
from runtime.execs import Exec, ExecConfig
from runtime.oci.capabilities import effective_capabilities
from runtime.oci.user import find_user
from runtime.shim.client import ShimError, ShimGone
from runtime.shim.shims import ExecSession
from runtime.state import read_json

__all__ = ["exec_process", "run_exec"]


def exec_process(container_process: Mapping[str, Any], config: ExecConfig, rootfs: Path) -> dict[str, Any]:
    """The ``process`` object for runc. ``container_process`` is the one of the container's bundle."""
    process = dict(container_process)
    process.pop("consoleSize", None)
    process["terminal"] = config.tty
    process["args"] = list(config.command)
    env = dict(item.partition("=")[::2] for item in process.get("env", ()))
    if config.tty:
        env.setdefault("TERM", "xterm")
    if config.user:
        user = find_user(rootfs, config.user)
        process["user"] = {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.additional_gids)}
        env["HOME"] = user.home
    for item in config.env:
        key, mark, value = item.partition("=")
        if mark:
            env[key] = value
        else:
            env.pop(key, None)
    process["env"] = [f"{key}={value}" for key, value in env.items()]
    if config.working_dir:
        if not config.working_dir.startswith("/"):
            raise BadRequest(f"invalid working directory {config.working_dir!r}: expected an absolute path")
        process["cwd"] = config.working_dir
    if config.privileged:
        every = list(effective_capabilities((), (), True))
        process["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), every)
    elif process.get("user", {}).get("uid", 0) != 0:
        process["capabilities"] = {"bounding": process.get("capabilities", {}).get("bounding", [])}
    return process


async def run_exec(instance: Exec, *, stdin: bool, bound: bool = False) -> ExecSession:
    """Start it. Raises BadRequest (exit code 126, 127) or ServerError with runc's words.

    A ``bound`` one is killed when its session is closed.
    """
    container = instance.container
    handle = container.running_handle()
    spec = read_json(handle.spec.bundle / "config.json")
    process = exec_process(spec["process"], instance.config, Path(spec["root"]["path"]))
    instance.running = True
    instance.emit("exec_start")
    try:
        session = await handle.exec(process, stdin=stdin, session=instance.id, bound=bound)
    except ShimGone as error:
        instance.failed(126)
        raise Unavailable(f"OCI runtime exec failed: exec failed: {error}: unknown") from error
    except ShimError as error:
        text = str(error).removeprefix("exec failed: ")  # runc's own word for it
        missing = "no such file or directory" in text or "executable file not found" in text
        instance.failed(127 if missing else 126)
        message = f"OCI runtime exec failed: exec failed: {text}: unknown"
        if missing or "permission denied" in text:
            raise BadRequest(message) from error
        raise ServerError(message) from error
    instance.pid = session.pid
    return session
