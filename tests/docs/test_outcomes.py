"""The page on files as others write them says what happens to each: its tables are what ingesting them gives now."""

import re
from pathlib import Path

import pytest
from markdown_pages import ROOT
from outcomes import CASES, Case, labels, outcome, table

PAGE = ROOT / "docs/how-to/others-files.md"


def tables(text: str) -> dict[str, list[str]]:
    """The rows below each heading."""
    parts = re.split(r"^## (.+)\n", text, flags=re.MULTILINE)
    found = dict(zip(parts[1::2], parts[2::2], strict=True))
    return {name: [line for line in part.splitlines() if line.startswith("|")] for name, part in found.items()}


@pytest.mark.parametrize("name", CASES)
def test_the_page_says_what_happens(name: str, tmp_path: Path) -> None:
    made = table(CASES[name], tmp_path)
    assert tables(PAGE.read_text())[name.capitalize()] == made, "put these lines there:\n" + "\n".join(made)


def test_an_outcome_follows_what_is_there(tmp_path: Path) -> None:
    good, bad = "path,label\na/1.jpg,cat\n", "path,label\na/1.jpg,cat,dog\n"
    assert outcome(Case("", labels(good)), tmp_path / "1") == "read: 1 image of cat"
    assert outcome(Case("", labels(bad)), tmp_path / "2").startswith("refused: line 2 has 3 fields")
