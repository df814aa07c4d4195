"""``python -m bench [NAME…]``: every measurement, or those named, one after the other in processes of their own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

__all__ = ["NAMES", "main"]

#: Modules of this folder that print a table.
NAMES = (
    "drivers",
    "trickle",
    "json_file",
    "gelf",
    "fluentd",
    "shim",
    "start",
    "since",
    "sampling",
    "agent",
    "thousand",
    "page",
    "remote_write",
    "history",
    "host",
    "processes",
    "store",
    "search",
    "elasticsearch",
)


def main(names: Sequence[str]) -> int:
    """Run them; 1 if one failed."""
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        print(f"no measurement {', '.join(unknown)}; there are {', '.join(NAMES)}", file=sys.stderr)
        return 2
    failed = 0
    for name in names or NAMES:
        print(f"\n## {name}\n", flush=True)
        failed |= subprocess.run([sys.executable, "-m", f"bench.{name}"], check=False).returncode
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
