"""The generated reference names everything that it is made from, and its tables hold together."""

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from markdown_pages import ROOT, Page

from vitpipe.infra import metrics
from vitpipe.pipeline.spec.catalog import CATALOG
from vitpipe.stages.ingest.benchmarks.registry import REGISTRY


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    sys.path.insert(0, str(ROOT / "docs/reference"))
    try:
        import generate as module
    finally:
        sys.path.pop(0)
    return module


def rows(text: str) -> list[list[str]]:
    """The cells of each row of all tables."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_a_benchmark_is_a_row_with_how_to_obtain_it_and_what_is_unverified(generate: ModuleType) -> None:
    table = rows(generate.benchmarks_page())
    for benchmark in REGISTRY.values():
        (row,) = [row for row in table if row[0] == f"`{benchmark.name}`"]
        assert benchmark.obtain[1:] in " ".join(row) and benchmark.unverified in row
    assert {len(row) for row in table} == {7}


@pytest.mark.parametrize("stage", CATALOG)
def test_a_field_is_a_row_with_its_sentence(generate: ModuleType, stage: str) -> None:
    config = re.split(r"^##+ ", generate.stage_page(stage).partition("\n## config\n")[2], flags=re.MULTILINE)[0]
    table = {row[0]: row for row in rows(config)}
    schema = generate.definitions()[CATALOG[stage].config_class().__name__]
    for name, field in schema["properties"].items():
        assert " ".join(field.get("description", "").split()).replace("|", "\\|") == table[f"`{name}`"][3], name


@pytest.mark.parametrize("stage", CATALOG)
def test_links_within_a_page_lead_to_its_headings(generate: ModuleType, stage: str, tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text(generate.stage_page(stage))
    page = Page(path)
    assert {target for _, target in page.links() if target.startswith("#")} <= {f"#{one}" for one in page.anchors}


def test_commands_metrics_and_exit_codes_are_all_there(generate: ModuleType) -> None:
    assert {"## vitpipe run", "## vitpipe artifacts get", "## vitpipe compare"} <= set(
        generate.commands_page().splitlines()
    )
    assert "--replace NODE" in generate.commands_page()
    assert len(rows(generate.metrics_page())) == 2 + len(metrics.KNOWN)
    assert [row[0] for row in rows(generate.exit_codes_page())[2:]] == [str(code) for code in range(9)]


def test_what_would_break_a_table_is_made_harmless(generate: ModuleType) -> None:
    assert generate.table(("a", "b"), [("x|y", "two\nlines")]).splitlines()[-1] == "| x\\|y | two lines |"
