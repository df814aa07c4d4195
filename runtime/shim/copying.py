"""What a container's copier works on: spools and ledger in its run directory, journal and counter beside its log.

Opening them is how a successor learns what the shim before it had done. When bytes are moved is decided in
``runtime/shim/pump.py``, how they are cut into blocks in ``logdrivers/source/copier.py``.
"""

from __future__ import annotations

from logdrivers.registry import get
from logdrivers.source.copier import Copier
from logdrivers.source.ledger import Ledger
from logdrivers.source.options import parse_source
from logdrivers.source.rate_limit import SOURCE_STATE_NAME, DropCounter
from logdrivers.source.spool import Spool
from runtime.shim.spec import ShimSpec

__all__ = ["open_copier"]


def open_copier(spec: ShimSpec) -> Copier:
    """The container's copier, where the last one left off. Raises OptionError, OSError, ValueError."""
    driver = get(spec.driver)
    spec.ledger_path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    return Copier(
        spec.container_id,
        lambda: driver.journal(spec.info),
        lambda stream, base: Spool(spec.spool_path(stream.text), base),
        Ledger(spec.ledger_path),
        parse_source(spec.info.options, spec.info.labels),
        lambda: DropCounter(spec.info.directory / SOURCE_STATE_NAME),
    )
