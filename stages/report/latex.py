"""LaTeX tables with the rules of `booktabs`. Knows no score and no run."""

from collections.abc import Iterable, Sequence

LATEX = str.maketrans({sign: f"\\{sign}" for sign in "&%$#_{}"})
LATEX |= str.maketrans({"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"})
"""What LaTeX would take for commands, for `str.translate`."""


def tabular(columns: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table of cells that are escaped already; `columns` places them: `lrr`."""
    first, *others = (" & ".join(row) + r" \\" for row in (head, *rows))
    begin = rf"\begin{{tabular}}{{{columns}}}"
    lines = [begin, r"\toprule", first, r"\midrule", *others, r"\bottomrule", r"\end{tabular}"]
    return "\n".join(lines) + "\n"
