"""Runs a notebook's code cells in one fresh namespace, as Jupyter does, and keeps what they print. Needs no Jupyter.

`python tests/notebooks.py NOTEBOOK` runs it in the current folder; with `--write` its outputs are stored in it.
"""

import ast
import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any


def code_cells(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def text_of(cell: dict[str, Any]) -> str:
    """All that a cell's stored outputs show."""
    shown = [output.get("text") or output["data"]["text/plain"] for output in cell["outputs"]]
    return "".join("".join(one) for one in shown)


def run_cell(source: str, namespace: dict[str, Any], place: int) -> list[dict[str, Any]]:
    """Run one cell: its printed text, and its last line's value if that is an expression that has one."""
    tree, printed, value = ast.parse(source), io.StringIO(), None
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, f"cell {place}", "exec"), namespace)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), f"cell {place}", "eval"), namespace)
    outputs: list[dict[str, Any]] = []
    if text := printed.getvalue():
        outputs.append({"output_type": "stream", "name": "stdout", "text": text.splitlines(keepends=True)})
    if value is not None:
        plain = {"text/plain": repr(value).splitlines(keepends=True)}
        outputs.append({"output_type": "execute_result", "execution_count": place, "data": plain, "metadata": {}})
    return outputs


def run(notebook: dict[str, Any]) -> None:
    """Run all cells; each gets its outputs and its number."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for place, cell in enumerate(code_cells(notebook), 1):
        cell["outputs"] = run_cell("".join(cell["source"]), namespace, place)
        cell["execution_count"] = place


if __name__ == "__main__":
    path = Path(sys.argv[1])
    content = json.loads(path.read_text())
    run(content)
    if "--write" in sys.argv:
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    else:
        print(json.dumps([text_of(cell) for cell in code_cells(content)]))
