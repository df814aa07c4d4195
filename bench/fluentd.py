"""CPU per line of the fluentd driver's sink; ``bench.drivers`` puts the whole driver beside dockerd's."""

from __future__ import annotations

from bench.sinks import Case, main
from logdrivers.fluentd import FluentdDriver


def _case(title: str, budget: float | None = None, **options: str) -> Case:
    more = {"fluentd-" + key.replace("_", "-"): value for key, value in options.items()}
    return (
        f"fluentd sink{title}",
        FluentdDriver(),
        lambda port: {"fluentd-address": f"127.0.0.1:{port}", **more},
        budget,
    )


CASES: tuple[Case, ...] = (
    _case("", 1.5),
    _case(", packed", 1.5, message_mode="packed", sub_second_precision="true"),
    _case(", acknowledged", 1.5, request_ack="true", sub_second_precision="true"),
    _case(", a message a line, acknowledged", message_mode="message", request_ack="true"),
    _case(", compressed, acknowledged", 1.5, message_mode="compressed", request_ack="true"),
)

if __name__ == "__main__":
    main(CASES)
