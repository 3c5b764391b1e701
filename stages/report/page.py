"""The page: one HTML file that loads nothing, rendered from facts. Every text is escaped by the template engine."""

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from vitpipe.stages.paper.tables import title
from vitpipe.stages.report import wording
from vitpipe.stages.report.certainty import Levels, interval_words
from vitpipe.stages.report.charts import dots, score_axis
from vitpipe.stages.report.results import ScoreRow

MAX_FILES = 40
"""Files of a record that are listed; the rest is in record.json."""

MAX_CHARTS = 6
"""Charts of one kind that are shown; further ones are folded."""
MAX_ROWS = 10
"""Scores of a chart above which it is folded."""

_NO_BREAK = "\N{NO-BREAK SPACE}"


def render(**facts: Any) -> str:
    """Fill `page.html.j2` with `facts`, its variables. A missing one is an error, not a gap."""
    page = environment().get_template("page.html.j2")
    return page.render(shown_files=MAX_FILES, shown_charts=MAX_CHARTS, shown_rows=MAX_ROWS, **facts)


def score_charts(table: list[ScoreRow], reached: Mapping[str, Levels]) -> list[dict[str, Any]]:
    """Group the scores into one chart a benchmark and scored split, each with a scale of its own."""
    charts = []
    for benchmark, split in dict.fromkeys((row.benchmark, row.split) for row in table):
        rows = [row for row in table if (row.benchmark, row.split) == (benchmark, split)]
        level = next((reached[row.uri] for row in rows if row.uri in reached), None)
        charts.append({"title": title(benchmark), "rows": rows, "axis": score_axis(rows), "level": level})
    return charts


@functools.cache
def environment() -> jinja2.Environment:
    """Make the template engine of all pages: it escapes every text, and knows this project's ways to write numbers."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        duration=wording.duration,
        size=wording.size,
        count=wording.count,
        flops=wording.flops,
        short=wording.short,
        dots=dots,
        interval=interval_words,
        label=wording.class_label,
        benchmark_title=title,
        tie=lambda text: text.replace(" ± ", f"{_NO_BREAK}±{_NO_BREAK}").replace(" %", f"{_NO_BREAK}%"),
        capfirst=lambda text: text[:1].upper() + text[1:],
        pretty=lambda config: json.dumps(config, indent=2, sort_keys=True),
    )
    return environment
