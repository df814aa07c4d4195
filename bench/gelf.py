"""CPU per line of the gelf driver's sink; ``bench.drivers`` puts the whole driver beside dockerd's."""

from __future__ import annotations

from bench.http_receiver import http_receiver
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


def _posted(title: str, address: str, **options: str) -> Case:
    chosen = {"gelf-address": address} | {f"gelf-{key.replace('_', '-')}": options[key] for key in options}
    return f"gelf sink, {title}", GelfDriver(), lambda _: chosen, None


if __name__ == "__main__":
    with http_receiver() as http, http_receiver(tls=True) as https:
        plain, secured = f"http://127.0.0.1:{http}", f"https://127.0.0.1:{https}"
        main(
            (
                *CASES,
                _posted("http", plain),
                _posted("http bulk", plain, http_bulk="true"),
                _posted("http bulk, gzip", plain, http_bulk="true", http_compression="gzip"),
                _posted("https", secured, tls_skip_verify="true"),
                _posted("https bulk", secured, http_bulk="true", tls_skip_verify="true"),
            )
        )
