from exporters.prometheus.reference import PAGE, rewrite


def test_the_page_lists_the_families_as_they_are() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert rewrite(page) == page, "run: python -m exporters.prometheus.reference"
