"""CPU per line of the gelf driver's sink; ``bench.drivers`` puts the whole driver beside dockerd's."""

from __future__ import annotations

from bench.sinks import Case, main
from logdrivers.gelf import GelfDriver

CASES: tuple[Case, ...] = (
    (
        "gelf sink, udp, gzip",
        GelfDriver(),
        lambda port: {"gelf-address": f"udp://127.0.0.1:{port}", "gelf-udp-rate": "0"},
        12.0,
    ),
    (
        "gelf sink, udp, gzip, paced",
        GelfDriver(),
        lambda port: {"gelf-address": f"udp://127.0.0.1:{port}"},
        12.0,
    ),
    (
        "gelf sink, udp, none",
        GelfDriver(),
        lambda port: {
            "gelf-address": f"udp://127.0.0.1:{port}",
            "gelf-udp-rate": "0",
            "gelf-compression-type": "none",
        },
        None,
    ),
    ("gelf sink, tcp", GelfDriver(), lambda port: {"gelf-address": f"tcp://127.0.0.1:{port}"}, 1.3),
)

if __name__ == "__main__":
    main(CASES)
