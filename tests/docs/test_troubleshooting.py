"""The headings of the troubleshooting page are words that the program says, so that people find them."""

from collections.abc import Iterator
from pathlib import Path

from markdown_pages import ROOT, Page

PLACE = "…"
"""Stands in a heading for what differs."""


def said(root: Path = ROOT) -> str:
    """The code of the three rooms, without the marks that headings lack."""
    paths = (path for room in ("pipeline", "stages", "infra") for path in (root / room).rglob("*.py"))
    return "\n".join(path.read_text() for path in paths).replace("`", "")


def unsaid(page: Page, texts: str) -> Iterator[str]:
    """Name the headings of messages of which a part is said nowhere."""
    for tag, heading in page.headings:
        parts = [part.strip() for part in heading.split(PLACE)]
        if tag == "h3" and not all(part in texts for part in parts):
            yield heading


def test_each_heading_is_said_by_the_program():
    page, texts = Page(ROOT / "docs/troubleshooting.md"), said()
    assert sum(tag == "h3" for tag, _ in page.headings) > 25
    assert list(unsaid(page, texts)) == []


def test_a_heading_that_nobody_says_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("# Any\n\n## Any\n\n### a … flat `tyre` …\n\n### a … puncture …\n")
    assert list(unsaid(Page(path), "a big flat tyre")) == ["a … puncture …"]
