"""The log path of the agent in one process, for tests that kill it: tails, store, exporter.

``python tail_to_elasticsearch.py DIRECTORY URL DATA_STREAM``: every ``*.log`` below DIRECTORY/logs is a
container's. Prints the lines delivered and the lag whenever they change.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

from collector.container import Container, LogSource
from collector.discovery.registry import Containers
from collector.enrich import Sources
from collector.inputs.tails import Tails
from collector.store import Store
from exporters.elasticsearch.config import ElasticsearchConfig
from exporters.elasticsearch.exporter import ElasticsearchExporter


def main() -> None:
    root, url, stream = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    containers = Containers()
    for path in sorted((root / "logs").glob("*.log")):
        key = (path.stem.encode().hex() + "0" * 64)[:64]
        containers.update(Container(key, path.stem, engine="docker", log=LogSource("json-file", str(path))))
    store = Store(root / "store", segment_bytes=1 << 20)
    tails = Tails(containers, store, Sources(containers, "host"), block_bytes=1 << 16)
    config = ElasticsearchConfig(
        (url,), root / "exporter", data_stream=stream, batch_bytes=1 << 18, longest_backoff_seconds=1.0
    )
    exporter = ElasticsearchExporter(config, store.cursor("elasticsearch"))
    for work in (tails.run_forever, exporter.run_forever):
        threading.Thread(target=work, daemon=True).start()
    shown = ""
    while True:
        counters = exporter.counters()
        now = f"{counters.delivered_lines} {tails.totals().lines} {exporter.lag()[0]} {counters.duplicates}"
        if now != shown:
            print(now, flush=True)
            shown = now
        time.sleep(0.02)


main()
