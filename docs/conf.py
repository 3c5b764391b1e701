"""Settings of the documentation site (`make docs`), which Sphinx builds from the Markdown here.

What the code itself says (fields, benchmarks, commands, metrics, exit codes, the library) is written into
`reference/generated` by `reference/generate.py` before each build, and is not kept.
"""

import re
import sys
from pathlib import Path

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
html_static_path: list[str] = []
html_show_sphinx = html_show_copyright = False
default_role = "code"  # of docstrings
autodoc_typehints_format = "short"


def setup(app: Sphinx) -> None:
    """Lead links to CONTRIBUTING.md, which lies outside of these pages, to the page that includes it."""
    app.connect("source-read", _inside)


def _inside(app: Sphinx, page: str, source: list[str]) -> None:
    source[0] = re.sub(r"\]\((?:\.\./)+CONTRIBUTING\.md", "](/contributing.md", source[0])
