"""What a shim is told about its container, and the names of the files it shares with its successors.

The specification travels as JSON from the engine through the template to the shim.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from logdrivers.driver import Info

__all__ = ["ShimSpec"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShimSpec:
    """One container to run. ``run_dir`` is the container's own, and short-lived: a reboot may take it."""

    container_id: str
    bundle: Path  #: directory with ``config.json``
    run_dir: Path
    driver: str  #: name of the log driver
    info: Info
    runtime: str = "runc"
    runtime_root: Path
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False  #: the container's stdin ends with the first attached client's
    uid: int = 0  #: who owns the streams, so that the container can open /dev/stdout again
    gid: int = 0
    pipe_bytes: int = 1 << 20
    await_attach: bool = False  #: read no output before a client is attached (5 s at most)
    park_seconds: float = 10.0  #: so long without anything to do, and the shim is parked; 0 for never

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        value = {field.name: _plain(getattr(self, field.name)) for field in fields(self)}
        value["info"] = {field.name: _plain(getattr(self.info, field.name)) for field in fields(Info)}
        return value

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> ShimSpec:
        """The inverse. Keys of another version are passed over and logged; ValueError for one that is missing."""
        value = _known(cls, value, "specification of a shim")
        info = _known(Info, value["info"], "description of a container")
        info["directory"] = Path(info["directory"])
        info["command"] = tuple(info["command"])
        value["info"] = Info(**info)
        for key in ("bundle", "run_dir", "runtime_root"):
            value[key] = Path(value[key])
        return cls(**value)

    def stream_path(self, name: str) -> Path:
        """The FIFO of ``stdin``, ``stdout`` or ``stderr``."""
        return self.run_dir / "io" / name

    def spool_path(self, name: str) -> Path:
        """The spool of ``stdout`` or ``stderr``."""
        return self.run_dir / "io" / f"{name}.spool"

    @property
    def ledger_path(self) -> Path:
        """The copier's ledger."""
        return self.run_dir / "io" / "ledger"


def _known(kind: type, value: Mapping[str, Any], what: str) -> dict[str, Any]:
    """The items that are fields of a dataclass."""
    names = {field.name for field in fields(kind)}
    needed = {f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING}
    if missing := needed - value.keys():
        raise ValueError(f"{what} without {', '.join(sorted(missing))}: another version has made it")
    if unknown := value.keys() - names:
        log.warning("%s: %s passed over: another version has made it", what, ", ".join(sorted(unknown)))
    return {name: item for name, item in value.items() if name in names}


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return list(value)
    return value
