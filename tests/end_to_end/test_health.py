"""A health check's result from the probe's exit code to /metrics and to the alert that ships."""

import re
from pathlib import Path

from prometheus_server import Prometheus

RULES = Path(__file__).parents[2] / "dashboards" / "alerts" / "containers.yml"
CHECK = ("--health-cmd", "test -e /well", "--health-interval", "300ms", "--health-retries", "1")


def test_a_failing_check_is_a_series_and_an_alert(
    shared_taffrail, eventually, tmp_path: Path, image: str
) -> None:
    taffrail = shared_taffrail

    def state(name: str) -> list[float]:
        return taffrail.metrics().values("container_health_state", f'name="{name}"')

    for name, words in (("sick", CHECK), ("plain", ()), ("ended", CHECK)):
        taffrail.docker("run", "-d", "--name", name, *words, image, "sleep", "1000")
    taffrail.docker("exec", "ended", "touch", "/well")
    eventually(
        lambda: state("plain") == [-1] and state("sick") == [0] and state("ended") == [1], "three states"
    )
    prometheus = Prometheus(tmp_path, taffrail.address("http"), [RULES])
    try:

        def alerts() -> set[tuple[str, str]]:
            found = prometheus.query('ALERTS{alertname="ContainerUnhealthy"}')
            return {(item["metric"]["name"], item["metric"]["alertstate"]) for item in found}

        taffrail.docker("stop", "-t", "0", "ended")
        eventually(lambda: alerts() == {("sick", "pending")}, "the alert on the one that fails and runs")
        eventually(lambda: state("ended") in ([], [-1]), "no health of one that has ended")
        eventually(lambda: alerts() == {("sick", "pending")}, "the alert on the one that runs alone")
        taffrail.docker("exec", "sick", "touch", "/well")
        eventually(lambda: state("sick") == [1], "health")
        eventually(lambda: alerts() == set(), "no alert")
    finally:
        prometheus.close()
    text = taffrail.docker("ps", "-a", "--format", "{{.Names}} {{.Status}}")
    assert re.search(r"^sick Up .* \(healthy\)$", text, re.MULTILINE)
    assert re.search(r"^ended Exited", text, re.MULTILINE)
    assert '"healthy"' in taffrail.get("/api/v1/containers")
