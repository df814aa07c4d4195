"""One container per driver writes 100,000 lines: each is once in the journal, the store and Elasticsearch."""

import json
import re
import uuid
from collections import Counter
from collections.abc import Iterator

import pytest

LINES = 100_000
NUMBER = re.compile(r"line (\d{7}) ")
#: Numbered lines of about a hundred bytes, with what every format must escape, as fast as busybox prints them.
SCRIPT = (
    f"""seq 1 {LINES} | awk '{{ printf "%s line %07d \\"q\\" <&> \\\\ \\tend %s\\n", $1 % 2 ? "odd" : "even", $1, """
    """"................................................" }'"""
)


def numbers(text: str) -> Counter[int]:
    return Counter(int(number) for number in NUMBER.findall(text))


def all_documents(elasticsearch, index: str) -> Iterator[dict]:
    """Every document, page by page in the order of ids."""
    after: list[object] = []
    while True:
        body = {
            "size": 10_000,
            "sort": ["container.name", "event.sequence"],
            "_source": ["message", "container.name"],
        }
        body |= {"search_after": after} if after else {}
        hits = elasticsearch.request("POST", f"/{index}/_search", body)["hits"]["hits"]
        if not hits:
            return
        yield from (hit["_source"] for hit in hits)
        after = hits[-1]["sort"]


@pytest.fixture
def index() -> str:
    return f"logs-taffrail-{uuid.uuid4().hex[:8]}"


@pytest.mark.timeout(900)
def test_every_line_is_once_everywhere(taffrail, eventually, elasticsearch, index: str, image: str) -> None:
    taffrail.settings += [f"elasticsearch.hosts={elasticsearch.url}", f"elasticsearch.data_stream={index}"]
    # Whom the kernel kills on this host meanwhile, for other tests, is a line that belongs to no container.
    taffrail.settings += ["collector.oom_log=false"]
    taffrail.up()
    taffrail.import_image(image)
    drivers = {
        "json-file": [],
        "gelf": [f"gelf-address=tcp://{taffrail.address('gelf')}"],
        "fluentd": [f"fluentd-address=tcp://{taffrail.address('forward')}", "fluentd-request-ack=true"],
    }
    for driver, options in drivers.items():
        words = [part for option in options for part in ("--log-opt", option)]
        taffrail.docker(
            "run", "-d", "--name", f"w-{driver}", "--log-driver", driver, *words, image, "sh", "-c", SCRIPT
        )
    wanted = Counter(range(1, LINES + 1))
    for driver in drivers:
        assert taffrail.docker("wait", f"w-{driver}").strip() == "0"
        assert numbers(taffrail.docker("logs", f"w-{driver}")) == wanted, f"{driver}: the journal"

    stored: dict[str, Counter[int]] = {}

    def all_stored(driver: str) -> bool:
        words = ("search", f"container:w-{driver}", "-n", str(LINES + 10), "--format", "json")
        stored[driver] = numbers(taffrail.taffrail(*words, check=False))
        return sum(stored[driver].values()) >= LINES

    for driver in drivers:
        eventually(lambda driver=driver: all_stored(driver), f"{driver}: all lines in the store", 300)
        assert stored[driver] == wanted, f"{driver}: the store"

    eventually(lambda: elasticsearch.count(index) >= len(drivers) * LINES, "all lines in Elasticsearch", 400)
    found = {driver: Counter[int]() for driver in drivers}
    for document in all_documents(elasticsearch, index):
        found[document["container"]["name"].removeprefix("w-")].update(numbers(document["message"]))
    for driver in drivers:
        assert found[driver] == wanted, f"{driver}: Elasticsearch"

    page = taffrail.metrics()
    for driver in ("gelf", "fluentd"):
        labels = f'driver="{driver}"'
        value = {
            name: sum(page.values(f"taffrail_log_{name}", labels))
            for name in ("written_lines_total", "delivered_lines_total", "held_lines", "dropped_lines_total")
        }
        assert value["written_lines_total"] == value["delivered_lines_total"] == LINES, (driver, value)
        assert value["held_lines"] == value["dropped_lines_total"] == 0, (driver, value)
    assert json.loads(taffrail.docker("inspect", "w-gelf"))[0]["State"]["ExitCode"] == 0
