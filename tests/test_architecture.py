"""docs/architecture.md names files that are there, and top-level names that are ours alone."""

import importlib
import re
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[1]
OURS = ("taffrail", "dashboards", "exporters", "collector", "runtime", "logdrivers")


def test_every_file_of_the_walks_is_there_and_imports() -> None:
    names = set(
        re.findall(r"`([a-z_0-9]+/[a-z_0-9/]+)\.py`", (ROOT / "docs" / "architecture.md").read_text())
    )
    assert len(names) > 40
    for name in sorted(names):
        assert (ROOT / f"{name}.py").is_file(), name
        importlib.import_module(name.replace("/", "."))


def test_links_between_the_pages_lead_somewhere() -> None:
    for page in (
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "bench" / "README.md",
        *(ROOT / "docs").rglob("*.md"),
    ):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_no_other_installed_package_has_one_of_our_top_level_names() -> None:
    owners = packages_distributions()
    for name in OURS:
        assert set(owners.get(name, ["taffrail"])) == {"taffrail"}, name
