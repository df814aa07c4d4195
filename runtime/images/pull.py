"""Fetching an image from a registry, by handing the work to skopeo.

The engine has no registry client of its own: skopeo writes an archive, ``ImageStore.load`` reads it. Where
skopeo is not installed the answer says so and names the ways that need no registry.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from runtime.errors import NotFound, ServerError
from runtime.images.archive import load_archive
from runtime.images.image import ImageStore

__all__ = ["pull"]

TIMEOUT = "10m"  #: for the whole copy; skopeo stops by itself then
_UNKNOWN = ("manifest unknown", "name unknown", "not found", "requested access to the resource is denied")


async def pull(images: ImageStore, reference: str, platform: str = "") -> Sequence[str]:
    """Fetch ``name:tag`` and load it; progress lines for the client.

    Raises NotFound for an image the registry does not have, ServerError for a registry out of reach.
    """
    program = shutil.which("skopeo")
    if program is None:
        raise NotFound(
            f"pull access denied for {reference}: this engine has no registry client (skopeo is not installed); "
            "use docker load or docker import"
        )
    with tempfile.TemporaryDirectory(prefix="taffrail-pull-") as directory:
        archive = Path(directory) / "image.tar"
        command = [program, "--command-timeout", TIMEOUT, *_platform(platform), "copy", "--quiet"]
        process = await asyncio.create_subprocess_exec(
            *command,
            f"docker://{reference}",
            f"docker-archive:{archive}:{reference}",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            _, errors = await process.communicate()
        except asyncio.CancelledError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            raise
        if process.returncode != 0:
            raise _refusal(reference, errors.decode("utf-8", "replace"))
        with archive.open("rb") as stream:
            lines = await asyncio.to_thread(load_archive, images, stream)
    return [f"Pulling {reference}", *lines, f"Status: Downloaded newer image for {reference}"]


def _platform(platform: str) -> list[str]:
    """skopeo's options for ``os/arch[/variant]``."""
    parts = platform.split("/") if platform else []
    names = ("--override-os", "--override-arch", "--override-variant")
    return [text for name, part in zip(names, parts, strict=False) for text in (name, part)]


def _refusal(reference: str, errors: str) -> NotFound | ServerError:
    last = errors.strip().splitlines()[-1] if errors.strip() else "skopeo gave no reason"
    if 'msg="' in last:
        last = last.split('msg="', 1)[1].rstrip('"').replace('\\"', '"')
    if any(words in last for words in _UNKNOWN):
        return NotFound(f"pull access denied for {reference}, repository does not exist: {last}")
    return ServerError(f"cannot pull {reference}: {last}")
