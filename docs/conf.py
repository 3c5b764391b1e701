"""Settings of the documentation site (`make docs`), which Sphinx builds from the Markdown here.

What the code itself says (fields, benchmarks, commands, metrics, exit codes, the library) is written into
`reference/generated` by `reference/generate.py` before each build, and is not kept.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from myst_parser.parsers.sphinx_ import MystParser
from sphinx.application import Sphinx

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "reference"), str(HERE.parent)]

import generate  # noqa: E402 - its folder is on the path from here on

import vitpipe  # noqa: E402

generate.write(HERE / "reference" / "generated")

project = "vitpipe"
author = "the vitpipe authors"
version = release = vitpipe.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "linkify"]
myst_linkify_fuzzy_links = False
myst_heading_anchors = 4
highlight_language = "text"  # of blocks that name none
html_theme = "furo"
html_title = "vitpipe"
html_show_sphinx = html_show_copyright = False
default_role = "code"  # of docstrings
autodoc_typehints_format = "short"


class NotebookParser(MystParser):
    """Reads a notebook as the Markdown that it looks like: its texts, its code, and what the code printed."""

    supported = ("notebook",)

    def parse(self, inputstring: str, document: nodes.document) -> None:
        """Parse the cells one after the other."""
        super().parse("\n\n".join(map(_cell, json.loads(inputstring)["cells"])), document)


def _cell(cell: dict[str, Any]) -> str:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return source
    printed = (one.get("text") or one["data"]["text/plain"] for one in cell["outputs"])
    blocks = [f"```python\n{source}\n```", *(f"```text\n{''.join(text)}\n```" for text in printed)]
    return "\n\n".join(blocks)


def setup(app: Sphinx) -> None:
    """Take notebooks as pages, and lead links to CONTRIBUTING.md, which lies outside, to the page that includes it."""
    app.add_source_suffix(".ipynb", "notebook")
    app.add_source_parser(NotebookParser)
    app.connect("source-read", _inside)


def _inside(app: Sphinx, page: str, source: list[str]) -> None:
    source[0] = re.sub(r"\]\((?:\.\./)+CONTRIBUTING\.md", "](/contributing.md", source[0])
