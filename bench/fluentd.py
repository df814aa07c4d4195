"""CPU per line of the fluentd driver's sink; ``bench.drivers`` puts the whole driver beside dockerd's."""

from __future__ import annotations

from bench.sinks import Case, main
from logdrivers.fluentd import FluentdDriver

CASES: tuple[Case, ...] = (
    ("fluentd sink", FluentdDriver(), lambda port: {"fluentd-address": f"127.0.0.1:{port}"}, 1.5),
    (
        "fluentd sink, acknowledged",
        FluentdDriver(),
        lambda port: {
            "fluentd-address": f"127.0.0.1:{port}",
            "fluentd-request-ack": "true",
            "fluentd-sub-second-precision": "true",
        },
        1.5,
    ),
)

if __name__ == "__main__":
    main(CASES)
