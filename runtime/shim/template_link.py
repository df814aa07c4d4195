"""What a shim tells the template: which of its container's streams to keep open, and which no longer.

Best effort, without an answer: a template that died has let go by itself, and the engine tells its successor
what to hold. What the template does with it is in ``runtime/shim/template.py``.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runtime.shim.messages import TEMPLATE_SOCKET, connect, send
from runtime.shim.spec import ShimSpec

__all__ = ["TemplateLink"]

log = logging.getLogger(__name__)

_SEND_SECONDS = 2.0


class TemplateLink:
    """The way from one container's shim to the template that serves in a directory."""

    def __init__(self, spec: ShimSpec, template_dir: Path) -> None:
        self._spec = spec
        self._template_dir = template_dir

    def hold(self, master: int) -> None:
        """Keep the container's streams, and this terminal of its."""
        self._tell({"op": "hold", "spec": self._spec.to_json()}, [master])

    def release(self, *names: str) -> None:
        """Let go of these streams, without names of all of them."""
        message: dict[str, Any] = {"op": "release", "container_id": self._spec.container_id}
        self._tell({**message, "names": list(names)} if names else message)

    def _tell(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        try:
            with connect(self._template_dir, TEMPLATE_SOCKET) as sock:
                sock.settimeout(_SEND_SECONDS)
                send(sock, message, fds)
        except OSError as error:
            log.warning("tell the template to %s: %s", message["op"], error)
