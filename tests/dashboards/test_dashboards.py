"""The kept files are what the descriptions make, and Prometheus' own tools take them."""

import re
import subprocess
from pathlib import Path

from dashboards.grafana.docker_and_system import DASHBOARD, FILE, text
from dashboards.grafana.model import render

RULES = FILE.parent.parent / "alerts" / "containers.yml"


def test_the_kept_dashboard_is_the_one_described() -> None:
    assert FILE.read_bytes() == text(), "run: python -m dashboards.grafana.docker_and_system"


def test_panels_do_not_overlap_and_stay_on_the_sheet() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in render(DASHBOARD)["panels"]:  # type: ignore[attr-defined]
        at = panel["gridPos"]
        cells = {(at["x"] + dx, at["y"] + dy) for dx in range(at["w"]) for dy in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells


def test_every_query_selects_by_the_variables() -> None:
    for row in DASHBOARD.rows:
        for panel in row.panels:
            for target in panel.targets:
                assert 'instance=~"$host"' in target.expr, panel.title
                if not row.title.startswith("Host"):
                    assert 'name=~"$container"' in target.expr, panel.title


def test_promtool_takes_the_rules() -> None:
    answer = subprocess.run(
        ["promtool", "check", "rules", str(RULES)], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    assert "SUCCESS" in answer.stdout


def test_every_alert_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "dashboards.md").read_text()
    for name in re.findall(r"alert: (\w+)", RULES.read_text()):
        assert f"`{name}`" in page, name


def test_the_rules_fire_on_what_they_say(tmp_path: Path) -> None:
    case = tmp_path / "rules_test.yml"
    case.write_text((Path(__file__).parent / "rules_test.yml").read_text().replace("RULES", str(RULES)))
    answer = subprocess.run(
        ["promtool", "test", "rules", str(case)], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
