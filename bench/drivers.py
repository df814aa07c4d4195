"""Log drivers beside dockerd's, in one run: CPU of the engine's processes per line a container writes.

Both engines run the same image with the same command, which writes files of lines to its standard output and
then sleeps; what is counted is the user and system time of every process of the engine until they are quiet
again: dockerd, containerd and its shim there (reading, encoding, rotating, compressing, sending); engine,
template and shim with all its threads here. The container's own CPU and the receiver's are not counted.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.engines import FILE_LINES, KINDS, Engine, engines
from bench.receivers import Receivers, in_own_mounts, own_root, receivers
from bench.table import Row, print_table

__all__ = ["Case", "main", "measure"]

#: Most microseconds of CPU for a plain line.
BUDGETS = {"json-file": 0.5, "gelf udp, gzip": 12.0, "gelf tcp": 1.3, "fluentd": 1.5}
#: A line of a kilobyte counts as so many of a hundred bytes when the number of lines is chosen.
_LONG = 5
#: Lines full of quotes are the worst for a format with escapes; nothing reads them for ``none``.
_KINDS = {"json-file": tuple(KINDS), "local": tuple(KINDS), "none": ("plain",)}


@dataclass(frozen=True, slots=True)
class Case:
    """A row: a driver with options, and how many plain lines it is measured with."""

    title: str
    driver: str
    options: Sequence[str]
    kind: str
    lines: int
    peer_lines: int  #: for dockerd, where it would take minutes

    def budget(self, theirs: float) -> float | None:
        """What the design allows; for lines full of quotes a third of what dockerd took in the same run."""
        if self.kind == "quotes" and self.driver == "json-file":
            return round(theirs / 3, 2)
        return BUDGETS.get(self.title) if self.kind == "plain" else None


def cases(to: Receivers) -> list[Case]:
    """All rows."""
    rotating = ["max-size=10m", "max-file=3"]
    tcp = f"syslog-address=tcp://{to.tcp}"
    drivers: list[tuple[str, str, list[str], int, int]] = [
        ("none", "none", [], 600_000, 600_000),
        ("json-file", "json-file", [], 600_000, 600_000),
        ("json-file, rotating", "json-file", rotating, 600_000, 600_000),
        ("json-file, rotating, compress", "json-file", [*rotating, "compress=true"], 600_000, 600_000),
        ("local, rotating, compress", "local", [], 600_000, 600_000),
        ("gelf tcp", "gelf", [f"gelf-address=tcp://{to.tcp}"], 300_000, 300_000),
        ("gelf udp, gzip", "gelf", [f"gelf-address={to.udp}"], 50_000, 10_000),
        ("fluentd", "fluentd", [f"fluentd-address=tcp://{to.tcp}"], 300_000, 300_000),
        ("syslog tcp", "syslog", [tcp], 300_000, 300_000),
        ("syslog tcp, rfc5424", "syslog", [tcp, "syslog-format=rfc5424"], 300_000, 300_000),
        ("syslog udp", "syslog", [f"syslog-address={to.udp}"], 50_000, 100_000),
        ("journald", "journald", [], 100_000, 50_000),
    ]
    made = []
    for title, driver, options, ours, theirs in drivers:
        for kind in KINDS:
            if kind not in _KINDS.get(driver, ("plain", "json", "1 KiB")):
                continue
            scale = _LONG if kind == "1 KiB" else 1
            made.append(Case(title, driver, options, kind, ours // scale, theirs // scale))
    return made


def measure(engine: Engine, case: Case, lines: int, to: Receivers) -> float:
    """Microseconds of the engine's CPU per line. Raises RuntimeError if the receiver did not get all of them."""
    times = max(1, lines // FILE_LINES)
    lines = times * FILE_LINES
    name = engine.run(
        case.driver,
        case.options,
        "while [ ! -e /go ]; do sleep 0.05; done; i=0; "
        f"while [ $i -lt {times} ]; do cat '/{case.kind}'; i=$((i+1)); done; touch /done; sleep 600",
    )
    try:
        pid = int(engine.docker("inspect", "-f", "{{.State.Pid}}", name))
        datagrams, size = to.taken()
        before = engine.settle()
        Path(f"/proc/{pid}/root/go").touch()
        while not Path(f"/proc/{pid}/root/done").exists():
            time.sleep(0.05)
        spent = engine.settle() - before
        _check(engine, case, lines, to.taken()[0] - datagrams, to.taken()[1] - size)
        return spent / lines * 1e6
    finally:
        engine.docker("rm", "-f", name)


def _check(engine: Engine, case: Case, lines: int, datagrams: int, size: int) -> None:
    """What was not sent must not count as cheap."""
    wanted = lines * len(KINDS[case.kind](0))
    if "tcp" in case.title or case.driver == "fluentd":
        if size < wanted:
            raise RuntimeError(f"{engine.name}, {case.title}: {size} of at least {wanted} bytes arrived")
    elif case.driver == "journald" or "udp" in case.title:
        if case.driver == "journald" and datagrams < lines:
            raise RuntimeError(f"{engine.name}, {case.title}: {datagrams} of {lines} entries arrived")
        if datagrams < lines:
            print(f"{engine.name}, {case.title}: {datagrams} of {lines} datagrams arrived", file=sys.stderr)


def row(pair: tuple[Engine, Engine], case: Case, runs: int, to: Receivers) -> Row:
    """Both engines in turns; the median of each."""
    spent = [
        (measure(pair[0], case, case.lines, to), measure(pair[1], case, case.peer_lines, to))
        for _ in range(runs)
    ]
    ours, theirs = (statistics.median(column) for column in zip(*spent, strict=True))
    return Row(f"{case.title}, {case.kind}", "µs CPU a line", ours, "dockerd", theirs, case.budget(theirs))


def main(arguments: Sequence[str]) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.drivers", description=__doc__)
    parser.add_argument("--runs", type=int, default=2, help="runs of each; the median is shown")
    parser.add_argument("--driver", action="append", help="only these drivers")
    parser.add_argument("--kind", action="append", help="only these lines: plain, json, quotes, 1 KiB")
    parser.add_argument("--quick", action="store_true", help="plain lines, and quotes for json-file, once")
    args = parser.parse_args(arguments)
    in_own_mounts("bench.drivers", arguments)
    kinds, runs = args.kind, args.runs
    if args.quick:
        kinds, runs = kinds or ["plain"], 1
    rows = []
    with receivers() as to, own_root() as root, engines(root) as pair:
        for case in cases(to):
            budgeted = case.kind == "quotes" and case.title == "json-file"
            if args.driver and case.driver not in args.driver:
                continue
            if kinds and case.kind not in kinds and not (args.quick and budgeted):
                continue
            rows.append(row(pair, case, runs, to))
            print(*rows[-1].cells(), sep="  ", file=sys.stderr, flush=True)
    print_table(rows)


if __name__ == "__main__":
    main(sys.argv[1:])
