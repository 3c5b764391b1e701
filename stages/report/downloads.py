"""The table of results as files inside the page: data addresses of a CSV and of a LaTeX table. Knows no page."""

import base64
from collections.abc import Sequence

from vitpipe.stages.paper.tables import title
from vitpipe.stages.report.latex import LATEX, tabular
from vitpipe.stages.report.results import ScoreRow


def downloads(table: Sequence[ScoreRow], results: bytes) -> list[tuple[str, str, str]]:
    """List words, file name and data address of what can be saved, `results` as the CSV; nothing of no scores."""
    if not table:
        return []
    files = (
        ("CSV", "results.csv", "text/csv", results),
        ("LaTeX", "results.tex", "application/x-tex", latex_table(table)),
    )
    return [
        (words, name, f"data:{kind};charset=utf-8;base64,{base64.b64encode(content).decode()}")
        for words, name, kind, content in files
    ]


def latex_table(table: Sequence[ScoreRow]) -> bytes:
    """Write the results as a LaTeX table for `booktabs`, names escaped."""
    rows = []
    for row in table:
        spread = f" \\pm {100 * row.std:.1f}" if row.std is not None else ""
        words = (text.translate(LATEX) for text in (title(row.benchmark), row.arm, row.labels))
        rows.append((*words, f"${100 * row.value:.1f}{spread}$", str(len(row.per_seed))))
    head = ("Benchmark", "Arm", "Labels", r"Top-1, \%", "Seeds")
    return ("% \\usepackage{booktabs}\n" + tabular("lllrr", head, rows)).encode(errors="backslashreplace")
