"""The memory of a part that runs on: one heap, what nobody needs kept out of it, free pages given back.

Python and the C library keep what a scrape, a search or a start once needed, for the next one. Agent and engine
are asked for something now and then, and are to be small in between.
"""

from __future__ import annotations

import asyncio
import gc
import mimetypes

from runtime.shim.linux import one_heap, trim_heap

__all__ = ["freeze", "keep_trimmed", "prepare"]

#: Seconds between two looks; one costs a tenth of a millisecond when there is nothing to give back.
_EVERY = 10.0


def prepare() -> None:
    """To be called before other modules are imported, and before there are threads."""
    one_heap()
    mimetypes.knownfiles.clear()  # aiohttp reads the host's list of a thousand types; ours are in Python's own


def freeze() -> None:
    """Once everything is built: what there is stays, and need not be looked through for garbage again."""
    gc.collect()
    gc.freeze()


async def keep_trimmed() -> None:
    """Give free pages back to the kernel now and then, until cancelled."""
    while True:
        await asyncio.sleep(_EVERY)
        trim_heap()
