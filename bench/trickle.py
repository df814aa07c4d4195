"""What many quiet containers cost: CPU of an engine while each of them writes a line a second, and while none does.

This is what most hosts have. Counted is every process of the engine, beside dockerd's in the same run, as in
``bench.drivers``; the part of our shims alone is a row of its own, since engine and template have nothing to do.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from bench.engines import Engine, engines
from bench.receivers import Receivers, in_own_mounts, own_root, receivers
from bench.table import Row, print_table

__all__ = ["main"]

_LINE = "2026-01-31 request served from cache in 12 ms for tenant alpha, 200, 5120 bytes"
_WRITES = f"while :; do echo '{_LINE}'; sleep 1; done"
_IDLE = "sleep 10000"
_OURS = "shim"  #: the name of our shims, as far as it is the same for all


def drivers(to: Receivers) -> list[tuple[str, str, list[str]]]:
    """Title, driver, options: a file, a compact file, and one for each kind of sink."""
    return [
        ("json-file", "json-file", []),
        ("local", "local", []),
        ("gelf tcp", "gelf", [f"gelf-address=tcp://{to.tcp}"]),
        ("gelf udp", "gelf", [f"gelf-address={to.udp}"]),
        ("fluentd", "fluentd", [f"fluentd-address=tcp://{to.tcp}"]),
        ("syslog udp", "syslog", [f"syslog-address={to.udp}"]),
        ("journald", "journald", []),
    ]


def measure(
    engine: Engine, driver: str, options: Sequence[str], script: str, count: int, seconds: float
) -> tuple[float, float]:
    """Microseconds of CPU per container and second: of everything, and of our shims."""
    names = [engine.run(driver, options, script) for _ in range(count)]
    try:
        time.sleep(2.0)
        began, before = time.monotonic(), engine.run_seconds_by_name()
        time.sleep(seconds)
        after, per_second = engine.run_seconds_by_name(), (time.monotonic() - began) * count / 1e6
        shims = after.get(_OURS, 0.0) - before.get(_OURS, 0.0)
        return (sum(after.values()) - sum(before.values())) / per_second, shims / per_second
    finally:
        engine.docker("rm", "-f", *names)


def rows(
    pair: tuple[Engine, Engine],
    title: str,
    driver: str,
    options: Sequence[str],
    script: str,
    count: int,
    seconds: float,
) -> list[Row]:
    """Everything beside dockerd, and the shims alone."""
    (ours, shims), (theirs, _) = (measure(engine, driver, options, script, count, seconds) for engine in pair)
    unit = "µs CPU a container and second"
    return [
        Row(f"trickle, {title}", unit, ours, "dockerd", theirs),
        Row(f"trickle, {title}, shims alone", unit, shims),
    ]


def main(arguments: Sequence[str]) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.trickle", description=__doc__)
    parser.add_argument("--containers", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--driver", action="append", help="only these")
    args = parser.parse_args(arguments)
    in_own_mounts("bench.trickle", arguments)
    made: list[Row] = []
    with receivers() as to, own_root() as root, engines(root) as pair:
        work = [("json-file, idle", "json-file", list[str](), _IDLE)]
        work += [(title, driver, options, _WRITES) for title, driver, options in drivers(to)]
        for title, driver, options, script in work:
            if args.driver and driver not in args.driver:
                continue
            made += rows(pair, title, driver, options, script, args.containers, args.seconds)
            for one in made[-2:]:
                print(*one.cells(), sep="  ", file=sys.stderr, flush=True)
    print_table(made)


if __name__ == "__main__":
    main(sys.argv[1:])
