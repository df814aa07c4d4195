"""A real Prometheus server for tests: on a free port, scraping one target every second."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from held_port import hold_port


class Prometheus:
    """Runs until closed, its data in the directory given."""

    def __init__(
        self,
        directory: Path,
        target: str,
        rules: Sequence[Path] = (),
        job: str = "taffrail",
        scrape: dict[str, Any] | None = None,
    ) -> None:
        """``scrape`` has what a scrape configuration says instead of the one target."""
        self._held = hold_port()
        self.port = self._held.getsockname()[1]
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(file) for file in rules],
            "scrape_configs": [{"job_name": job, **(scrape or {"static_configs": [{"targets": [target]}]})}],
        }
        (directory / "prometheus.yml").write_text(json.dumps(config))
        with (directory / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={directory}/prometheus.yml",
                    f"--storage.tsdb.path={directory}/data",
                    f"--web.listen-address=127.0.0.1:{self.port}",
                ],
                stdout=log,
                stderr=log,
            )

    def get(self, path: str, **query: str) -> Any:
        """What the HTTP API answers; nothing found while the server is not ready."""
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=60) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 503:  # it listens before it is ready
                    return {"result": [], "groups": []}
                raise AssertionError(f"{query}: {error.read().decode()}") from None
        except OSError:
            return {"result": [], "groups": []}

    def query(self, expr: str) -> list[dict[str, Any]]:
        """An instant query's series; a scalar as one of them."""
        data = self.get("query", query=expr)
        if data.get("resultType") == "scalar":
            return [{"metric": {}, "value": data["result"]}]
        return list(data["result"])

    def value(self, expr: str) -> float:
        """The value of a query that has to find one series."""
        (series,) = self.query(expr)
        return float(series["value"][1])

    def close(self) -> None:
        """Stop it."""
        self._process.terminate()
        self._process.wait(120)
        self._held.close()
